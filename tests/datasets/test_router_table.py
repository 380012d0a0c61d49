from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ranker.datasets.router_table import (
    LLMInfo,
    RoutedQuery,
    estimate_costs,
    read_llms,
    read_router_scores,
    read_router_table,
)
from r1ranker.errors import InputError


def test_costs_are_price_times_estimated_tokens() -> None:
    queries = [RoutedQuery("1", "three short words", {"a": 1.0, "b": 0.0, "c": 0.0}), RoutedQuery("2", "", {"a": 1.0})]
    estimate_costs(queries, {"a": (3.0, 2.0), "b": (0.0, 1.0), "unused": (1.0, 1.0)})
    assert queries[0].costs == pytest.approx({"a": (3 * 4 + 2 * 256) / 1e6, "b": 256 / 1e6})
    assert queries[1].costs == pytest.approx({"a": 2 * 256 / 1e6})


def test_llms_are_read_with_or_without_prices(tmp_path: Path) -> None:
    path = tmp_path / "llms.json"
    rows = {"a": "text", "b": {"feature": "B"}, "c": {"feature": "C", "input_price": 0, "output_price": 1.5}}
    path.write_text(json.dumps(rows))
    assert read_llms(path) == {"a": LLMInfo("text"), "b": LLMInfo("B"), "c": LLMInfo("C", (0.0, 1.5))}


def test_scores_are_read_with_task_and_line_as_key(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('\n{"task": "t", "query": "q", "scores": {"a": 1}}\n{"query": "r", "scores": {}}\n')
    notes: list[str] = []
    assert read_router_scores(path, notes) == [RoutedQuery("t:2", "q", {"a": 1.0}), RoutedQuery("3", "r")]
    assert notes == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], r"s\.jsonl:2: no 'query' \(a text\) and 'scores'"),
        ({"query": 1, "scores": {}}, "no 'query'"),
        ({"query": "q", "scores": [1]}, "no 'query'"),
        ({"query": "q", "scores": {"a": None}}, "the score of 'a' is None; it must be a finite number"),
        ({"query": "q", "scores": {"a": True}}, "the score of 'a' is True"),
        ({"query": "q", "scores": {"a": "1"}}, "the score of 'a' is '1'"),
        ({"query": "q", "scores": {"a": float("inf")}}, "the score of 'a' is inf"),
        ({"query": "q", "scores": {"a": 10**400}}, "the score of 'a' is 1000"),
    ],
)
def test_malformed_scores_are_told(tmp_path: Path, row: Any, message: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"query": "q", "scores": {}}\n' + json.dumps(row))
    with pytest.raises(InputError, match=message):
        read_router_scores(path, [])


def test_without_q_ids_a_query_is_told_by_its_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("query,llm,effect,cost\nadd,a,1,2\nadd,b,0,1\nsing,a,0,2\n", encoding="utf-8")
    found = read_router_table(path, [])
    assert [(q.key, q.query, q.effects) for q in found] == [
        ("add", "add", {"a": 1, "b": 0}),
        ("sing", "sing", {"a": 0}),
    ]

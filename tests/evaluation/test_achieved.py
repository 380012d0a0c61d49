"""Effect and cost of the LLM that is asked: worked out by hand for three queries and two LLMs."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ranker.datasets import build_routing, example_from_dict, load_dataset, read_examples, write_examples
from r1ranker.errors import InputError
from r1ranker.evaluation import Report, Row, make_row
from r1ranker.evaluation.achieved import BEST, references, routed
from r1ranker.evaluation.harness import random_row
from r1ranker.evaluation.table import rich_routing, routing_table
from r1ranker.types import RankingExample, Trace

# query: (effect, cost) of a small and of a large LLM
LOG = {"q1": ((0.5, 1), (1.0, 10)), "q2": ((1.0, 2), (1.0, 20)), "q3": ((0.2, 3), (0.6, 30))}


def example(key: str, *, costs: bool = True) -> RankingExample:
    told = {
        llm: {"effect": effect, **({"cost": cost} if costs else {})}
        for llm, (effect, cost) in zip(("small", "large"), LOG[key], strict=True)
    }
    row = {"id": key, "query": key, "scenario": "routing", "candidates": ["small", "large"], "achieved": told}
    return example_from_dict(row | {"relevance": {"large": 1}})


EXAMPLES = [example(key) for key in LOG]


def row(*first: str) -> Row:
    both = {"small", "large"}
    traces = [Trace(e.id, (llm, *(both - {llm}))) for e, llm in zip(EXAMPLES, first, strict=True)]
    return make_row("mine", "router", EXAMPLES, traces)


def test_what_the_llm_that_is_ranked_first_achieves() -> None:
    assert row("small", "large", "large").routed == pytest.approx({"effect": 2.1 / 3, "cost": 51 / 3})
    assert random_row("router", EXAMPLES).routed == pytest.approx({"effect": (0.75 + 1 + 0.4) / 3, "cost": 66 / 6})
    cheap = [example(key, costs=False) for key in LOG]
    assert routed(cheap, [[("q1", ["small"])]]) == {"effect": 0.5}  # nothing is known of costs
    bare = example_from_dict({"id": "q4", "query": "q", "scenario": "routing", "candidates": ["small", "large"]})
    assert routed([*EXAMPLES, bare], [[("q1", ["small"]), ("q4", ["small"])]]) == {}
    assert references([*EXAMPLES, bare]) == {}


def test_what_might_be_asked_instead() -> None:
    found = references(EXAMPLES)
    assert found[BEST] == pytest.approx({"effect": 2.6 / 3, "cost": 42 / 3})  # of q2's equals the cheap one
    assert found["always large"] == pytest.approx({"effect": 2.6 / 3, "cost": 20})
    assert found["always small"] == pytest.approx({"effect": 1.7 / 3, "cost": 2})
    assert list(references([*EXAMPLES[:2], EXAMPLES[2].restrict(["large"])])) == [BEST, "always large"]


def test_reports_show_it(tmp_path: Path) -> None:
    report = Report((row("small", "large", "large"),), "mine", {"routing": references(EXAMPLES)})
    report.save(tmp_path)
    again = Report.load(tmp_path)
    assert again.rows == report.rows
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| mine | 0.700 | 17 |" in text
    assert f"| {BEST} | 0.867 | 14 |" in text
    assert "- routing" not in text
    table = rich_routing(again.rows, again.facts["routing"])
    assert table is not None
    assert table.row_count == 4
    plain = make_row(
        "mine",
        "p",
        [bare := EXAMPLES[0].__class__("q", "passage", EXAMPLES[0].candidates, "q")],
        [Trace(bare.id, bare.ids)],
    )
    assert (routing_table([plain], {}), rich_routing([plain], {})) == ("", None)


def test_a_router_log_and_a_file_of_it_tell_it(tmp_path: Path) -> None:
    lines = ["query,llm,effect,cost"]
    lines += [f"{q} asked,{llm},{e},{c}" for q, two in LOG.items() for llm, (e, c) in zip("ab", two, strict=True)]
    (tmp_path / "log.csv").write_text("\n".join(lines), encoding="utf-8")
    data = build_routing(tmp_path / "log.csv", name="router-cost", test_fraction=1)
    assert references(data.test)["always a"] == pytest.approx({"effect": 1.7 / 3, "cost": 2})
    write_examples(tmp_path / "copy.jsonl", data.test)
    assert read_examples(tmp_path / "copy.jsonl")[0] == list(data.test)
    copy = load_dataset(str(tmp_path / "copy.jsonl"), shuffle=False)
    assert copy.fingerprint() == data.fingerprint()
    assert references(copy.test) == references(data.test)


@pytest.mark.parametrize(
    ("achieved", "said"),
    [
        ([1], "must be an object from candidate ids to effects and costs, not a list"),
        ({"small": {"cost": 1}}, "the effect of 'small' must be a number, not nothing"),
        ({"small": {"effect": 1, "cost": "dear"}}, "the cost of 'small' must be a number, not a text"),
        ({"smal": 1}, "achieved names 'smal', which is not a candidate"),
    ],
)
def test_what_is_no_outcome_is_named(achieved: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        example_from_dict({"query": "q", "scenario": "routing", "candidates": ["small", "large"], "achieved": achieved})

"""The Python API: what is taken as documents, what is refused, and which folder is a model's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r1ranker import Reranker
from r1ranker.config import RankerConfig
from r1ranker.errors import InputError
from r1ranker.llm.base import ScriptedLLM
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.modelfolder import RANKER
from r1ranker.records import record
from r1ranker.reranker import locate, make_example
from r1ranker.types import Candidate, RankingExample

DOCUMENTS: list[Any] = [
    ["Emma", "A town"],
    np.array(["Emma", "A town"]),
    ("Emma", {"text": "A town"}),
    [{"text": "Emma", "id": None}, Candidate("1", "A town")],
    {"0": "Emma", "1": "A town"},
]


@pytest.mark.parametrize("documents", DOCUMENTS)
def test_documents_are_texts_objects_or_a_mapping(documents: Any) -> None:
    example = make_example("who?", documents)
    assert [(c.id, c.text, c.name) for c in example.candidates] == [("0", "Emma", None), ("1", "A town", None)]
    assert (example.scenario, example.query, example.history) == ("passage", "who?", ())


def test_the_scenario_and_the_word_for_a_document_can_be_told() -> None:
    documents = [{"name": "gpt", "text": "costs 1"}]
    example = make_example("2 + 2", documents, scenario="routing", item_type="model", goal="well")
    assert (example.scenario, example.item_type, example.candidates[0].name) == ("routing", "model", "gpt")
    assert example.goal == "well"
    assert make_example(None, ["a"], history=["Heat"]).scenario == "recommendation"  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scenario is 'chess'"):
        make_example("q", ["a"], scenario="chess")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"documents": "abc"}, "the documents are one text"),
        ({"history": "Heat"}, "the history is one text"),
        ({"documents": []}, "there is nothing to rank"),
        ({"documents": np.array([])}, "there is nothing to rank"),
        ({"documents": [7]}, "document 0: give a text"),
        ({"documents": {"d1": 7}}, "document 0: give a text"),
        ({"documents": ["\ud800"]}, "a text cannot be read"),
        ({"query": "  "}, "there is no context"),
    ],
)
def test_what_cannot_be_ranked_is_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_example(**{"query": "q", "documents": ["a", "b"], **given})


class LangChainLike:
    def __init__(self, text: str) -> None:
        self.page_content, self.metadata = text, {"page": 3}


def test_other_libraries_documents_come_back_as_they_were(tiny_llm: TransformersLLM) -> None:
    given = [LangChainLike("Emma"), {"_id": "b", "title": "Ohio", "text": "A town", "score": 0.5}, "Austen"]
    result = Reranker(tiny_llm, RankerConfig(kind="first_step", thinking=False)).rank("who?", iter(given))
    assert {r.index: (r.id, r.text) for r in result} == {0: ("0", "Emma"), 1: ("b", "Ohio A town"), 2: ("2", "Austen")}
    assert all(r.document is given[r.index] for r in result)
    assert "document" not in json.dumps(record(result, None))


def test_an_id_that_is_also_an_index_is_no_clash() -> None:
    assert make_example("q", [{"id": "1", "text": "x"}, "y"]).ids == ("1", "document 1")
    assert make_example("q", [{"id": np.int64(7), "text": np.str_("x")}, {"text": "y", "when": Path("z")}]).ids == (
        "7",
        "1",
    )
    for odd in (["a"], 1.5, True):
        with pytest.raises(InputError, match="'id' must be a text, not"):
            make_example("q", [{"id": odd, "text": "x"}])


def test_documents_without_text_come_last_unasked(tiny_llm: TransformersLLM) -> None:
    for kind in ("first_step", "pointwise", "iterative"):
        reranker = Reranker(tiny_llm, RankerConfig(kind=kind, thinking=False))  # type: ignore[arg-type]
        result = reranker.rank("who?", ["", "Emma", " ", "A town"])
        assert [r.index for r in result][2:] == [0, 2]
        assert [r.index for r in result][:2] == [
            r.index + 1 + r.index for r in reranker.rank("who?", ["Emma", "A town"])
        ]
        assert [r.model_score for r in result][2:] == [None, None]
        assert all({"1", "3"} >= set(turn.remaining) for turn in result.trace.turns)
        assert len(reranker.rank("who?", ["", " "])) == 2  # nothing else is there
    named = make_example("q", [{"name": "gpt", "text": ""}, ""], scenario="routing")
    assert [r.id for r in Reranker(tiny_llm).rank_batch([named])[0]] == ["0", "1"]


def test_a_stream_goes_on_after_what_is_no_example(tiny_llm: TransformersLLM) -> None:
    reranker = Reranker(tiny_llm, RankerConfig(kind="first_step", thinking=False))
    good = {"query": "a", "candidates": ("x", "y"), "seen on": Path("x"), "embedding": np.zeros(2)}
    given: list[Any] = [
        good,
        {"query": "a", "candidates": []},
        ("q", ["a"]),
        {"query": "\ud800", "documents": ["x"]},
        good,
    ]
    told: list[tuple[int, str]] = []
    ranked = dict(reranker.rank_stream(given, on_error=lambda position, error: told.append((position, str(error)))))
    assert sorted(ranked) == [0, 4]
    assert [position for position, _ in told] == [1, 2, 3]
    assert "no candidates" in told[0][1]
    assert "not a list" in told[1][1]
    assert "UTF-8" in told[2][1]
    with pytest.raises(InputError, match="no candidates"):
        list(reranker.rank_stream(given))


@pytest.mark.parametrize("top_k", [0, 1.0, True, "2"])
def test_a_number_of_results_that_is_none_is_told_before_ranking(top_k: Any) -> None:
    llm = ScriptedLLM(["never asked"])
    with pytest.raises(InputError, match="top_k is"):
        Reranker(llm, RankerConfig()).rank("q", ["a", "b"], top_k=top_k)


def test_turns_that_named_no_candidate_are_counted() -> None:
    script = ["<think>x</think><answer>nothing of these</answer>", "<think>x</think><answer>b</answer>"]
    result = Reranker(ScriptedLLM(script), RankerConfig(thinking=True, answer_form="name")).rank("q", ["a", "b", "c"])
    assert [turn.parsed.status for turn in result.trace.turns] == ["defaulted", "exact"]
    assert result.defaulted == 1


def test_a_batch_takes_what_lines_of_a_file_hold() -> None:
    reranker = Reranker(ScriptedLLM(lambda r: r.choices[0]), RankerConfig(thinking=False))
    rows: list[RankingExample | dict[str, Any]] = [
        {"query": "q", "candidates": ["a", "b"]},
        make_example("q", ["a", "b"], id="mine"),
        {"id": "named", "history": ["x"], "candidates": [{"id": "k", "text": "a"}, "b"]},
    ]
    results = reranker.rank_batch(rows)
    assert [result.example.id for result in results] == ["1", "mine", "named"]
    assert [sorted(document.id for document in result) for result in results] == [["1", "2"], ["0", "1"], ["2", "k"]]
    with pytest.raises(InputError, match="'candidates' must be a list"):
        reranker.rank_batch([{"query": "q"}])


@pytest.mark.parametrize(("kind", "scored"), [("pointwise", True), ("first_step", True), ("iterative", False)])
def test_what_the_model_scored_is_told_where_it_scores(tiny_llm: TransformersLLM, kind: str, scored: bool) -> None:
    result = Reranker(tiny_llm, RankerConfig.model_validate({"kind": kind, "thinking": False})).rank(
        "q", ["a", "b c", "d"]
    )
    scores = [document.model_score for document in result]
    if scored:
        assert scores == sorted((score for score in scores if score is not None), reverse=True)
        assert len(set(scores)) == 3
    else:
        assert scores == [None, None, None]


def test_a_runs_folder_stands_for_its_model(tiny_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    shutil.copytree(tiny_folder, model)
    (tmp_path / "run" / "config.json").write_text("{}", encoding="utf-8")  # the recipe
    asked = RankerConfig(kind="direct", thinking=False)
    (model / RANKER).write_text(f'{{"ranker": {asked.model_dump_json()}}}', encoding="utf-8")
    assert locate(tmp_path / "run") == locate(model) == (model, asked)

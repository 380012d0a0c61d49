"""The Python API: what is taken as documents, what is refused, and which folder is a model's."""

from __future__ import annotations

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
    example = make_example("2 + 2", [{"name": "gpt", "text": "costs 1"}], scenario="routing", item_type="model")
    assert (example.scenario, example.item_type, example.candidates[0].name) == ("routing", "model", "gpt")
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

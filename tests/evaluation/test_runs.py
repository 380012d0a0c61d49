"""Run files: what is written reads back in the same order, and what cannot be written is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from factories import ExampleFactory
from r1ranker.datasets import read_qrels, read_run
from r1ranker.errors import ConfigError
from r1ranker.evaluation.runs import check_file_names, file_name, save_run
from r1ranker.types import Candidate, RankingExample


def test_a_run_and_its_qrels_read_back(make_example: ExampleFactory, tmp_path: Path) -> None:
    example = make_example(3, positives={"c2": 2.0}, id="q1")
    assert save_run(tmp_path, "My model (a/b)", [example], {"q1": ("c3", "c1", "c2")}) == ""
    assert read_run(tmp_path / "My-model-a-b.run") == {"q1": ["c3", "c1", "c2"]}
    assert read_qrels(tmp_path / "qrels.txt")["q1"]["c2"] == 2
    assert "My-model-a-b" in (tmp_path / "My-model-a-b.run").read_text()


def test_ids_with_white_space_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    example = RankingExample("q", "routing", (Candidate("LLaMA-3 (8b)", "small"), Candidate("b", "large")), query="?")
    problem = save_run(tmp_path, "base", [example], {"q": example.ids})
    assert problem.startswith("no run file for 'base': ")
    assert "LLaMA-3 (8b)" in problem
    assert list(tmp_path.iterdir()) == []


def test_runs_of_other_lists_do_not_stay(make_example: ExampleFactory, tmp_path: Path) -> None:
    one, other = (make_example(3, positives={"c2": 1.0}, id=i) for i in ("q1", "q2"))
    for name in ("first", "second"):
        assert save_run(tmp_path, name, [one], {"q1": one.ids}) == ""
    assert {path.name for path in tmp_path.iterdir()} == {"first.run", "second.run", "qrels.txt"}
    assert save_run(tmp_path, "third", [other], {"q2": other.ids}) == ""
    assert {path.name for path in tmp_path.iterdir()} == {"third.run", "qrels.txt"}


def test_two_names_of_one_file_are_told() -> None:
    check_file_names("data sets", ["data/one.jsonl", "two.jsonl"])
    with pytest.raises(ConfigError, match=r"the data sets 'data/one.jsonl' and 'data-one.jsonl' would share their run"):
        check_file_names("data sets", ["data/one.jsonl", "data-one.jsonl"])


def test_a_name_without_letters_is_a_file_all_the_same() -> None:
    assert file_name("../..") == "row"
    assert file_name("runs/demo model") == "runs-demo-model"

"""A model is told that it is measured on what it learned from, and not where the split is that of its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ranker.datasets import load_dataset
from r1ranker.evaluation.held_out import not_held_out


@pytest.fixture
def lists(tmp_path: Path) -> str:
    rows = [
        {
            "id": f"q{k}",
            "query": f"{'abcdefghij'[k] * 5} {'klmnopqrst'[k] * 5}",
            "candidates": [{"id": "a", "text": "yes"}, {"id": "b", "text": "no"}],
            "relevance": {"a": 1},
        }
        for k in range(10)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def told(lists: str, facts: dict[str, Any], **options: Any) -> str:
    data = load_dataset(lists, **options)
    assert data.test
    return not_held_out(facts, lists, options, None, data.test, data.fingerprint())


def test_the_split_of_the_training_is_held_out(lists: str) -> None:
    facts = {"options": {lists: {"test_fraction": 0.2}}}
    assert told(lists, facts, test_fraction=0.2) == ""
    # All ten are tested, eight of them were learned from.
    assert told(lists, facts) == (
        "the model learned from the users or queries of 8 of these 10 lists: its training had another split "
        "(--option test_fraction=0.2)"
    )


def test_files_that_changed_since_have_another_split(lists: str) -> None:
    data = load_dataset(lists, test_fraction=0.2)
    facts = {"options": {lists: {"test_fraction": 0.2}}, "fingerprints": {lists: data.fingerprint()}}
    assert told(lists, facts, test_fraction=0.2) == ""
    path = Path(lists)
    more = json.loads(path.read_text(encoding="utf-8").splitlines()[0]) | {"id": "new", "query": "uvwxyz zyxwvu"}
    path.write_text(path.read_text(encoding="utf-8") + json.dumps(more) + "\n", encoding="utf-8")
    assert {e.id for e in data.train} & {e.id for e in load_dataset(lists, test_fraction=0.2).test}
    assert "the same options, and other lists" in told(lists, facts, test_fraction=0.2)
    assert told(lists, {"options": facts["options"]}, test_fraction=0.2) == ""  # of before it was kept


def test_options_of_the_training_side_alone_make_no_other_split(lists: str) -> None:
    facts = {"options": {lists: {"test_fraction": 0.2, "examples_per_user": 4, "goal": "well"}}}
    assert told(lists, facts, test_fraction=0.2) == ""


def test_what_the_adapter_before_learned_from_counts(lists: str) -> None:
    before = {"options": {lists: {"test_fraction": 0.2}}}
    assert "8 of these 10 lists" in told(lists, {"options": {"other.jsonl": {}}, "began_at": before})


def test_each_training_of_a_mean_is_looked_at(lists: str) -> None:
    mean = [{"options": {"other.jsonl": {}}}, {"began_at": {"options": {lists: {"test_fraction": 0.2}}}}]
    assert "8 of these 10 lists" in told(lists, {"recipe": "mine", "mean_of": mean})
    assert told(lists, {"recipe": "mine", "mean_of": mean[:1]}) == ""


def test_each_training_of_a_chain_is_looked_at(lists: str) -> None:
    """The last one had this split; what the one before learned from is known to the model all the same."""
    now = {lists: {"test_fraction": 0.2}}
    chain = {"options": now, "began_at": {"options": {lists: {"test_fraction": 0.5, "seed": 1}}}}
    test = {e.id for e in load_dataset(lists, test_fraction=0.2).test}
    before = {e.id for e in load_dataset(lists, test_fraction=0.5, seed=1).train}
    assert test & before
    assert f"of {len(test & before)} of these {len(test)} lists" in told(lists, chain, test_fraction=0.2)
    assert "--option test_fraction=0.5 --option seed=1" in told(lists, chain, test_fraction=0.2)
    assert told(lists, {**chain, "began_at": {"options": now}}, test_fraction=0.2) == ""


@pytest.mark.parametrize("facts", [{}, {"options": "none"}, {"options": {"other.jsonl": {}}}, {"began_at": None}])
def test_without_a_word_of_this_data_set_there_is_nothing_to_say(lists: str, facts: dict[str, Any]) -> None:
    assert told(lists, facts) == ""


def table(path: Path, queries: int) -> str:
    """A routing table whose queries have no words in common."""
    lines = ["q_id,query,llm,effect,cost"]
    for k in range(queries):
        lines += [f"{k},{chr(97 + k) * 4} {chr(97 + k) * 6},{llm},{effect},1" for llm, effect in (("x", 1), ("y", 0))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_data_sets_of_the_same_files_count_by_their_queries(tmp_path: Path) -> None:
    source = table(tmp_path / "router.csv", 10)
    facts = {"options": {"router-cost": {"test_fraction": 0.4}}}
    data = load_dataset("router-balance", source=source, test_fraction=1.0)
    text = not_held_out(facts, "router-balance", {"test_fraction": 1.0}, source, data.test)
    assert text.startswith("the model learned from the users or queries of 6 of these 10 lists")  # four were tested
    assert not_held_out(facts, "passage-5", {}, source, data.test) == ""


def test_other_files_than_those_of_the_training_say_nothing(tmp_path: Path) -> None:
    source = table(tmp_path / "router.csv", 10)
    data = load_dataset("router-cost", source=source, test_fraction=1.0)
    facts = {"options": {"router-cost": {"test_size": 50}}}  # more than there are: its files were others
    assert not_held_out(facts, "router-cost", {"test_fraction": 1.0}, source, data.test) == ""


def users(path: Path, start: int, *numbers: int) -> str:
    """Lists as `data build rec-music` writes them, of users by number; each has other items from `start` on."""
    rows = [
        {
            "id": f"rec-music:user:{n}",
            "history": [f"album {n}/{start + k}" for k in range(4)],
            "candidates": ["one", "two"],
            "relevance": {"1": 1},
            "group": str(n),
        }
        for n in numbers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_file_that_was_built_of_a_data_set_is_that_data_set(tmp_path: Path) -> None:
    """Users 1 to 3 are learned from in a file; their other histories are tested under the data set's name."""
    learned = users(tmp_path / "built.jsonl", 0, 1, 2, 3, 4)
    facts = {"options": {learned: {"test_fraction": 0.25}}}
    (kept,) = load_dataset(learned, test_fraction=0.25).test
    test = load_dataset(users(tmp_path / "other.jsonl", 10, 1, 2, 3, 4, 5)).test
    said = not_held_out(facts, "rec-music", {"seed": 1}, None, test)
    assert kept.id in {f"rec-music:user:{n}" for n in range(1, 5)}
    assert said.startswith("the model learned from the users or queries of 3 of these 5 lists")
    again = not_held_out(facts, str(tmp_path / "other.jsonl"), {}, None, test)  # a file beside a file
    assert again.startswith("the model learned from the users or queries of 3 of these 5 lists")
    strangers = load_dataset(users(tmp_path / "new.jsonl", 10, 6, 7)).test
    assert not_held_out(facts, "rec-music", {"seed": 1}, None, strangers) == ""

"""A run on several data sets: what the trainer draws from each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ranker.cli import mixing, runs
from r1ranker.config import parse_config
from r1ranker.datasets import Dataset
from r1ranker.rl.scored import Scored
from r1ranker.rl.states import State
from r1ranker.types import Candidate, RankingExample, Scenario


def lists(path: Path, count: int) -> str:
    """A file of lists of three; no two files ask the same."""
    rows = [
        {"id": f"q{k}", "query": f"{path.stem} {k}", "candidates": ["yes", "no", "perhaps"], "relevance": {"1": 1}}
        for k in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("mix", "drawn"), [("balanced", (7, 7)), ("proportional", (2, 12))])
def test_a_mixed_run_draws_as_its_recipe_says(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, mix: str, drawn: tuple[int, int]
) -> None:
    small, large = lists(tmp_path / "small.jsonl", 3), lists(tmp_path / "large.jsonl", 15)
    options = {small: {"test_fraction": 1 / 3}, large: {"test_fraction": 0.2}}
    config = parse_config(
        {
            "model": {"path": str(tiny_folder), "precision": "fp32", "device": "cpu"},
            "data": {"names": [small, large], "options": options, "mix": mix},
            "ranker": {"thinking": False, "max_tokens": 16},
            "train": {"algorithm": "all_actions", "steps": 1, "states_per_step": 14, "kl_coef": 0.0},
        },
        "test",
    )
    seen: list[State] = []
    updates = Scored.updates

    def watched(self: Scored, states: Sequence[State], *more: Any) -> list[list[int]]:
        seen.extend(states)
        return updates(self, states, *more)

    monkeypatch.setattr(Scored, "updates", watched)
    data = mixing.load_examples(config)
    assert Counter(data.origins) == {small: 2, large: 12}
    runs.train_run(config, tmp_path / "run", dataset=data, bar=False)
    assert Counter(state.origin for state in seen) == {small: drawn[0], large: drawn[1]}


def test_a_share_of_the_lists_is_in_the_order_of_the_first_stage(tmp_path: Path, tiny_folder: Path) -> None:
    plain, listed = lists(tmp_path / "plain.jsonl", 10), lists(tmp_path / "yes.jsonl", 40)
    data = {"names": [plain, listed], "first_stage": {listed: "bm25"}, "first_stage_share": 0.5}
    loaded = mixing.load_examples(parse_config({"model": {"path": str(tiny_folder)}, "data": data}, "test"))
    presorted = Counter(o for e, o in zip(loaded.train, loaded.origins, strict=True) if e.presorted)
    assert set(presorted) == {listed}
    assert 8 < presorted[listed] < 24  # of 32
    assert {e.candidates[0].text for e in loaded.train if e.presorted} == {"yes"}  # the word of all its queries
    assert any("lists are in the order of bm25" in text for text in loaded.notes)


def example(id: str, query: str = "", group: str = "", film: str = "") -> RankingExample:
    scenario: Scenario = "passage" if query else "recommendation"
    history = () if query else (film or f"Heat {id}",)
    candidates = (Candidate("a", "x"), Candidate("b", "y"))
    return RankingExample(id, scenario, candidates, query, history, {"a": 1}, group=group)


def test_mixed_data_sets_keep_ids_and_groups_apart_and_tested_queries_out() -> None:
    one = Dataset("one", (example("1", group="u"), example("2", "Who?", "q2")), (example("3", "When?", "q3"),))
    two = Dataset("two", (example("1", " when? "), example("5")), (example("4", group="u"),), {"a": 2}, ("1 dropped",))
    assert one.train[0].history != two.test[0].history
    mixed = mixing.mix([one, two])
    assert mixed.name == "one+two"
    assert [e.id for e in mixed.train] == ["1", "2", "2:5"]  # two's "when?" is tested in one
    assert mixed.origins == ("one", "one", "two")
    assert [e.id for e in mixed.test] == ["3", "2:4"]
    assert mixed.notes[0] == "two: 1 dropped"
    assert mixed.notes[1].startswith("1 training examples dropped")
    assert mixing.mix([one]) is one


def test_a_history_that_another_data_set_tests_is_not_trained_on() -> None:
    one = Dataset("one", (example("1", film="Heat"), example("2", film="Babe")), (example("3", film="Babe"),))
    two = Dataset("two", (example("4", film="Up"),), (example("5", film=" heat "),))
    mixed = mixing.mix([one, two])
    assert [e.id for e in mixed.train] == ["2", "4"]  # "Babe" is tested beside it, of another user
    assert mixed.notes == ("1 training examples dropped: their query, history or user is tested in another data set",)


def test_a_user_whom_another_data_set_tests_is_not_trained_on() -> None:
    """In a file that `data build` wrote, with other histories than the data set has by the run's options."""
    one = Dataset(
        "rec-music", (example("rec-music:user:1"),), (example("rec-music:user:2"), example("rec-music:user:3"))
    )
    ids = ("rec-music:user:2:4", "rec-music:user:1", "rec-music:user:30", "q:user:3")
    two = Dataset("built.jsonl", tuple(example(id, film=f"film of {id}") for id in ids), ())
    mixed = mixing.mix([one, two])
    assert [e.id for e in mixed.train] == ["rec-music:user:1", *(f"2:{id}" for id in ids[1:])]


def test_what_a_data_set_tests_itself_takes_nothing_from_its_own_training() -> None:
    """Many users search for the same; which of them are tested is the data set's own affair."""
    users = tuple(replace(example(f"u{k}", film=f"shoe {k}"), query="running shoes") for k in range(4))
    one = Dataset("one", users[:3], users[3:])
    blank = replace(example("6"), query=" ")
    two = Dataset("two", (example("4", "Who?"), example("5", "running shoes")), (blank,))
    three = Dataset("three", (example("7", film="Up"),), (example("8", film="Babe"),))
    mixed = mixing.mix([one, two, three])
    assert [e.id for e in mixed.train] == ["u0", "u1", "u2", "4", "7"]  # two's "running shoes" is tested in one

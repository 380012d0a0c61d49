"""A run on several data sets: what the trainer draws from each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1ranker.cli import runs
from r1ranker.config import parse_config
from r1ranker.rl.all_actions import AllActions
from r1ranker.rl.states import State


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
    updates = AllActions.updates

    def watched(self: AllActions, states: Sequence[State], *more: Any) -> list[list[int]]:
        seen.extend(states)
        return updates(self, states, *more)

    monkeypatch.setattr(AllActions, "updates", watched)
    data = runs.load_examples(config)
    assert Counter(data.origins) == {small: 2, large: 12}
    runs.train_run(config, tmp_path / "run", dataset=data, bar=False)
    assert Counter(state.origin for state in seen) == {small: drawn[0], large: drawn[1]}


def test_a_share_of_the_lists_is_in_the_order_of_the_first_stage(tmp_path: Path, tiny_folder: Path) -> None:
    plain, listed = lists(tmp_path / "plain.jsonl", 10), lists(tmp_path / "yes.jsonl", 40)
    data = {"names": [plain, listed], "first_stage": {listed: "bm25"}, "first_stage_share": 0.5}
    loaded = runs.load_examples(parse_config({"model": {"path": str(tiny_folder)}, "data": data}, "test"))
    presorted = Counter(o for e, o in zip(loaded.train, loaded.origins, strict=True) if e.presorted)
    assert set(presorted) == {listed}
    assert 8 < presorted[listed] < 24  # of 32
    assert {e.candidates[0].text for e in loaded.train if e.presorted} == {"yes"}  # the word of all its queries
    assert any("lists are in the order of bm25" in text for text in loaded.notes)

"""Item-kNN: sums of cosines by hand, candidates known by their names, a test list that nobody's choices tell of."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from baseline_examples import dataset, example

from r1ranker.baselines.item_knn import ItemKNN
from r1ranker.baselines.registry import fit_baseline
from r1ranker.types import Candidate

USERS = (("a", "b", "c"), ("a", "b"), ("b", "c", "d"), ("a", "e"), ("e", "d"))
"""Chosen by: a three users, b three, c two, d two, e two."""


def test_scores_are_sums_of_cosines() -> None:
    model = ItemKNN(USERS)
    ranked = example(["d", "b", "new", "e"], history=("a", "c"))
    d, b, e = 1 / math.sqrt(2 * 2), 2 / 3 + 2 / math.sqrt(3 * 2), 1 / math.sqrt(3 * 2)  # to c; to a and c; to a
    assert model.scores(ranked) == pytest.approx([d, b, 0, e], abs=1e-4)
    assert model.order(ranked) == ("c1", "c0", "c3", "c2")


def test_a_candidate_is_known_by_its_name() -> None:
    model = ItemKNN(USERS)
    plain = example(["d", "b"], history=("a",))
    named = replace(
        plain, candidates=tuple(Candidate(c.id, "others chose it with a", c.text) for c in plain.candidates)
    )
    assert model.scores(named) == model.scores(plain) == pytest.approx([0, 2 / 3], abs=1e-4)


def test_without_a_history_nothing_is_told_apart() -> None:
    assert ItemKNN(USERS).scores(example(["a", "b"])) == [0, 0]


def test_it_is_fitted_to_train_users_alone() -> None:
    lists = [example(["b", "e"], history=("a",))]
    data = replace(dataset("recommendation", tuple(lists)), sequences=USERS)
    assert fit_baseline("item-knn", data, lists).order(lists[0]) == ("c0", "c1")

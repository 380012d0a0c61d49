"""Rows beside each other, worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import resampling
from figures import Figures
from pairs import Pair, pairs_of


def cell(row: str, dataset: str, mrr: Sequence[float], seed: int | None = None) -> dict[str, Any]:
    return {"row": row, "dataset": dataset, "seed": seed, "values": {"MRR": list(mrr)}, "run_means": [], "tokens": 0}


def found(cells: Sequence[dict[str, Any]], asked: Mapping[str, Sequence[str]]) -> list[Pair]:
    rows = dict.fromkeys([c["row"] for c in cells], "base")
    return pairs_of(Figures({"rows": rows, "datasets": ["a", "b"], "cells": list(cells), "pairs": asked}))


def test_a_pair_is_the_mean_over_data_sets_of_the_mean_differences() -> None:
    cells = [
        cell("x", "a", [1.0, 0.5]),
        cell("y", "a", [0.5, 0.5]),
        cell("x", "b", [0.2, 0.2, 0.2, 0.9]),
        cell("y", "b", [0.3, 0.3, 0.3]),
    ]
    (pair,) = found(cells, {"x": ["y"]})
    assert (pair.row, pair.other) == ("x", "y")
    assert pair.differences["a"].difference == pytest.approx(0.25)
    assert pair.differences["b"].difference == pytest.approx(-0.1)  # on the three queries that both ranked
    assert [pair.differences[d].queries for d in ("a", "b")] == [2, 3]
    assert pair.overall.difference == pytest.approx(0.075)
    assert pair.overall.queries == 5
    # A draw weighs 0.5 and 0 on a by a weight that is uniform from 0 to 1, and has -0.1 on b always.
    assert pair.lists == (1, 1, 3)  # a: above, level; b: three below
    assert pair.interval == pytest.approx((0.0125 / 2 - 0.05, 0.4875 / 2 - 0.05), abs=0.005)


def test_the_test_of_a_pair_weighs_data_sets_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(resampling, "paired_p_value", lambda ours, _, seed: seen.append(ours) or 0.5)  # noqa: ARG005
    cells = [cell("x", "a", [1.0, 0.5]), cell("y", "a", [0.5, 0.5]), cell("x", "b", [0.9]), cell("y", "b", [0.3])]
    found(cells, {"x": ["y"]})
    assert seen[-1] == pytest.approx([0.5 / 2, 0.0, 0.6])


def test_holm_corrects_differences_and_pairs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    p_values = iter([0.01, 0.02, 0.03, 0.04, 0.01])  # x - y on a and b, x - z on a; then the two pairs
    monkeypatch.setattr(resampling, "paired_p_value", lambda ours, theirs, seed: next(p_values))  # noqa: ARG005
    cells = [cell(row, "a", [0.5]) for row in "xyz"] + [cell(row, "b", [0.5]) for row in "xy"]
    first, second = found(cells, {"x": ["y", "z"]})
    assert [one.p_holm for one in first.differences.values()] == pytest.approx([0.03, 0.04])
    assert [one.p_holm for one in second.differences.values()] == pytest.approx([0.04])
    assert [first.overall.p_holm, second.overall.p_holm] == pytest.approx([0.04, 0.02])


def test_trained_rows_are_compared_on_the_seeds_that_both_have() -> None:
    cells = [
        cell("x", "a", [0.9], seed=0),
        cell("x", "a", [0.1], seed=1),
        cell("y", "a", [0.5], seed=0),
        cell("z", "a", [0.5], seed=2),
        cell("base", "a", [0.2]),
    ]
    beside_y, beside_base = found(cells, {"x": ["y", "z", "base"]})
    assert (beside_y.other, beside_base.other) == ("y", "base")  # no seed in common with z
    assert beside_y.overall.difference == pytest.approx(0.4)
    assert beside_base.overall.difference == pytest.approx(0.3)  # the mean over seeds, 0.5


def test_pairs_of_which_one_did_not_run_are_left_out() -> None:
    cells = [cell("x", "a", [0.5]), cell("y", "b", [0.5])]
    assert found(cells, {"x": ["y", "nobody"]}) == []
    assert found(cells, {}) == []


def test_a_clear_difference_is_significant() -> None:
    ours, theirs = [0.9 + 0.001 * k for k in range(20)], [0.1] * 20
    (pair,) = found([cell("x", "a", ours), cell("y", "a", theirs)], {"x": ["y"]})
    assert pair.differences["a"].mark == "+"
    assert pair.overall.p_holm == pytest.approx(1e-4)

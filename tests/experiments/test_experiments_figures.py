"""The figures of an experiment, worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import figures
from figures import Figures
from r1ranker.errors import InputError


def cell(row: str, dataset: str, mrr: Sequence[float], seed: int | None = None, **more: Any) -> dict[str, Any]:
    values = {"MRR": list(mrr), "nDCG@10": [1.0] * len(mrr), "Hit@1": [0.0] * len(mrr)}
    return {"row": row, "dataset": dataset, "seed": seed, "values": values, "run_means": [], "tokens": 0, **more}


def made(cells: Sequence[dict[str, Any]], datasets: Sequence[str] = ("a", "b"), **bases: str) -> Figures:
    rows = dict.fromkeys([c["row"] for c in cells], "base") | bases
    return Figures({"rows": rows, "datasets": list(datasets), "cells": list(cells)})


def test_a_cell_is_the_mean_over_seeds_query_by_query() -> None:
    found = made([cell("x", "a", [1.0, 0.5], 0, tokens=30), cell("x", "a", [0.0, 0.5], 1, tokens=50)]).cells["x", "a"]
    assert found.values["MRR"] == [0.5, 0.5]
    assert (found.mean(), found.mean("nDCG@10"), found.queries, found.seeds) == (0.5, 1.0, 2, 2)
    assert found.spread == pytest.approx(0.5 / 2**0.5)  # of 0.75 and 0.25
    assert found.tokens == 20.0  # 80 for two queries by two seeds
    assert (found.low, found.high) == (0.5, 0.5)  # every query is the same, and the interval is over queries


def test_the_spread_of_a_row_that_ran_with_several_seeds_by_itself() -> None:
    found = made([cell("x", "a", [0.4, 0.4], run_means=[0.3, 0.4, 0.5], tokens=12)]).cells["x", "a"]
    assert (found.spread, found.seeds, found.tokens) == (pytest.approx(0.1), 3, 2.0)
    alone = made([cell("x", "a", [0.4, 0.4], run_means=[0.4])]).cells["x", "a"]
    assert (alone.spread, alone.seeds) == (None, 1)


def test_gains_are_means_over_data_sets_of_ratios() -> None:
    whole = made(
        [
            cell("base", "a", [0.5, 0.5]),
            cell("base", "b", [0.2, 0.2, 0.8]),
            cell("x", "a", [1.0, 0.5]),
            cell("x", "b", [0.1, 0.1]),
        ]
    )
    assert whole.relative_gain("x", "a") == pytest.approx(0.5)
    assert whole.relative_gain("x", "b") == pytest.approx(-0.5)  # on the two queries that both ranked
    gains = whole.gains("x")
    assert gains.relative == pytest.approx(0.0)
    # x has 1.0 with a weight w that is uniform from 0 to 1 (of two queries), and 0.5: a gain of w on a, and -0.5 on b.
    assert gains.interval == pytest.approx((0.025 / 2 - 0.25, 0.975 / 2 - 0.25), abs=0.01)
    assert (gains.datasets, gains.above, gains.better, gains.worse) == (2, 1, 0, 0)
    assert whole.comparisons["x", "b"].queries == 2
    assert ("base", "a") not in whole.comparisons
    assert whole.mean("x", "MRR") == pytest.approx((0.75 + 0.1) / 2)
    assert whole.gains("base").datasets == 0


def test_a_row_is_compared_with_the_row_that_the_plan_says() -> None:
    cells = [cell("base", "a", [0.5]), cell("other", "a", [0.25]), cell("x", "a", [0.75])]
    whole = made(cells, ["a"], x="other")
    assert whole.relative_gain("x", "a") == pytest.approx(2.0)
    assert whole.gains("other").relative == pytest.approx(-0.5)


def test_a_base_of_nothing_has_no_gain() -> None:
    gains = made([cell("base", "a", [0.0]), cell("x", "a", [0.5])], ["a"]).gains("x")
    assert (gains.relative, gains.interval, gains.above) == (None, None, 1)
    some = made([cell("base", "a", [0.0, 0.5]), cell("x", "a", [0.5, 0.5])], ["a"]).gains("x")
    assert some.relative == 1.0
    assert some.interval is not None  # no draw leaves a query out


def test_what_did_not_run_is_not_compared() -> None:
    whole = made([cell("base", "a", [0.5]), cell("x", "a", [1.0]), cell("x", "b", [1.0])])
    assert list(whole.comparisons) == [("x", "a")]
    assert whole.gains("x").datasets == 1
    assert (whole.mean("x", "MRR"), whole.mean("base", "MRR")) == (1.0, None)


def test_variants_count_in_nothing() -> None:
    whole = made([cell("base", "v", [0.5]), cell("x", "v", [1.0])], ["a"])
    assert whole.rows == []
    assert whole.comparisons == {}


def test_holm_corrects_over_all_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    p_values = {0.6: 0.01, 0.4: 0.02, 0.7: 0.03, 0.8: 0.5}
    monkeypatch.setattr(figures, "paired_p_value", lambda ours, _theirs, seed: p_values[ours[0]])  # noqa: ARG005
    base = [cell("base", dataset, [0.5]) for dataset in ("a", "b")]
    ours = [cell("x", "a", [0.6]), cell("x", "b", [0.4]), cell("y", "a", [0.7]), cell("y", "b", [0.8])]
    compared = made([*base, *ours]).comparisons
    # 4 x 0.01, 3 x 0.02, then 2 x 0.03 = 0.06, and 0.5 as it is.
    assert [compared[place].p_holm for place in (("x", "a"), ("x", "b"), ("y", "a"), ("y", "b"))] == pytest.approx(
        [0.04, 0.06, 0.06, 0.5]
    )
    gains = made([*base, *ours]).gains("x")
    assert (gains.better, gains.worse) == (1, 0)


def test_a_clear_difference_is_marked() -> None:
    worse = [0.1 + 0.001 * k for k in range(20)]
    whole = made([cell("base", "a", [1.0] * 20), cell("x", "a", worse)], ["a"])
    assert whole.comparisons["x", "a"].mark == "-"
    assert (whole.gains("x").better, whole.gains("x").worse) == (0, 1)


def test_another_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("{", "[]", json.dumps({"rows": {}, "datasets": []})):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"x\.json"):
            Figures.load(path)

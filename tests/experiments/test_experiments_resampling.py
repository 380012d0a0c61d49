"""Statistics over data sets: against what is known by hand, and what they say of data whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import resampling
from r1ranker.evaluation import paired_p_value
from resampling import Part, difference_interval, difference_p_value, gain_interval


def part(ours: Sequence[float], theirs: Sequence[float], name: str = "a") -> Part:
    return Part([f"{name}/{k}" for k in range(len(ours))], ours, theirs)


def test_a_gain_that_is_the_same_for_every_query_has_no_width() -> None:
    theirs = [0.1, 0.2, 0.5]
    assert gain_interval([part([2 * v for v in theirs], theirs)]) == pytest.approx((1.0, 1.0))
    assert gain_interval([part([0.5], [0.0])]) is None
    assert difference_interval([part([0.4, 0.5], [0.1, 0.2])]) == pytest.approx((0.3, 0.3))


def test_the_interval_is_turned_about_the_estimate() -> None:
    """Ours 1, theirs 1 or 0.5: a draw weighs them by w, uniform from 0 to 1, for a gain of 1 / (0.5 + 0.5 w) - 1."""
    found = gain_interval([part([1.0, 1.0], [1.0, 0.5])])
    estimate, least, most = 1 / 0.75 - 1, *(1 / (0.5 + 0.5 * w) - 1 for w in (0.975, 0.025))
    assert found == pytest.approx((2 * estimate - most, 2 * estimate - least), abs=0.01)


def test_the_same_queries_asked_twice_are_no_more_queries() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(0.2, 1.0, 16).tolist(), rng.uniform(0.1, 0.7, 16).tolist()
    once = [part(ours, theirs)]
    twice, apart = [*once, *once], [*once, part(ours, theirs, "b")]
    assert difference_interval(twice) == pytest.approx(difference_interval(once))
    assert gain_interval(twice) == pytest.approx(gain_interval(once))
    assert difference_p_value(twice) == difference_p_value(once) == paired_p_value(ours, theirs)
    wide, narrow = (high - low for low, high in map(difference_interval, (twice, apart)))
    assert narrow == pytest.approx(wide / 2**0.5, rel=0.05)  # taken for twice as many, they would be surer
    assert difference_p_value(apart) < difference_p_value(twice)


def test_each_data_set_weighs_the_same_in_a_test() -> None:
    """+1 for one query of one data set, and -1/4 for each of four of another: a sum of 0, which every draw reaches."""
    assert difference_p_value([part([1.0], [0.0]), part([0.0] * 4, [1.0] * 4, "b")]) == 1.0
    assert difference_p_value([part([1.0], [0.0]), part([0.5] * 4, [0.0] * 4, "b")]) < 0.1


def test_of_ratios_the_interval_holds_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 400)
    rng, lists, sets, runs, held, below = np.random.default_rng(3), 32, 6, 200, 0, 0
    places = 1 / np.arange(1, 21)  # reciprocal ranks among twenty: theirs at random, ours the better of two
    truth = float(np.maximum.outer(places, places).mean() / places.mean() - 1)
    for _ in range(runs):
        ours = places[rng.integers(0, 20, (2, sets, lists)).min(axis=0)].tolist()
        theirs = places[rng.integers(0, 20, (sets, lists))].tolist()
        low, high = gain_interval([part(ours[k], theirs[k], str(k)) for k in range(sets)]) or (0.0, 0.0)
        held += low <= truth <= high
        below += truth < low
    assert 0.86 <= held / runs <= 0.98
    assert below / runs <= 0.06  # percentiles of the draws have the truth below them far more often

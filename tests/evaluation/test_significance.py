"""Intervals and p-values against enumeration, theory and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from r1ranker.errors import InputError
from r1ranker.evaluation import bootstrap_interval, bootstrap_intervals, holm, paired_p_value, significance


def enumerated(differences: list[float]) -> float:
    flips = product((1, -1), repeat=len(differences))
    sums = [abs(float(np.dot(signs, differences))) for signs in flips]
    return float(np.mean([s >= abs(sum(differences)) - 1e-12 for s in sums]))


@pytest.mark.parametrize("differences", [[1.0], [1, 1, 1, 1], [0.5, -0.25, 1, 0.75, 0.5], [0.1, 0.2, -0.3, 0.1]])
def test_p_value_agrees_with_every_sign_flip(differences: list[float]) -> None:
    found = paired_p_value(differences, [0.0] * len(differences))
    assert found == pytest.approx(enumerated(differences), abs=0.02)


def test_p_value_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(60), rng.random(60) - 0.1
    reference = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=9_999, rng=2
    )
    assert paired_p_value(a, b) == pytest.approx(reference.pvalue, abs=0.02)
    assert paired_p_value(a, b) == pytest.approx(paired_p_value(b, a), abs=0.02)


def test_p_value_limits() -> None:
    assert paired_p_value([0.3, 0.7], [0.3, 0.7]) == 1.0
    assert paired_p_value([1.0] * 200, [0.0] * 200) == 1 / 10_000  # the +1 correction: never 0
    assert paired_p_value([1.0, 0.0], [0.0, 1.0]) == 1.0  # a mean difference of 0 is reached always
    with pytest.raises(InputError, match="cannot pair 1 queries with 2"):
        paired_p_value([1.0], [1.0, 2.0])


def test_p_values_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(0)
    found = [paired_p_value(rng.random(25), rng.random(25), resamples=499, seed=i) for i in range(300)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(300):
        low, high = bootstrap_interval(rng.exponential(size=60), resamples=500, seed=i)
        hits += low <= 1.0 <= high
    assert 0.89 <= hits / 300 <= 0.99


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).random(400)
    half = 1.96 * values.std() / 20
    assert bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


def test_bootstrap_edges() -> None:
    assert bootstrap_interval([0.4]) == pytest.approx((0.4, 0.4))
    # The mean of two drawn from {0, 1} is 0, 1/2 or 1 with odds 1:2:1.
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], confidence=0.6) == (0.0, 1.0)
    with pytest.raises(InputError, match="at least one"):
        bootstrap_interval([])
    with pytest.raises(InputError, match="confidence is 95"):
        bootstrap_interval([1.0], confidence=95)


def test_same_seed_same_answer_and_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(30)
    whole = bootstrap_interval(values, seed=7), paired_p_value(values, 1 - values, seed=7)
    assert whole == (bootstrap_interval(values, seed=7), paired_p_value(values, 1 - values, seed=7))
    monkeypatch.setattr(significance, "_CHUNK", 1000)
    assert sum(significance._chunks(10_001, 30)) == 10_001
    assert bootstrap_interval(values, seed=7) == whole[0]


@pytest.mark.parametrize("chunk", [1_000_000, 700])
def test_intervals_of_several_measures_are_those_of_each_alone(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {name: np.random.default_rng(k).random(57) for k, name in enumerate("abcde")}
    alone = {name: bootstrap_interval(values, seed=3) for name, values in columns.items()}
    monkeypatch.setattr(significance, "_CHUNK", chunk)
    assert bootstrap_intervals(columns, seed=3) == alone  # bit for bit


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []

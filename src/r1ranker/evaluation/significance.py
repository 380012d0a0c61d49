"""How sure a mean is, and whether two rankers differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from r1ranker.errors import InputError

_CHUNK = 1_000_000  # random numbers held at a time: a few MB, whatever the number of queries


def bootstrap_interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """(low, high): the percentile bootstrap interval of the mean (Efron 1979; Sakai 2006 for IR).

    Deterministic in `seed`. Raises InputError for no values, or a confidence outside (0, 1).
    """
    return bootstrap_intervals({"": values}, confidence, resamples, seed)[""]


def bootstrap_intervals(
    columns: Mapping[str, Sequence[float]], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """`bootstrap_interval` of several measures of the same queries, which are drawn once for all of them."""
    data = np.asarray(list(columns.values()), dtype=np.float64)  # (measures, queries)
    if not data.size:
        raise InputError("an interval needs at least one value: evaluate at least one query")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; it must lie between 0 and 1, like 0.95")
    queries, rng = data.shape[1], np.random.default_rng(seed)
    draws = (rng.integers(0, queries, (rows, queries)) for rows in _chunks(resamples, queries))
    # Column by column, so that the sums are rounded as they would be for that column alone.
    means = np.concatenate([np.stack([column[drawn].mean(axis=1) for column in data]) for drawn in draws], axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return {name: (float(low[k]), float(high[k])) for k, name in enumerate(columns)}


def paired_p_value(a: Sequence[float], b: Sequence[float], resamples: int = 9_999, seed: int = 0) -> float:
    """Two-sided p-value of mean(a) = mean(b) by a paired randomization test.

    Under the null hypothesis each query's difference may as well have the other sign (Fisher 1935;
    Smucker et al. 2007). The observed signs count as one of the draws, so p is never 0 (Davison and
    Hinkley 1997, eq. 4.11): the least is 1 / (resamples + 1). It is 1 where no query differs.

    Raises InputError where a and b are not equally long, for they then cannot be paired.
    """
    if len(a) != len(b):
        raise InputError(f"cannot pair {len(a)} queries with {len(b)}: compare rankers on the same examples")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    differences = differences[differences != 0]  # a zero's sign changes no sum
    if not len(differences):
        return 1.0
    rng, size = np.random.default_rng(seed), len(differences)
    # Summing in another order shifts a sum by rounding errors, and an equal sum must count as reached.
    reached = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    extreme = 0
    for rows in _chunks(resamples, size):
        signs = rng.integers(0, 2, (rows, size)) * 2.0 - 1.0
        extreme += int((np.abs(signs @ differences) >= reached).sum())
    return (extreme + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), in the order given; valid under any dependence."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _chunks(resamples: int, size: int) -> Iterator[int]:
    """Row counts that sum to `resamples`, each a matrix of at most about _CHUNK numbers."""
    rows = max(1, _CHUNK // size)
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)

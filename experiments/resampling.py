"""Statistics over several data sets, some of which ask the same queries: the three routing sets have all in common.

A query is drawn, or changes sides, in all data sets that it stands in at once, as what it is: one query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1ranker.benchmark.run import STATISTICS_SEED
from r1ranker.evaluation import paired_p_value

RESAMPLES = 10_000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """Two rows on one data set.

    queries: what tells each query from others, here and in other data sets. ours, theirs: a value for each query.
    """

    queries: Sequence[str]
    ours: Sequence[float]
    theirs: Sequence[float]


def gain_interval(parts: Sequence[Part]) -> tuple[float, float] | None:
    """95% interval of the mean over data sets of ours / theirs - 1, of means; None for a base of 0.

    The basic bootstrap interval (Davison and Hinkley 1997, section 5.2.1). A ratio of means is too high on average, and
    among draws even more so: percentiles of the draws would have that error twice.
    """
    if not all(np.any(part.theirs) for part in parts):
        return None
    estimate = float(np.mean([np.mean(part.ours) / np.mean(part.theirs) - 1 for part in parts]))
    drawn = _drawn(parts)
    draws = sum((ours / theirs - 1 for ours, theirs in drawn), np.zeros(RESAMPLES)) / len(parts)
    low, high = np.quantile(draws, [0.025, 0.975])
    return 2 * estimate - float(high), 2 * estimate - float(low)


def difference_interval(parts: Sequence[Part]) -> tuple[float, float]:
    """95% interval of the mean over data sets of ours - theirs, of means: percentiles of bootstrap draws."""
    draws = sum((ours - theirs for ours, theirs in _drawn(parts)), np.zeros(RESAMPLES)) / len(parts)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def difference_p_value(parts: Sequence[Part]) -> float:
    """Paired randomization test of a mean over data sets: a query weighs 1 / the queries of its data set, in each."""
    totals: dict[str, float] = {}
    for part in parts:
        for query, ours, theirs in zip(part.queries, part.ours, part.theirs, strict=True):
            totals[query] = totals.get(query, 0.0) + (ours - theirs) / len(part.queries)
    return paired_p_value([*totals.values()], [0.0] * len(totals), seed=STATISTICS_SEED)


def _drawn(parts: Sequence[Part]) -> list[tuple[Floats, Floats]]:
    """For each data set, the means of both rows in every draw.

    A draw weighs queries by the Bayesian bootstrap (Rubin 1981), which may have the same one in several data sets.
    """
    numbers: Mapping[str, int] = {q: k for k, q in enumerate(dict.fromkeys(q for p in parts for q in p.queries))}
    weights = np.random.default_rng(STATISTICS_SEED).exponential(size=(RESAMPLES, len(numbers)))
    means = []
    for part in parts:
        own = weights[:, [numbers[query] for query in part.queries]]
        own /= own.sum(axis=1, keepdims=True)
        means.append((own @ np.asarray(part.ours), own @ np.asarray(part.theirs)))
    return means

"""Two rows of an experiment beside each other: a plan's `[pairs]`, such as a variant and what it varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from figures import RESAMPLES, Figures
from r1ranker.benchmark.report import Comparison
from r1ranker.benchmark.run import STATISTICS_SEED
from r1ranker.evaluation import holm, paired_p_value

Values = tuple[Sequence[float], Sequence[float]]
"""MRR of a row and of the other one, on the queries that both ranked, of the seeds that both have."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A row against another one, over the data sets that both ranked.

    differences: data set -> MRR - the other's, corrected for all differences of all pairs. overall: the mean of the
    differences, each data set counting the same, with a test of its own, corrected for the number of pairs.
    interval: 95% bootstrap interval of that mean, queries drawn anew in each data set.
    """

    row: str
    other: str
    differences: Mapping[str, Comparison]
    overall: Comparison
    interval: tuple[float, float]


def pairs_of(figures: Figures) -> list[Pair]:
    """The pairs of which both rows ran on some data set, in the plan's order."""
    found: dict[tuple[str, str], dict[str, Values]] = {}
    for row, others in figures.results.get("pairs", {}).items():
        for other in others:
            values = {d: v for d in figures.datasets if (v := figures.shared(row, other, d)) is not None}
            if values:
                found[row, other] = values
    by_dataset = [one for values in found.values() for one in values.values()]
    tested = _tested([(_mean_difference([one]), [one]) for one in by_dataset])
    overall = _tested([(_mean_difference([*v.values()]), [*v.values()]) for v in found.values()])
    left = iter(tested)
    return [
        Pair(row, other, {dataset: next(left) for dataset in values}, whole, _interval([*values.values()]))
        for ((row, other), values), whole in zip(found.items(), overall, strict=True)
    ]


def _mean_difference(parts: Sequence[Values]) -> float:
    return float(np.mean([np.mean(ours) - np.mean(theirs) for ours, theirs in parts]))


def _tested(differences: Sequence[tuple[float, Sequence[Values]]]) -> list[Comparison]:
    """Each difference with its p-value, corrected for their number (Holm 1979)."""
    raw = [_p_value(parts) for _, parts in differences]
    queries = [sum(len(ours) for ours, _ in parts) for _, parts in differences]
    return [
        Comparison(difference, p, adjusted, count)
        for (difference, _), p, adjusted, count in zip(differences, raw, holm(raw), queries, strict=True)
    ]


def _p_value(parts: Sequence[Values]) -> float:
    """Paired randomization test of a mean over data sets: a query weighs 1 / the queries of its data set."""
    ours, theirs = ([value / len(part[k]) for part in parts for value in part[k]] for k in (0, 1))
    return paired_p_value(ours, theirs, seed=STATISTICS_SEED)


def _interval(parts: Sequence[Values]) -> tuple[float, float]:
    rng, means = np.random.default_rng(STATISTICS_SEED), np.zeros(RESAMPLES)
    for ours, theirs in parts:
        differences = np.asarray(ours) - np.asarray(theirs)
        drawn = rng.integers(0, len(differences), (RESAMPLES, len(differences)))
        means += differences[drawn].mean(axis=1) / len(parts)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)

"""Two rows of an experiment beside each other: a plan's `[pairs]`, such as a variant and what it varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from figures import Figures
from r1ranker.benchmark.report import Comparison
from r1ranker.evaluation import holm
from resampling import Part, difference_interval, difference_p_value

_LEVEL = 1e-9


@dataclass(frozen=True, slots=True)
class Pair:
    """A row against another one, over the data sets that both ranked.

    differences: data set -> MRR - the other's, corrected for all differences of all pairs. overall: the mean of the
    differences, each data set counting the same, with a test of its own, corrected for the number of pairs.
    interval: 95% bootstrap interval of that mean. A query that stands in several data sets is drawn, and changes sides
    in the test, in all at once. lists: on how many lists of all data sets the row is above, level and below; MRRs that
    differ by less than 1e-9 are level.
    """

    row: str
    other: str
    differences: Mapping[str, Comparison]
    overall: Comparison
    interval: tuple[float, float]
    lists: tuple[int, int, int]


def pairs_of(figures: Figures) -> list[Pair]:
    """The pairs of which both rows ran on some data set, in the plan's order."""
    found: dict[tuple[str, str], dict[str, Part]] = {}
    for row, others in figures.results.get("pairs", {}).items():
        for other in others:
            shared = {dataset: figures.shared(row, other, dataset) for dataset in figures.datasets}
            if parts := {dataset: figures.part(dataset, v) for dataset, v in shared.items() if v is not None}:
                found[row, other] = parts
    by_dataset = _tested([[part] for parts in found.values() for part in parts.values()])
    overall = _tested([[*parts.values()] for parts in found.values()])
    left = iter(by_dataset)
    return [
        Pair(
            row,
            other,
            {dataset: next(left) for dataset in parts},
            whole,
            difference_interval([*parts.values()]),
            _lists([*parts.values()]),
        )
        for ((row, other), parts), whole in zip(found.items(), overall, strict=True)
    ]


def _lists(parts: Sequence[Part]) -> tuple[int, int, int]:
    """On how many lists ours is above, level and below."""
    differences = [ours - theirs for part in parts for ours, theirs in zip(part.ours, part.theirs, strict=True)]
    above, below = (sum(sign * d > _LEVEL for d in differences) for sign in (1, -1))
    return above, len(differences) - above - below, below


def _tested(differences: Sequence[Sequence[Part]]) -> list[Comparison]:
    """The mean difference over each's data sets with its p-value, corrected for their number (Holm 1979)."""
    raw = [difference_p_value(parts) for parts in differences]
    return [
        Comparison(
            fmean(fmean(part.ours) - fmean(part.theirs) for part in parts),
            p,
            adjusted,
            sum(len(part.queries) for part in parts),
        )
        for parts, p, adjusted in zip(differences, raw, holm(raw), strict=True)
    ]

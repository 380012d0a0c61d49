"""The uniformly random ranker: its exact expected measures, and one that draws."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from math import comb, log2

import numpy as np

from r1ranker.baselines.base import Baseline
from r1ranker.types import RankingExample


@dataclass(frozen=True)
class RandomRanker(Baseline):
    """A uniformly random order, drawn anew for each example from `seed` and the example's id.

    So the order in which examples are ranked makes no difference. For tables prefer
    `expected_measures`, which has no sampling noise.
    """

    seed: int = 0
    name: str = "random"

    def order(self, example: RankingExample) -> tuple[str, ...]:
        """Every candidate id exactly once, best first."""
        rng = np.random.default_rng([self.seed, zlib.crc32(example.id.encode())])
        return tuple(example.ids[i] for i in rng.permutation(len(example.ids)))


def expected_measures(example: RankingExample) -> dict[str, float]:
    """The expected MRR, nDCG@5, nDCG@10, Hit@1 and Hit@5 (each 0 to 1) of a uniformly random order.

    Exact, for any number of positives and any grades; with one positive among n the MRR is H(n)/n.
    All are 0 for an example without a relevant candidate, as in `evaluation.per_query`.
    """
    grades = [example.grade(i) for i in example.ids]
    n, positives = len(grades), sum(g > 0 for g in grades)
    return {
        "MRR": _reciprocal_rank(n, positives),
        "nDCG@5": _ndcg(grades, list(example.unlisted.values()), 5),
        "nDCG@10": _ndcg(grades, list(example.unlisted.values()), 10),
        "Hit@1": _hit(n, positives, 1),
        "Hit@5": _hit(n, positives, 5),
    }


def _reciprocal_rank(n: int, positives: int) -> float:
    """The first of r positives is at rank k in C(n - k, r - 1) of the C(n, r) ways to place them."""
    if not positives:
        return 0.0
    ways = (comb(n - k, positives - 1) / k for k in range(1, n - positives + 2))
    return sum(ways) / comb(n, positives)


def _hit(n: int, positives: int, k: int) -> float:
    """1 - P(all of the first k are irrelevant)."""
    k = min(k, n)
    return 1.0 - comb(n - positives, k) / comb(n, k)


def _ndcg(grades: list[float], unlisted: list[float], k: int) -> float:
    """By linearity every rank has the mean grade as its expected gain. 0 without a relevant candidate."""
    ideal = _dcg(sorted([*grades, *unlisted], reverse=True)[:k])
    mean = sum(grades) / len(grades)
    return _dcg([mean] * min(k, len(grades))) / ideal if ideal else 0.0


def _dcg(gains: list[float]) -> float:
    """Järvelin and Kekäläinen 2002 with linear gain and a log2(rank + 1) discount."""
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))

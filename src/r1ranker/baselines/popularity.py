"""Popularity, and its twin for routing: the label prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from r1ranker.baselines.base import by_score
from r1ranker.types import RankingExample


@dataclass(frozen=True)
class Popularity:
    """Orders candidates by how often each was chosen in training, whatever the query.

    counts: candidate id -> count among the train users or queries; an id that is absent counts 0.
        With the counts of each LLM being the best one, this is routing's label prior.
    Ties keep their listed order.
    """

    counts: Mapping[str, float]
    name: str = "popularity"

    def rank(self, example: RankingExample) -> tuple[str, ...]:
        """Every candidate id exactly once, best first."""
        return by_score(example, [self.counts.get(i, 0) for i in example.ids])

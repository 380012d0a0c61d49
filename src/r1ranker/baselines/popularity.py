"""Popularity, and its twin for routing: the label prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from r1ranker.baselines.base import Baseline
from r1ranker.types import RankingExample


@dataclass(frozen=True)
class Popularity(Baseline):
    """Orders candidates by how often each was chosen in training, whatever the query.

    counts: candidate id -> count among the train users or queries; an id that is absent counts 0.
        With the counts of each LLM being the best one, this is routing's label prior.
    """

    counts: Mapping[str, float]
    name: str = "popularity"

    def scores(self, example: RankingExample) -> list[float]:
        """The counts."""
        return [self.counts.get(i, 0) for i in example.ids]

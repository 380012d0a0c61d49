"""Item-kNN: collaborative filtering by counting who chose what along with what (Sarwar et al. 2001)."""

from __future__ import annotations

from collections.abc import Sequence

from r1ranker.baselines.base import Baseline, steady
from r1ranker.datasets import Neighbours
from r1ranker.types import RankingExample


class ItemKNN(Baseline):
    """Orders candidates by the cosines of each to the items of the history, added up (Deshpande and Karypis 2004).

    sequences: of each train user the items. A cosine is between the sets of users who chose two items. An item is known
    by its name, or by its text where it has none. What nobody chose along with the history scores 0.
    """

    name = "item-knn"

    def __init__(self, sequences: Sequence[Sequence[str]]) -> None:
        self._neighbours = Neighbours(sequences)

    def scores(self, example: RankingExample) -> list[float]:
        """Sums of cosines, 0 to the length of the history."""
        return steady(
            sum(self._neighbours.similarity(c.called, past) for past in example.history) for c in example.candidates
        )

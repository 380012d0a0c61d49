"""BM25 over an example's own candidates (Robertson and Zaragoza 2009), through bm25s."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from r1ranker.baselines.base import Baseline, read_text
from r1ranker.errors import MissingExtraError
from r1ranker.types import RankingExample


def tokenize(text: str) -> list[str]:
    """Lowercase runs of letters, digits and underscores."""
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True)
class BM25(Baseline):
    """Orders candidates by the BM25 score of their text.

    The query is the example's query and the texts of its history, joined. The collection is the
    candidate list itself, so a term's rarity is judged within it. The scoring is Lucene's, whose idf
    stays positive: in a list of five, most terms stand in half of the texts. Ties, and so all
    candidates that share no word with the query, keep their listed order.

    Raises MissingExtraError without bm25s.
    """

    k1: float = 1.5
    b: float = 0.75
    name: str = "bm25"

    def scores(self, example: RankingExample) -> list[float]:
        """BM25 scores; all 0 where the query or every text is without words."""
        query = tokenize(" ".join((example.query, *example.history)))
        texts = [tokenize(read_text(c)) for c in example.candidates]
        # bm25s fails on an empty query and divides by an average length of 0 where all texts are empty.
        if not query or not any(texts):
            return [0.0] * len(texts)
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError("The BM25 baseline", "bm25s", "eval") from error
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index it builds
        index = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
        index.index(texts, show_progress=False)
        return [float(s) for s in index.get_scores(query)]

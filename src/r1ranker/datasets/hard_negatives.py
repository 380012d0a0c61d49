"""Which texts look most like a query, by BM25 (Robertson and Zaragoza 2009): the negatives that are hard to tell."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence

from r1ranker.errors import MissingExtraError


def ranked_by_bm25(queries: Sequence[str], texts: Sequence[str]) -> Iterator[list[int]]:
    """For each query the places of all texts, which are the collection: best first, ties in order.

    The order is the texts' own where the query or every text is without words. Raises MissingExtraError without
    bm25s, once the first is asked for.
    """
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError("Choosing hard negatives", "bm25s", "eval") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index it builds
    places = range(len(texts))
    tokenized = [_words(text) for text in texts]
    index = bm25s.BM25(method="lucene")
    # bm25s divides by an average length of 0 where all texts are empty, and fails on an empty query.
    if found := any(tokenized):
        index.index(tokenized, show_progress=False)
    for query in queries:
        if found and (words := _words(query)):
            scores = index.get_scores(words)
            yield sorted(places, key=[-float(score) for score in scores].__getitem__)
        else:
            yield list(places)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())

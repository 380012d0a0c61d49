"""The order by BM25; that the builders take negatives by it is tested with them."""

from __future__ import annotations

import sys

import pytest

from r1ranker.datasets.hard_negatives import ranked_by_bm25
from r1ranker.errors import MissingExtraError


def test_more_words_and_rarer_ones_come_first_and_ties_in_order() -> None:
    texts = ["nothing", "red", "whale song", "A red WHALE!", "", "red"]
    # "whale" is rarer than "red", so it counts for more though its text is longer.
    both, one = ranked_by_bm25(["Red whale?", "red"], texts)
    assert both == [3, 2, 1, 5, 0, 4]
    assert one == [1, 5, 3, 0, 2, 4]


@pytest.mark.parametrize(("query", "texts"), [("?!", ["red", "whale"]), ("whale", ["", "?!"])])
def test_without_words_the_order_stays(query: str, texts: list[str]) -> None:
    assert list(ranked_by_bm25([query, query], texts)) == [[0, 1], [0, 1]]


def test_bm25s_is_missed_once_an_order_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    ranked = ranked_by_bm25(["red"], ["red"])
    with pytest.raises(MissingExtraError, match=r"Choosing hard negatives needs the package 'bm25s'"):
        next(ranked)

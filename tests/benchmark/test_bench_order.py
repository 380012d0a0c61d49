"""Kendall's tau and the order test, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from factories import example
from r1ranker.benchmark.order import OrderRow, kendall_tau, listed_anew, sensitivity
from r1ranker.errors import InputError
from r1ranker.types import RankingExample


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ("abc", "abc", 1.0),
        ("abc", "cba", -1.0),
        ("abc", "bac", 1 / 3),  # (a, b) disagrees; (a, c) and (b, c) agree
        ("abcd", "badc", 1 / 3),  # two of six pairs disagree
        ("abcd", "dabc", 0.0),  # three of six
        ("ab", "ba", -1.0),
    ],
)
def test_kendalls_tau(a: str, b: str, tau: float) -> None:
    assert kendall_tau(a, b) == pytest.approx(tau)
    assert kendall_tau(b, a) == pytest.approx(tau)


EXAMPLES = [example(5, id=f"e{k}") for k in range(6)]


def order_row(rank: Callable[[RankingExample], Sequence[str]], listings: int = 3) -> OrderRow:
    listed = [[listed_anew(e, k) for e in EXAMPLES] for k in range(listings)]
    return sensitivity("row", "data", listed, [[rank(e) for e in examples] for examples in listed])


def test_a_ranker_that_does_not_care() -> None:
    row = order_row(lambda e: sorted(e.ids))  # c1, the relevant one, comes first
    assert (row.tau, row.lowest, row.highest) == (1.0, 1.0, 1.0)
    assert -0.5 < row.follows < 0.5
    assert (row.queries, row.listings) == (6, 3)


def test_a_ranker_that_copies_the_listing() -> None:
    row = order_row(lambda e: e.ids)
    assert row.follows == 1.0
    assert row.tau < 0.5
    assert row.lowest < row.highest


def test_a_ranker_that_turns_the_listing_round() -> None:
    assert order_row(lambda e: e.ids[::-1]).follows == -1.0


def test_means_over_pairs_and_queries_by_hand() -> None:
    one, two = example(3, id="a"), example(3, id="b")
    listings = [[one, two]] * 3
    rankings = [
        [("c1", "c2", "c3"), ("c1", "c2", "c3")],
        [("c1", "c2", "c3"), ("c3", "c2", "c1")],
        [("c2", "c1", "c3"), ("c1", "c2", "c3")],
    ]
    row = sensitivity("row", "data", listings, rankings)
    # Pairs of listings: (0,1) 1 and -1; (0,2) 1/3 and 1; (1,2) 1/3 and -1.
    assert row.tau == pytest.approx((1 - 1 + 1 / 3 + 1 + 1 / 3 - 1) / 6)
    # Against c1 c2 c3, as listed: 1, 1; 1, -1; 1/3, 1.
    assert row.follows == pytest.approx((1 + 1 + 1 - 1 + 1 / 3 + 1) / 6)
    # c1 is relevant: MRR 1, then (1 + 1/3) / 2, then (1/2 + 1) / 2.
    assert row.lowest == pytest.approx(2 / 3)
    assert row.highest == 1.0


def test_a_single_candidate_says_nothing_of_order() -> None:
    single, pair = example(1, id="a"), example(2, id="b")
    row = sensitivity("row", "data", [[single, pair]] * 2, [[("c1",), ("c1", "c2")], [("c1",), ("c2", "c1")]])
    assert row.tau == -1.0
    with pytest.raises(InputError, match="no query has two candidates"):
        sensitivity("row", "data", [[single]] * 2, [[("c1",)]] * 2)
    with pytest.raises(InputError, match="at least two listings"):
        sensitivity("row", "data", [[pair]], [[("c1", "c2")]])


def test_a_listing_is_the_same_each_time_and_another_than_the_next() -> None:
    e = example(8)
    assert listed_anew(e, 0) == listed_anew(e, 0)
    orders = {listed_anew(e, k).ids for k in range(5)}
    assert len(orders) == 5
    assert all(sorted(order) == sorted(e.ids) for order in orders)
    assert len({listed_anew(e, k).id for k in range(5)} | {e.id}) == 6
    assert listed_anew(e, 1).relevance == e.relevance
    assert listed_anew(e, 0).ids != listed_anew(example(8, id="e2"), 0).ids

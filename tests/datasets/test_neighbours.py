"""Who chose what with what: cosines by hand, a user's own choices left out, the words that a candidate gets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker.datasets import Neighbours
from r1ranker.errors import InputError
from r1ranker.types import Candidate

USERS = (("a", "b", "c"), ("a", "b"), ("b", "c", "d"), ("a", "e"), ("e", "d"))
"""Chosen by: a three users, b three, c two, d two, e two."""


def test_cosines_of_the_users_who_chose_two_items() -> None:
    near = Neighbours(USERS)
    assert near.similarity("a", "b") == pytest.approx(2 / 3)
    assert near.similarity("b", "c") == near.similarity("c", "b") == pytest.approx(2 / math.sqrt(6))
    assert near.similarity("a", "d") == 0
    assert near.similarity("a", "new") == near.similarity("new", "a") == 0


def test_twice_is_chosen_once() -> None:
    assert Neighbours([("a", "b", "a", "b"), ("a", "c")]).similarity("a", "b") == pytest.approx(1 / math.sqrt(2))


def test_a_user_who_is_left_out_tells_nothing_of_what_they_chose() -> None:
    near = Neighbours(USERS)
    assert near.similarity("a", "b", without=USERS[0]) == pytest.approx(1 / 2)  # of two users each, one chose both
    assert near.similarity("a", "c", without=USERS[0]) == 0  # nobody else did
    # Of what a user did not choose the counts stay, but for the item that they chose
    assert near.similarity("c", "d", without=USERS[0]) == pytest.approx(1 / math.sqrt(1 * 2))
    without = Neighbours([items for items in USERS if items != USERS[0]])
    for one in "abcde":
        for other in "abcde":
            if one != other:
                assert near.similarity(one, other, USERS[0]) == pytest.approx(without.similarity(one, other))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefg"), max_size=5, unique=True), min_size=1, max_size=8), st.data())
def test_leaving_a_user_out_is_as_if_they_had_never_been(users: list[list[str]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(users) - 1))
    one, other = data.draw(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=2, unique=True))
    alone = Neighbours([*users[:place], *users[place + 1 :]])
    assert Neighbours(users).similarity(one, other, users[place]) == pytest.approx(alone.similarity(one, other))


def test_the_nearest_of_a_history_come_first() -> None:
    near = Neighbours(USERS, share=1.0)
    assert near.along_with("b", ["e", "a", "c", "d"], 5) == ["c", "a", "d"]  # 0.82, 0.67, 0.41; nobody chose e with b
    assert near.along_with("b", ["e", "a", "c", "d"], 2) == ["c", "a"]
    assert near.along_with("e", ["b", "c"], 5) == []
    assert near.along_with("d", ["e", "c"], 5) == ["e", "c"]  # as near as each other: in the history's order
    assert near.along_with("b", ["a", "a"], 5) == ["a"]


def test_only_the_nearest_share_of_all_items_are_neighbours() -> None:
    # Two of five: of a those are b (0.67) and c or e (0.41 each, a tie that keeps both), of c b and d
    near = Neighbours(USERS, share=0.4)
    assert [near.along_with(item, ["a"], 5) for item in "bced"] == [["a"], ["a"], ["a"], []]
    nearest = Neighbours(USERS, share=0.2)
    assert [nearest.along_with(item, ["a"], 5) for item in "bced"] == [["a"], [], [], []]
    # What is read is whose neighbour the candidate is, not the other way round: b's nearest is c, and c's is b
    assert nearest.along_with("a", ["b"], 5) == []
    assert nearest.along_with("c", ["b"], 5) == ["b"]


def test_a_candidate_is_told_of_by_its_text_and_keeps_its_name() -> None:
    near = Neighbours(USERS, share=1.0)
    history = ["e", "a", "c"]
    assert near.told(Candidate("1", "b"), history, 5) == Candidate("1", "others chose it with c; a", "b")
    described = Candidate("1", "jazz of 1959", "b")
    assert near.told(described, history, 1) == Candidate("1", "jazz of 1959; others chose it with c", "b")
    assert near.told(Candidate("1", "new"), history, 5) == Candidate("1", "new")
    assert near.told(Candidate("1", "b"), ["new"], 5) == Candidate("1", "b")
    assert near.told(Candidate("1", "c"), ["a"], 5, without=USERS[0]) == Candidate("1", "c")


def test_a_candidate_that_was_chosen_before_is_not_told_of_itself() -> None:
    near = Neighbours(USERS, share=1.0)
    assert near.along_with("a", ["a", "b"], 5) == ["b"]


@pytest.mark.parametrize("share", [0, -0.1, 1.1, math.nan])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="it must be above 0 and at most 1"):
        Neighbours(USERS, share)


def test_without_users_nothing_is_told() -> None:
    near = Neighbours([])
    assert near.told(Candidate("1", "a"), ["b"], 5) == Candidate("1", "a")

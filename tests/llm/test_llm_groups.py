from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.llm.constrained import Grammar, Spills
from r1ranker.llm.groups import UNLIKE, Group, alike, batches
from r1ranker.types import Prompt, Request, Sampling


def test_rows_with_much_more_to_read_stand_in_a_batch_of_their_own() -> None:
    # 10 and 50 are alike (2 * 10 + 32 = 52), 53 is not.
    assert UNLIKE == 32
    assert [alike(new, 10) for new in (1, 52, 53)] == [True, True, False]
    assert batches("abcd", new=[53, 10, 400, 52], sizes=[60, 500, 400, 500], limit=10_000) == [["b", "d"], ["a"], ["c"]]


def test_a_batch_is_padded_to_its_longest() -> None:
    # Three of 100 take 300; the fourth of 160 would make it 640.
    assert batches("abcd", new=[1, 2, 3, 4], sizes=[100, 100, 100, 160], limit=400) == [["a", "b", "c"], ["d"]]
    # In the order of new tokens the longest may come first.
    assert batches("abc", new=[1, 2, 3], sizes=[200, 10, 10], limit=400) == [["a", "b"], ["c"]]
    assert batches("ab", new=[1, 1], sizes=[900, 900], limit=400) == [["a"], ["b"]]
    assert batches("", new=[], sizes=[], limit=400) == []


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), max_size=20), st.integers(1, 600))
def test_batches_hold_each_item_once_within_the_limit(rows: list[tuple[int, int]], limit: int) -> None:
    new, sizes = [a for a, _ in rows], [a + b for a, b in rows]
    parts = batches(range(len(rows)), new, sizes, limit)
    assert sorted(k for part in parts for k in part) == list(range(len(rows)))
    for part in parts:
        assert len(part) == 1 or max(sizes[k] for k in part) * len(part) <= limit
        assert all(alike(new[k], min(new[j] for j in part)) for k in part)


GRAMMAR = Grammar(((1, 2, 9), (3, 9)), (7, 8), (8,), (0,), Spills({}))


@pytest.mark.parametrize(
    ("group", "room", "size"),
    [
        (Group((1, 2, 3), Request(Prompt("", "")), [0, 1], [], None, None), 50, 103),
        (Group((1, 2, 3), Request(Prompt("", "")), [0, 1], [(1, 2), (1, 2, 3)], None, None), 3, 8),
        (Group((1, 2, 3), Request(Prompt("", "", "<think>")), [0], [], None, GRAMMAR), 50, 53),
        (Group((1, 2, 3), Request(Prompt("", "", "<answer>")), [0, 1], [], None, GRAMMAR), 3, 9),
    ],
)
def test_what_a_group_takes(group: Group, room: int, size: int) -> None:
    sampling = Sampling(max_tokens=50)
    assert (group.room(sampling), group.size(sampling)) == (room, size)


def test_what_was_computed_was_not_reused() -> None:
    group = Group((1, 2, 3), Request(Prompt("", "")), [0], [], None, None)
    group.computed += 2
    assert group.cached == 1
    group.computed += 3  # computed again, because it could not be kept
    assert group.cached == 0

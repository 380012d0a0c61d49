from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.llm.packing import PAD_BRANCH, Pack, collate
from r1ranker.llm.tree import PAD_STEM, collate_trees, common_length, grow_trees, tree_size

TWO = [Pack([1, 2, 3, 4], [[10, 11], [12]]), Pack([1, 2, 5], [[13, 14, 15]])]
TOKENS = st.integers(1, 3)
PACKS = st.builds(
    Pack,
    st.lists(TOKENS, min_size=1, max_size=6),
    st.lists(st.lists(TOKENS, min_size=1, max_size=3), min_size=1, max_size=3),
)


def test_a_tree_by_hand() -> None:
    batch = collate_trees([TWO])
    # Common: 1 2. First pack: 3 4, branches 10 (11 is only predicted) and 12 (only predicted). Second: 5, then 13 14.
    assert batch.ids.tolist() == [[1, 2, 3, 4, 10, 5, 13, 14]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 2, 3, 4]]
    assert batch.stem.tolist() == [[0, 0, 1, 1, 1, 2, 2, 2]]
    assert batch.branch.tolist() == [[0, 0, 0, 0, 1, 0, 1, 1]]
    assert batch.targets.tolist() == [10, 11, 12, 13, 14, 15]
    assert batch.source_row.tolist() == [0] * 6
    assert batch.source_column.tolist() == [3, 4, 3, 5, 6, 7]
    assert batch.lengths == (2, 1, 3)
    assert batch.branch_counts == (2, 1)
    assert batch.computed_tokens == tree_size(TWO) == 8
    lines = ["x.......", "xx......", "xxx.....", "xxxx....", "xxxxx...", "xx...x..", "xx...xx.", "xx...xxx"]
    assert batch.mask()[0, 0].tolist() == [[c == "x" for c in line] for line in lines]


def test_branches_of_one_stem_do_not_see_each_other_and_padding_sees_the_trunk_and_itself() -> None:
    batch = collate_trees([[Pack([1, 2], [[3, 4], [5, 6]])], [Pack([1], [[2]])]])
    assert batch.stem.tolist() == [[0, 1, 1, 1], [1, PAD_STEM, PAD_STEM, PAD_STEM]]
    assert batch.branch.tolist() == [[0, 0, 1, 2], [0, PAD_BRANCH, PAD_BRANCH, PAD_BRANCH]]
    assert batch.mask()[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert batch.mask()[1, 0].int().tolist() == torch.eye(4).int().tolist()
    assert batch.source_row.tolist() == [0, 0, 0, 0, 1]


def test_each_pack_computes_the_end_of_its_own_trunk() -> None:
    assert common_length([Pack([1, 2, 3]), Pack([1, 2, 3])]) == 2
    assert common_length([Pack([1, 2, 3]), Pack([1, 2])]) == 1
    assert common_length([Pack([1, 2, 3]), Pack([9, 2, 3])]) == 0
    assert common_length([Pack([1, 2, 3])]) == 2


def test_trees_grow_in_order_up_to_a_limit() -> None:
    # One alone takes 5, two 8.
    same = [TWO[0], TWO[1], TWO[0]]
    assert [len(row) for row in grow_trees(same, 8)] == [2, 1]
    assert [len(row) for row in grow_trees(same, 100)] == [3]
    assert [len(row) for row in grow_trees(same, 1)] == [1, 1, 1]
    assert grow_trees([], 8) == []


@given(st.lists(st.lists(PACKS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_token_sees_its_own_path_and_nothing_else(rows: list[list[Pack]]) -> None:
    batch, plain = collate_trees(rows), collate([pack for row in rows for pack in row])
    assert batch.targets.tolist() == plain.targets.tolist()
    assert (batch.lengths, batch.branch_counts) == (plain.lengths, plain.branch_counts)
    assert batch.computed_tokens == sum(map(tree_size, rows))
    sources = zip(batch.source_row.tolist(), batch.source_column.tolist(), strict=True)
    for row in rows:
        for pack in row:
            for tokens in pack.branches:
                for k in range(len(tokens)):
                    r, c = next(sources)
                    looks = batch.mask()[r, 0, c]
                    assert batch.ids[r][looks].tolist() == [*pack.trunk, *tokens[:k]]
                    assert batch.positions[r][looks].tolist() == list(range(len(pack.trunk) + k))

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from r1ranker.llm import blocks as module
from r1ranker.llm.attention import NAME, grouped_attention, share_keys
from r1ranker.llm.blocks import attend_in_blocks, cut_blocks
from r1ranker.llm.packing import PAD_BRANCH, Pack, attention_mask, collate, packed_hidden
from r1ranker.llm.tree import collate_trees

ROWS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(0, 5), max_size=4)), min_size=1, max_size=3
)  # trunk, branches
TRUNKS = st.lists(st.integers(1, 2), min_size=1, max_size=5)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two queries, or of half a trunk."""
    monkeypatch.setattr(module, "MIN_QUERIES", 2)


def mask_of(*rows: str) -> Tensor:
    """Of branch numbers, one character a column; '-' is padding."""
    return attention_mask(torch.tensor([[PAD_BRANCH if c == "-" else int(c) for c in row] for row in rows]))


def test_blocks_by_hand() -> None:
    # The trunk of 3 and the first branch are plain text. The rest in blocks of two columns: both see the trunk and not
    # the first branch; columns 5 and 6 are of branches 2 and 3, column 7 goes on with 3, so it asks from 6 on.
    found = cut_blocks(mask_of("00011233"))
    assert found.queries == (5, 2, 1)
    assert found.keys == (5, 5, 5)
    assert found.columns.tolist() == [0, 1, 2, 3, 4, *[0, 1, 2, 5, 6], *[0, 1, 2, 6, 7]]
    assert found.masks[0] is None
    masks = [mask[0, 0].int().tolist() for mask in found.masks[1:] if mask is not None]
    assert masks == [[[1, 1, 1, 1, 0], [1, 1, 1, 0, 1]], [[1, 1, 1, 1, 1]]]


def test_what_is_plain_in_all_rows_is_plain_and_what_one_row_sees_is_asked() -> None:
    # The first row is text up to column 4, the second to its end.
    assert cut_blocks(mask_of("0111122")).columns.tolist() == [0, 1, 2, 3, 4, *[0, 5, 6]]
    found = cut_blocks(mask_of("0111122", "0011111"))
    assert found.queries == (5, 2)
    assert found.columns.tolist() == [0, 1, 2, 3, 4, *range(7)]


def test_plain_text_is_one_causal_block_and_padding_ends_it() -> None:
    assert cut_blocks(mask_of("0000")).queries == (4,)
    assert cut_blocks(mask_of("0000")).masks == (None,)
    # A padding sees the trunk and itself: the first one like text, the second not.
    assert cut_blocks(mask_of("0000", "00--")).queries == (3, 1)


def test_many_first_columns_make_wide_blocks() -> None:
    # Half of the first 10 is 5 columns a block.
    assert cut_blocks(mask_of("0" * 9 + "1" + "2" * 12)).queries == (10, 5, 5, 2)


@given(ROWS, st.integers(1, 6))
def test_every_pair_that_sees_is_in_a_block_and_no_other_is_allowed(
    rows: list[tuple[int, list[int]]], width: int
) -> None:
    lines = ["0" * trunk + "".join(str(k) * n for k, n in enumerate(sizes, 1)) for trunk, sizes in rows]
    longest = max(map(len, lines))
    covers(mask_of(*[line + "-" * (longest - len(line)) for line in lines]), width)


@given(st.lists(st.lists(TRUNKS, min_size=1, max_size=3), min_size=1, max_size=2), st.integers(1, 6))
def test_trees_are_cut_likewise(rows: list[list[list[int]]], width: int) -> None:
    covers(collate_trees([[Pack(trunk, [[8, 9], [9, 9]]) for trunk in row] for row in rows]).mask(), width)


def covers(mask: Tensor, width: int) -> None:
    """The mask, put together from its blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MIN_QUERIES", width)
        found = cut_blocks(mask)
    rebuilt = torch.zeros_like(mask)
    begin = 0
    for size, part, columns in zip(found.queries, found.masks, found.columns.split(list(found.keys)), strict=True):
        if part is None:
            part = torch.ones(size, size, dtype=torch.bool).tril().expand(mask.shape[0], 1, -1, -1)
        assert len(set(columns.tolist())) == len(columns)
        rebuilt[:, :, begin : begin + size, columns] = part
        begin += size
    assert begin == mask.shape[-1]
    assert torch.equal(rebuilt, mask)


def test_blocks_attend_as_the_whole_mask_does_forward_and_backward() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = mask_of("00011122233", "000011223--", "00111111111")
    query, key, value = (torch.randn(3, heads, 11, 8, generator=generator) for heads in (4, 2, 2))
    weights = torch.randn(3, 11, 4, 8, generator=generator)
    heads = torch.nn.Module()
    heads.num_key_value_groups, heads.is_causal = 2, True  # type: ignore[assignment]
    found: list[list[Tensor]] = []
    for whole in (True, False):
        inputs = [t.clone().requires_grad_() for t in (query, key, value)]
        if whole:
            out, _ = grouped_attention(heads, *inputs, mask, scaling=0.3)
        else:
            out, _ = attend_in_blocks(grouped_attention, heads, *inputs, cut_blocks(mask), scaling=0.3)
        found.append([out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def test_the_packed_pass_in_blocks_is_the_plain_one(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate([Pack([5, 6, 7], [[8, 9, 10, 11], [12, 13, 14], [15, 16]]), Pack([11, 12], [[13, 14, 15]])])
    plain, blocked = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    share_keys(blocked)
    assert blocked.config._attn_implementation == NAME
    calls: list[int] = []
    attend: Callable[..., Any] = attend_in_blocks

    def counted(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        return attend(*args, **settings)

    monkeypatch.setattr("r1ranker.llm.attention.attend_in_blocks", counted)
    with torch.no_grad():
        torch.testing.assert_close(packed_hidden(blocked, batch), packed_hidden(plain, batch), atol=1e-5, rtol=0)
    assert len(calls) == 3  # one a layer, and none in the model that attends the usual way

"""Attention in blocks of queries: what no query of a block may look at is never computed.

The mask of a pack is mostly empty: a branch sees the trunk and itself, none of the other branches. The columns that
every row begins with as plain text (the trunk and the first branch) are causal and need no mask. The rest is cut into
blocks; a block attends to those first columns up to the last that it sees, and to the others from the first it sees.

Shapes: B rows, T columns, D size of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MIN_QUERIES = 128
"""Fewer queries a block would leave less to skip than the more calls cost."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a mask is cut; every tuple has an entry a block.

    queries: how many columns ask, in order. keys: how many are asked. columns: (sum of keys,), which ones.
    masks: (B, 1, queries, keys); None for the causal first block.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    columns: Tensor
    masks: tuple[Tensor | None, ...]


def cut_blocks(mask: Tensor) -> Blocks:
    """The blocks of a mask (B, 1, T, T), True where a query may look, that never looks ahead."""
    size, device = mask.shape[-1], mask.device
    ahead = torch.ones(size, size, dtype=torch.bool, device=device).triu(1)
    plain = (mask[:, 0] | ahead).all(2).all(0)
    first = int(plain.long().cumprod(0).sum())
    seen = mask[:, 0].any(0)
    columns = [torch.arange(first, device=device)]
    queries = [first]
    masks: list[Tensor | None] = [None]
    width = max(MIN_QUERIES, first // 2)  # the first columns are copied for every block: few blocks where they are many
    for begin in range(first, size, width):
        end = min(begin + width, size)
        some = seen[begin:end].any(0)
        below = some[:first].nonzero()  # empty where packs of one row begin with different tokens
        high = int(below.max()) + 1 if len(below) else 0
        low = first + int(some[first:].long().argmax())
        asked = torch.cat([torch.arange(high, device=device), torch.arange(low, end, device=device)])
        queries.append(end - begin)
        columns.append(asked)
        masks.append(mask[:, :, begin:end].index_select(3, asked))
    return Blocks(tuple(queries), tuple(map(len, columns)), torch.cat(columns), tuple(masks))


def attend_in_blocks(
    attend: Callable[..., tuple[Tensor, None]],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    blocks: Blocks,
    **settings: Any,
) -> tuple[Tensor, None]:
    """What `attend` gives under the whole mask, (B, T, heads, D); query: (B, heads, T, D), key and value likewise.

    Keys are gathered once: a slice a block would make its backward pass fill a whole gradient each time.
    """
    parts = zip(
        torch.split(query, list(blocks.queries), 2),
        torch.split(key.index_select(2, blocks.columns), list(blocks.keys), 2),
        torch.split(value.index_select(2, blocks.columns), list(blocks.keys), 2),
        blocks.masks,
        strict=True,
    )
    return torch.cat([attend(module, q, k, v, mask, **settings)[0] for q, k, v, mask in parts], 1), None

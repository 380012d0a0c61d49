"""Packs that begin alike as one row: the beginning is computed once for all of them.

A row is a tree of three levels: the trunk that its packs have in common, the rest of each pack's own trunk (a stem),
and each stem's branches. A position sees its ancestors and, among its own, what comes no later; positions count on
along a path. With one pack a row this is what `packing` lays out.

Shapes: B rows, T positions of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from r1ranker.llm.packing import PAD_BRANCH, TRUNK, Pack, PackedBatch, collate

COMMON = 0
"""The stem number of what all packs of a row share."""
PAD_STEM = -1


@dataclass(frozen=True, slots=True)
class TreeBatch(PackedBatch):
    """Rows of packs. stem: (B, T), COMMON, the number of the pack in its row from 1 on, or PAD_STEM.

    branch counts within a pack; targets, lengths and branch_counts follow the packs, row by row.
    """

    stem: Tensor

    def mask(self) -> Tensor:
        """See `PackedBatch.mask`. A padded query looks at the common trunk and at itself."""
        size = self.stem.shape[1]
        query, key = self.stem[:, :, None], self.stem[:, None, :]
        asked, own = self.branch[:, None, :], self.branch[:, :, None]
        sees = (key == COMMON) | ((key > COMMON) & (key == query) & ((asked == TRUNK) | (asked == own)))
        sees &= torch.ones(size, size, dtype=torch.bool, device=self.stem.device).tril()
        sees |= torch.eye(size, dtype=torch.bool, device=self.stem.device)
        return sees[:, None]


def common_length(packs: Sequence[Pack]) -> int:
    """How many first tokens the trunks share; fewer than any of them has, for each must compute its last one."""
    first, shortest = packs[0].trunk, min(len(pack.trunk) for pack in packs) - 1
    for k in range(shortest):
        if any(pack.trunk[k] != first[k] for pack in packs):
            return k
    return shortest


def tree_size(packs: Sequence[Pack]) -> int:
    """Positions that a row of these packs takes."""
    common = common_length(packs)
    return common + sum(len(p.trunk) - common + sum(len(b) - 1 for b in p.branches) for p in packs)


def grow_trees(packs: Sequence[Pack], limit: int) -> list[list[Pack]]:
    """Packs that begin alike, in order, as rows within `limit` positions; one that is longer stands alone."""
    rows: list[list[Pack]] = []
    for pack in packs:
        if rows and tree_size([*rows[-1], pack]) <= limit:
            rows[-1].append(pack)
        else:
            rows.append([pack])
    return rows


def collate_trees(rows: Sequence[Sequence[Pack]], *, device: torch.device | str = "cpu") -> TreeBatch:
    """Lay rows of packs out as tensors, padded on the right."""
    grids: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    source_row, source_column, parts = [], [], []
    for number, packs in enumerate(rows):
        common = common_length(packs)
        part = collate(packs, skip=[common] * len(packs))  # a pack a row, without what they share
        real = part.branch != PAD_BRANCH
        widths = real.sum(1)
        starts = common + widths.cumsum(0) - widths
        shared = torch.arange(common)
        grids.append(
            (
                torch.cat([torch.tensor(packs[0].trunk[:common], dtype=torch.long), part.ids[real]]),
                torch.cat([shared, part.positions[real]]),
                torch.cat([torch.full_like(shared, TRUNK), part.branch[real]]),
                torch.cat([torch.full_like(shared, COMMON), torch.arange(1, len(packs) + 1).repeat_interleave(widths)]),
            )
        )
        source_row.append(torch.full_like(part.source_row, number))
        source_column.append(starts[part.source_row] + part.source_column)
        parts.append(part)
    ids, positions, branch, stem = (
        pad_sequence(list(grid), batch_first=True, padding_value=fill).to(device)
        for grid, fill in zip(zip(*grids, strict=True), (0, 0, PAD_BRANCH, PAD_STEM), strict=True)
    )
    return TreeBatch(
        ids=ids,
        positions=positions,
        branch=branch,
        source_row=torch.cat(source_row).to(device),
        source_column=torch.cat(source_column).to(device),
        targets=torch.cat([part.targets for part in parts]).to(device),
        lengths=tuple(length for part in parts for length in part.lengths),
        branch_counts=tuple(count for part in parts for count in part.branch_counts),
        stem=stem,
    )

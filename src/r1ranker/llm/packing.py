"""One shared prefix, many branches: the layout behind scoring, sampling and training.

A pack is a trunk (the prompt) and branches (completions, or choices to score) that each see the trunk
and themselves, never one another. The trunk is computed once, whatever the number of branches. Every
position carries a branch number (0 the trunk, k > 0 a branch, -1 padding), and one rule gives the
attention mask: a query sees a key if the key comes no later and is in the trunk or in the query's own
branch. The same rule serves a whole pack at once and a pack that grows token by token over a KV cache.

Shapes: B rows (packs), T new positions, K cached positions, H hidden size, V vocabulary, N branch tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from r1ranker.errors import ConfigError
from r1ranker.llm.blocks import Blocks, cut_blocks
from r1ranker.llm.sliding import layer_masks
from r1ranker.llm.tied import Lookup

PAD_BRANCH = -1
TRUNK = 0


@dataclass(frozen=True, slots=True)
class Pack:
    """Token ids of a trunk and of its branches. A trunk has at least one token, and so has each branch.

    among: for each branch and each of its tokens, the tokens that could stand there; None: any could.
    """

    trunk: Sequence[int]
    branches: Sequence[Sequence[int]] = ()
    among: Sequence[Sequence[Sequence[int]]] | None = None


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Packs as rows of tensors.

    ids, positions, branch: (B, T).
    source_row, source_column: (N,), where the hidden state that predicts each branch token stands.
    targets: (N,), the branch tokens, pack by pack and branch by branch.
    lengths: tokens of every branch, in the same order; branch_counts: branches of every pack.
    """

    ids: Tensor
    positions: Tensor
    branch: Tensor
    source_row: Tensor
    source_column: Tensor
    targets: Tensor
    lengths: tuple[int, ...]
    branch_counts: tuple[int, ...]

    @property
    def computed_tokens(self) -> int:
        """Positions that are not padding."""
        return int((self.branch != PAD_BRANCH).sum())

    def mask(self) -> Tensor:
        """Which position may look at which: (B, 1, T, T)."""
        return attention_mask(self.branch)


def collate(
    packs: Sequence[Pack], *, skip: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> PackedBatch:
    """Lay packs out as rows, padded on the right.

    skip: how many trunk tokens of each pack are in the KV cache already (fewer than the trunk has).
    A branch's last token is predicted but never read, so it takes no position.
    """
    rows: list[tuple[list[int], list[int], list[int]]] = []
    source_row: list[int] = []
    source_column: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for b, pack in enumerate(packs):
        start = skip[b] if skip else 0
        trunk = list(pack.trunk[start:])
        if not trunk:
            raise ValueError("a pack must compute at least the last token of its trunk")
        ids, size = list(trunk), len(pack.trunk)
        positions = list(range(start, size))
        branch = [TRUNK] * len(trunk)
        for k, tokens in enumerate(pack.branches, start=1):
            at = len(ids)
            source_column += [len(trunk) - 1, *range(at, at + len(tokens) - 1)]
            source_row += [b] * len(tokens)
            targets += tokens
            lengths.append(len(tokens))
            ids += tokens[:-1]
            positions += range(size, size + len(tokens) - 1)
            branch += [k] * (len(tokens) - 1)
        rows.append((ids, positions, branch))
    width = max(len(ids) for ids, _, _ in rows)

    def grid(which: int, fill: int) -> Tensor:
        padded = [row[which] + [fill] * (width - len(row[which])) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device=device)

    def flat(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return PackedBatch(
        ids=grid(0, 0),
        positions=grid(1, 0),
        branch=grid(2, PAD_BRANCH),
        source_row=flat(source_row),
        source_column=flat(source_column),
        targets=flat(targets),
        lengths=tuple(lengths),
        branch_counts=tuple(len(pack.branches) for pack in packs),
    )


def attention_mask(branch: Tensor, cached: Tensor | None = None) -> Tensor:
    """The mask of the rule above: (B, 1, T, K + T), True where a query may look.

    branch: (B, T), of the new positions. cached: (B, K), of those in the KV cache, all of them earlier.
    A padded query looks at itself too, so that no row of the softmax is empty.
    """
    size = branch.shape[1]
    earlier = torch.ones(size, size, dtype=torch.bool, device=branch.device).tril()
    allowed = _sees(branch, branch) & earlier
    allowed |= torch.eye(size, dtype=torch.bool, device=branch.device)
    if cached is not None:
        allowed = torch.cat([_sees(branch, cached), allowed], dim=2)
    return allowed[:, None]


def _sees(query: Tensor, key: Tensor) -> Tensor:
    return (key[:, None, :] == TRUNK) | ((key[:, None, :] == query[:, :, None]) & (key[:, None, :] > TRUNK))


def causal_lm(model: nn.Module) -> Any:
    """The causal LM itself, under PEFT's wrapping where there is one."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner is not None else model


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The layers of the decoder, lowest first. Raises ConfigError for a model that calls them neither layers nor h."""
    decoder = causal_lm(model).get_decoder()
    for name in ("layers", "h"):
        if isinstance(blocks := getattr(decoder, name, None), nn.ModuleList):
            return blocks
    raise ConfigError(
        f"the layers of a {type(decoder).__name__} are not known: set model.frozen_layers and model.lora_rank to 0"
    )


def _cache_argument(backbone: Any) -> str:
    """What a model calls its cache: transformers 5.24 renamed it, one model after the other."""
    return "cache" if "cache" in signature(backbone.forward).parameters else "past_key_values"


def hidden_states(
    model: nn.Module,
    ids: Tensor,
    positions: Tensor,
    mask: Tensor,
    cache: Any | None = None,
    blocks: Blocks | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Last hidden states (B, T, H). Layers whose parameters are frozen build no graph below the first that trains.

    cache: a `kv.GrowingCache`, which knows the positions of what it holds.
    blocks: of the mask, without a cache; a model that attends as `llm.attention` says then skips what is empty. Where a
        layer looks less far back than the text is long, the whole mask is computed.
    rows: the embeddings of the ids, (B, T, H), if they were looked up before.
    """
    backbone = causal_lm(model).get_decoder()
    masks = layer_masks(backbone.config, mask, positions, None if cache is None else cache.positions)
    if masks is not mask:
        blocks = None
    output = backbone(
        **({"input_ids": ids} if rows is None else {"inputs_embeds": rows}),
        attention_mask=masks,
        position_ids=positions,
        use_cache=cache is not None,
        **{_cache_argument(backbone): cache},
        **({"blocks": blocks} if blocks is not None else {}),
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def packed_hidden(model: nn.Module, batch: PackedBatch, lookup: Lookup | None = None) -> Tensor:
    """The hidden states that predict the branch tokens: (N, H). lookup: of the batch's ids."""
    mask, rows = batch.mask(), None if lookup is None else lookup.rows
    hidden = hidden_states(model, batch.ids, batch.positions, mask, blocks=cut_blocks(mask), rows=rows)
    return hidden[batch.source_row, batch.source_column]

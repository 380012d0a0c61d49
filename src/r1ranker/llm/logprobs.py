"""Log-probs of a pack's branch tokens: the LM head runs where one is predicted, and nowhere else.

Shapes: N branch tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from r1ranker.llm.head import settle
from r1ranker.llm.linear import OneDnnLinear
from r1ranker.llm.packing import Pack, PackedBatch, causal_lm
from r1ranker.llm.tied import Lookup

HEAD_CHUNK = 1024
"""Positions whose logits exist at once: (1024, V) in fp32 is 200 MB for a vocabulary of 49,152."""


class _Picked(torch.autograd.Function):
    """Log-probs (N,) of targets (N,) under logits (N, V); its gradient is written over the log-probs of all tokens.

    The usual cross entropy takes as much memory once more for its gradient. So a graph can be gone through once;
    PyTorch refuses a second time.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logprobs = logits.log_softmax(1)
        ctx.save_for_backward(logprobs, targets)
        return logprobs.gather(1, targets[:, None]).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        gradient, targets = ctx.saved_tensors
        (grad,) = grads
        gradient.exp_().mul_(-grad[:, None])
        gradient.scatter_add_(1, targets[:, None], grad[:, None])
        return gradient, None


def _head(model: nn.Module, lookup: Lookup | None) -> Callable[[Tensor], Tensor]:
    """The LM head: hidden states (N, H) -> logits (N, V). lookup: whose table stands for the head's own weight."""
    head = causal_lm(model).get_output_embeddings()
    if lookup is None:
        forward: Callable[[Tensor], Tensor] = head
        return forward
    if isinstance(head, OneDnnLinear):
        return partial(head.multiply, weight=lookup.table)
    return partial(nn.functional.linear, weight=lookup.table, bias=head.bias)


def token_logprobs(
    model: nn.Module, hidden: Tensor, targets: Tensor, temperature: float = 1.0, lookup: Lookup | None = None
) -> Tensor:
    """Log-probs (nats, fp32) of `targets` (N,) given `hidden` (N, H). The LM head runs on these positions only.

    Where there are several chunks, the backward pass computes each one's logits again in place of keeping them all.
    lookup: where the hidden states come from one.
    """
    head = _head(model, lookup)

    def part(h: Tensor, t: Tensor) -> Tensor:
        logits = settle(model, head(h).float())
        if temperature != 1:
            logits = logits / temperature
        picked: Tensor = _Picked.apply(logits, t)  # type: ignore[no-untyped-call]
        return picked

    chunks = list(zip(torch.split(hidden, HEAD_CHUNK), torch.split(targets, HEAD_CHUNK), strict=True))
    if len(chunks) > 1 and torch.is_grad_enabled():
        return torch.cat([checkpoint(part, h, t, use_reentrant=False) for h, t in chunks])
    return torch.cat([part(h, t) for h, t in chunks]) if chunks else hidden.new_zeros(0)


def held_logprobs(
    model: nn.Module,
    hidden: Tensor,
    targets: Tensor,
    among: Sequence[Sequence[int]],
    lookup: Lookup | None = None,
) -> Tensor:
    """Log-probs (nats, fp32) of `targets` (N,) where each could only be one of `among` (N sets of tokens).

    The LM head runs for these tokens alone. A token that is the only one possible has log-prob 0.
    lookup: where the hidden states come from one.
    """
    head = causal_lm(model).get_output_embeddings()
    known = sorted({token for tokens in among for token in tokens})
    column = {token: k for k, token in enumerate(known)}
    closed = torch.ones(len(among), len(known), dtype=torch.bool)
    rows = [row for row, tokens in enumerate(among) for _ in tokens]
    closed[rows, [column[token] for tokens in among for token in tokens]] = False
    wanted = torch.tensor(known, device=hidden.device)
    bias = None if head.bias is None else head.bias[wanted]
    weight = head.weight if lookup is None else lookup.table
    logits = settle(model, nn.functional.linear(hidden, weight[wanted], bias).float())
    logits = logits.masked_fill(closed.to(hidden.device), -torch.inf)
    places = torch.tensor([column[token] for token in targets.tolist()], device=hidden.device)
    return -nn.functional.cross_entropy(logits, places, reduction="none")


def branch_sums(logprobs: Tensor, lengths: Sequence[int]) -> Tensor:
    """Summed token log-probs of each branch: (branches,)."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(logprobs.device)
    return logprobs.new_zeros(len(lengths)).index_add(0, owner, logprobs)


def branch_means(logprobs: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean token log-prob of each branch: (branches,)."""
    return branch_sums(logprobs, lengths) / torch.tensor(lengths, dtype=logprobs.dtype, device=logprobs.device)


def branch_scores(
    model: nn.Module, hidden: Tensor, batch: PackedBatch, packs: Sequence[Pack], lookup: Lookup | None = None
) -> Tensor:
    """What each branch of a batch's packs is worth, (branches,): its mean token log-prob, or where its tokens stand
    `among` others its log-probability. Raises ValueError for packs of both kinds.
    lookup: where the hidden states come from one.
    """
    if any((pack.among is None) is not (packs[0].among is None) for pack in packs):
        raise ValueError("packs with and without `among` are scored in batches of their own")
    if packs[0].among is None:
        return branch_means(token_logprobs(model, hidden, batch.targets, lookup=lookup), batch.lengths)
    among = [tokens for pack in packs for branch in pack.among or () for tokens in branch]
    return branch_sums(held_logprobs(model, hidden, batch.targets, among, lookup), batch.lengths)

"""An embedding table that is the head too gets one gradient for both.

PyTorch fills a gradient of the whole table for the few rows that were looked up, and adds it to the head's. Here the
rows are added to the head's gradient where it stands: less memory, and less time where a vocabulary is large.

Shapes: V vocabulary, H hidden size; ids of any shape.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from r1ranker.llm.linear import OneDnnLinear


class Lookup(NamedTuple):
    """What was looked up, (*ids, H), and the table for the head, (V, H): one operation, so one gradient comes back."""

    rows: Tensor
    table: Tensor


class _Lookup(torch.autograd.Function):
    """Rows of a table and the table; nothing flows back to the rows of `padding`, as in `nn.Embedding`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.set_materialize_grads(False)
        ctx.padding, ctx.shape = padding, weight.shape
        return nn.functional.embedding(ids, weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, None, None]:
        (ids,) = ctx.saved_tensors
        rows, table = grads
        if rows is None:
            return table, None, None
        if ctx.padding is not None:
            rows = rows.masked_fill((ids == ctx.padding)[..., None], 0)
        # The head's gradient is this operation's own by now; what shares memory, such as an expanded one, is copied.
        gradient = rows.new_zeros(ctx.shape) if table is None else table.contiguous()
        return gradient.index_add_(0, ids.flatten(), rows.reshape(-1, rows.shape[-1])), None, None


def look_up(model: Any, ids: Tensor) -> Lookup | None:
    """The lookup of token ids in a causal LM's table, where it is the head too and learns; None for any other."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # Classes that do more, such as scale what they look up, are left to do it.
    if type(embedding) is not nn.Embedding or type(head) not in (nn.Linear, OneDnnLinear):
        return None
    weight = embedding.weight
    if head.weight is not weight or not weight.requires_grad or not torch.is_grad_enabled():
        return None
    if embedding.max_norm is not None or embedding.scale_grad_by_freq:
        return None
    rows, table = _Lookup.apply(weight, ids, embedding.padding_idx)  # type: ignore[no-untyped-call]
    return Lookup(rows, table)

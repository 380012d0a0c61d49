"""Attention over keys that several query heads share, without a copy of the keys for each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from r1ranker.llm.blocks import Blocks, attend_in_blocks
from r1ranker.llm.packing import causal_lm

NAME = "r1ranker_sdpa"
_UNUSUAL = ("softcap", "position_bias", "cache")


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    blocks: Blocks | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """SDPA for a mask that all heads share, (B, 1, T, K): query heads that share keys become more queries of one head.

    query: (B, heads, T, D). key, value: (B, key heads, K, D). Returns (B, T, heads, D). What it is not made for goes to
    the usual SDPA, which repeats the keys: with thousands of them in a cache that copy takes longer than the rest.
    blocks: of the mask; only these are computed.
    """
    if blocks is not None:
        return attend_in_blocks(
            grouped_attention, module, query, key, value, blocks, dropout=dropout, scaling=scaling, **settings
        )
    batch, heads, size, dim = query.shape
    groups = heads // key.shape[1]
    shared = attention_mask is not None and attention_mask.shape[1] == 1 and groups > 1
    if attention_mask is None or not shared or any(settings.get(name) is not None for name in _UNUSUAL):
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
        return output
    mask = attention_mask
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
    out = nn.functional.scaled_dot_product_attention(
        query.reshape(batch, key.shape[1], groups * size, dim),
        key,
        value,
        attn_mask=mask.repeat(1, 1, groups, 1),
        dropout_p=dropout,
        scale=scaling,
    )
    return out.reshape(batch, heads, size, dim).transpose(1, 2).contiguous(), None


def share_keys(model: nn.Module) -> None:
    """Let a model that attends by SDPA do it as above."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    lm = causal_lm(model)
    config = lm.config
    # Falcon and a few older ones look at the name themselves, and would go another way.
    if config._attn_implementation == "sdpa" and getattr(lm, "_supports_attention_backend", False):
        config._attn_implementation = NAME

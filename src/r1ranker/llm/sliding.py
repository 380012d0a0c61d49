"""Sliding attention windows: layers in which a position looks only so far back, such as most of Gemma 3's.

A pack's branches stand beside one another, so that what is near goes by positions along a path and not by columns.

Shapes: B rows, T new positions, K cached positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FULL, SLIDING = "full_attention", "sliding_attention"


def other_layers(config: Any) -> list[str]:
    """The kinds of a model's layers that packs cannot stand for: recurrent ones, or those that attend in chunks."""
    return sorted(set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING})


def layer_masks(config: Any, mask: Tensor, positions: Tensor, cached: Tensor | None) -> Tensor | dict[str, Tensor]:
    """What the layers of a model may look at: `mask` where no window is shorter than the text, else by kind of layer.

    mask: (B, 1, T, K + T), True where a query may look. positions: (B, T). cached: (B, K), those in the KV cache.
    A query sees the last `sliding_window` positions, itself among them; where the configuration names no kinds, as
    Mistral's, every layer does.
    """
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if not window or (kinds and SLIDING not in kinds) or int(positions.max()) < window:
        return mask
    keys = positions if cached is None else torch.cat([cached, positions], dim=1)
    near = mask & (positions[:, :, None] - keys[:, None, :] < window)[:, None]
    return {FULL: mask, SLIDING: near} if kinds else near

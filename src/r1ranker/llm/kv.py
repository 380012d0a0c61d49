"""KV caches: one that grows in place under a batch, and one that keeps prefixes between calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from r1ranker.llm.packing import PAD_BRANCH, TRUNK


class _GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in a buffer whose room doubles, so that a token costs no copy of the rest."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._used = 0
        self.keys: Tensor
        self.values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, T, D) and return all that is held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        if self._buffers is None or self._used + new > self._buffers[0].shape[-2]:
            room = max(2 * self._used, self._used + new)
            self._buffers = (self._grow(0, key_states, room), self._grow(1, value_states, room))
        end = self._used + new
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., self._used : end, :] = states
        self._used = end
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def _grow(self, which: int, like: Tensor, room: int) -> Tensor:
        buffer = like.new_empty(*like.shape[:-2], room, like.shape[-1])
        if self._buffers is not None:
            buffer[..., : self._used, :] = self._buffers[which][..., : self._used, :]
        return buffer

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        if self._buffers is not None:
            self._buffers = (self._buffers[0][rows], self._buffers[1][rows])
            self.keys, self.values = (buffer[..., : self._used, :] for buffer in self._buffers)


class GrowingCache(Cache):
    """The KV cache of a batch of packs, and the branch number of every cached position, (B, K)."""

    def __init__(self, layers: int, rows: int, device: torch.device) -> None:
        self.growing = [_GrowingLayer() for _ in range(layers)]
        super().__init__(layers=[*self.growing])
        self.branch = torch.zeros(rows, 0, dtype=torch.long, device=device)

    def append_branch(self, branch: Tensor) -> None:
        """Record the branch numbers of positions whose keys and values were just appended."""
        self.branch = torch.cat([self.branch, branch], dim=1)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.branch = self.branch[rows]
        for layer in self.growing:
            layer.keep_rows(rows)


@dataclass(frozen=True, slots=True)
class Prefix:
    """A trunk's tokens and its keys and values: (layers, 2, heads, tokens, D)."""

    tokens: tuple[int, ...]
    states: Tensor


class PrefixStore:
    """Trunks kept from turn to turn of a ranking, by session; the longest unused go first.

    max_tokens: how many tokens' keys and values are held in all.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._held: OrderedDict[str, Prefix] = OrderedDict()
        self._tokens = 0

    def common(self, session: str, trunk: Sequence[int]) -> tuple[int, Prefix | None]:
        """How many first tokens of `trunk` are held (always fewer than it has), and where."""
        prefix = self._held.get(session) if session else None
        if prefix is None:
            return 0, None
        self._held.move_to_end(session)
        length, limit = 0, min(len(prefix.tokens), len(trunk) - 1)
        while length < limit and prefix.tokens[length] == trunk[length]:
            length += 1
        return length, prefix if length else None

    def put(self, session: str, prefix: Prefix) -> None:
        """Hold a trunk in place of the session's last one; one that is too long by itself is not held."""
        old = self._held.pop(session, None)
        self._tokens -= len(old.tokens) if old else 0
        if len(prefix.tokens) > self.max_tokens:
            return
        self._held[session] = prefix
        self._tokens += len(prefix.tokens)
        while self._tokens > self.max_tokens:
            _, dropped = self._held.popitem(last=False)
            self._tokens -= len(dropped.tokens)

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self._held.clear()
        self._tokens = 0


def preload(cache: GrowingCache, found: Sequence[tuple[int, Prefix | None]]) -> None:
    """Put held prefixes into an empty cache, padded on the left to the longest."""
    width = max(length for length, _ in found)
    if width == 0:
        return
    like = next(prefix.states for _, prefix in found if prefix is not None)
    layers, _, heads, _, dim = like.shape
    states = like.new_zeros(layers, 2, len(found), heads, width, dim)
    branch = torch.full((len(found), width), PAD_BRANCH, dtype=torch.long, device=like.device)
    for b, (length, prefix) in enumerate(found):
        if prefix is not None and length:
            states[:, :, b, :, width - length :] = prefix.states[:, :, :, :length]
            branch[b, width - length :] = TRUNK
    for layer in range(layers):
        cache.update(states[layer, 0], states[layer, 1], layer)
    cache.append_branch(branch)


def take_trunks(cache: GrowingCache) -> list[Tensor]:
    """Each row's trunk states, (layers, 2, heads, tokens, D), copied out of the cache.

    A row's trunk is one run of columns: `preload` aligns what was held to the right, and the rest follows.
    """
    trunk = cache.branch == TRUNK
    out = []
    for b in range(trunk.shape[0]):
        start, length = int(trunk[b].int().argmax()), int(trunk[b].sum())
        run = slice(start, start + length)
        states = [part[b, :, run] for layer in cache.growing for part in (layer.keys, layer.values)]
        stacked = torch.stack(states)
        out.append(stacked.view(len(cache.growing), 2, *stacked.shape[1:]))
    return out

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

SLACK = 1.25
"""How much longer a trunk may get, as a factor, before its keys and values are copied to a larger place."""


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

    def open(self, buffers: tuple[Tensor, Tensor], used: int) -> None:
        """Start with keys and values (B, heads, room, D), of which the first `used` columns are filled."""
        self.lazy_initialization(*buffers)
        self._buffers, self._used = buffers, used
        self.keys, self.values = (buffer[..., :used, :] for buffer in buffers)

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
    """The KV cache of a batch of packs, and of every cached column, (B, K), its branch number and its position."""

    def __init__(self, layers: int, rows: int, device: torch.device) -> None:
        self.growing = [_GrowingLayer() for _ in range(layers)]
        super().__init__(layers=[*self.growing])
        self.branch = torch.zeros(rows, 0, dtype=torch.long, device=device)
        self.positions = self.branch

    def record(self, branch: Tensor, positions: Tensor) -> None:
        """Record the branch numbers and positions, (B, T), of columns whose keys and values were just appended."""
        self.branch = torch.cat([self.branch, branch], dim=1)
        self.positions = torch.cat([self.positions, positions], dim=1)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.branch, self.positions = self.branch[rows], self.positions[rows]
        for layer in self.growing:
            layer.keep_rows(rows)


@dataclass(frozen=True, slots=True)
class Prefix:
    """A trunk's tokens and its keys and values: (layers, 2, heads, room, D), with room for at least the tokens."""

    tokens: tuple[int, ...]
    states: Tensor

    @property
    def room(self) -> int:
        """How many tokens' keys and values it takes the memory of."""
        return int(self.states.shape[3])


class PrefixStore:
    """Trunks kept from turn to turn of a ranking, by session.

    When there is no room for one more, those go first that were longest unused. Sessions that were asked for in
    this call of the backend or in the last one are taken to be under way and stay: were they to make room for one
    another in turn, none would be there when its turn comes.

    max_tokens: how many tokens' keys and values are held in all.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._held: OrderedDict[str, Prefix] = OrderedDict()
        self._used: dict[str, int] = {}
        self._tokens = 0
        self._call = 0

    def next_call(self) -> None:
        """A call of the backend begins."""
        self._call += 1

    def common(self, session: str, trunk: Sequence[int]) -> tuple[int, Prefix | None]:
        """How many first tokens of `trunk` are held (always fewer than it has), and where.

        A new session begins with what it shares with one of its family, as the groups of a tournament are ("id#2"): a
        query's context; else with what it shares with the last one: the instructions.
        """
        prefix = self._held.get(session)
        if prefix is not None:
            self._use(session)
        elif self._held:
            family = session.partition("#")[0]
            kin = (held for name, held in reversed(self._held.items()) if name.partition("#")[0] == family)
            prefix = next(kin, None) or next(reversed(self._held.values()))
        if prefix is None:
            return 0, None
        length = min(_common(prefix.tokens, trunk), len(trunk) - 1)
        return length, prefix if length else None

    def put(self, session: str, trunk: Sequence[int], cache: GrowingCache, row: int) -> None:
        """Hold a row's trunk in place of the session's last one, which stays where there is no room for a longer one.

        Only what is new is copied, unless the trunk has outgrown its room and needs a new one. Nothing is held of a
        model whose layers keep keys and values of several shapes, or some none.
        """
        if len({shape for layer in cache.growing for shape in _shapes(layer)}) > 1:
            self.max_tokens = 0
            return
        own = self._held.get(session)
        if own is not None and len(trunk) <= own.room:
            self._held[session] = _copy_trunk(cache, row, trunk, own.states, _common(own.tokens, trunk))
            self._use(session)
            return
        room = min(int(len(trunk) * SLACK), max(self.max_tokens, len(trunk)))
        need = room - (own.room if own else 0)
        for other in list(self._held):
            if self._tokens + need <= self.max_tokens or self._used[other] >= self._call - 1:
                break
            if other != session:
                self._tokens -= self._held.pop(other).room
                del self._used[other]
        if self._tokens + need > self.max_tokens:
            return
        key = cache.growing[0].keys
        states = key.new_empty(len(cache.growing), 2, key.shape[1], room, key.shape[3])
        self._held[session] = _copy_trunk(cache, row, trunk, states, 0)
        self._tokens += need
        self._use(session)

    def _use(self, session: str) -> None:
        self._held.move_to_end(session)
        self._used[session] = self._call

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self._held.clear()
        self._used.clear()
        self._tokens = 0


def _shapes(layer: Any) -> tuple[Any, Any]:
    """Of a layer's keys and values; None for those of a layer that reads another one's."""
    both = (getattr(layer, "keys", None), getattr(layer, "values", None))
    return tuple(None if states is None else tuple(states.shape) for states in both)  # type: ignore[return-value]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two trunks share."""
    length, limit = 0, min(len(one), len(other))
    while length < limit and one[length] == other[length]:
        length += 1
    return length


def preload(cache: GrowingCache, found: Sequence[tuple[int, Prefix | None]], room: int) -> None:
    """Put held prefixes into an empty cache, padded on the left to the longest, with room for so many columns more."""
    width = max(length for length, _ in found)
    if width == 0:
        return
    like = next(prefix.states for _, prefix in found if prefix is not None)
    shape = (len(found), like.shape[2], width + room, like.shape[4])
    branch = torch.full((len(found), width), PAD_BRANCH, dtype=torch.long, device=like.device)
    for number, layer in enumerate(cache.growing):
        buffers = (like.new_empty(shape), like.new_empty(shape))
        for b, (length, prefix) in enumerate(found):
            for which, buffer in enumerate(buffers):
                # What is masked out is multiplied by zero all the same, and must be a number.
                buffer[b, :, : width - length] = 0
                if prefix is not None:
                    buffer[b, :, width - length : width] = prefix.states[number, which, :, :length]
        layer.open(buffers, width)
    positions = torch.zeros_like(branch)
    for b, (length, _) in enumerate(found):
        branch[b, width - length :] = TRUNK
        positions[b, width - length :] = torch.arange(length)
    cache.record(branch, positions)


def _copy_trunk(cache: GrowingCache, row: int, trunk: Sequence[int], states: Tensor, start: int) -> Prefix:
    """A row's trunk, its columns from `start` on copied out of the cache into `states`.

    A trunk is one run of columns: `preload` aligns what was held to the right, and the rest follows.
    """
    first = int((cache.branch[row] == TRUNK).int().argmax())
    run = slice(first + start, first + len(trunk))
    for number, layer in enumerate(cache.growing):
        states[number, 0, :, start : len(trunk)] = layer.keys[row, :, run]
        states[number, 1, :, start : len(trunk)] = layer.values[row, :, run]
    return Prefix(tuple(trunk), states)

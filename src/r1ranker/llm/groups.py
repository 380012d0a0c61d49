"""Requests with one prompt as one group, and groups as batches that waste little on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from r1ranker.llm.constrained import OPENING, Grammar
from r1ranker.llm.packing import Pack
from r1ranker.types import Request, Sampling

UNLIKE = 32
"""Rows of one batch may differ in their new tokens by a factor of two and so many more."""
T = TypeVar("T")


@dataclass(slots=True)
class Group:
    """Requests with one prompt, which is computed once.

    members: their places among all requests. choices: token ids of what is to be scored.
    among: where only some texts are possible, the tokens that could stand in the place of each token of the choices.
    grammar: what holds the replies to some answers, or None.
    computed: how many of the prompt's tokens were not there and had to be computed.
    """

    trunk: tuple[int, ...]
    request: Request
    members: list[int]
    choices: list[tuple[int, ...]]
    among: list[tuple[tuple[int, ...], ...]] | None
    grammar: Grammar | None
    computed: int = 0

    @property
    def begun(self) -> bool:
        """Whether the answer begins at once: its opening tag stands in the prompt."""
        return self.request.prompt.prefill.endswith(OPENING)

    @property
    def cached(self) -> int:
        """How many of the prompt's tokens were reused."""
        return max(0, len(self.trunk) - self.computed)

    @property
    def kind(self) -> str:
        """Groups of one kind can share a batch: `scored`, `held` (scored among some texts) or `written`."""
        if not self.choices:
            return "written"
        return "scored" if self.among is None else "held"

    @property
    def texts(self) -> tuple[str, ...]:
        """What the choices say."""
        return self.request.choices or self.request.answers

    def pack(self) -> Pack:
        """The prompt with the choices as its branches."""
        return Pack(self.trunk, self.choices, self.among)

    def room(self, sampling: Sampling) -> int:
        """How many tokens a reply takes at most."""
        if self.choices:
            return max(map(len, self.choices))
        return self.grammar.longest if self.grammar and self.begun else sampling.max_tokens

    def size(self, sampling: Sampling) -> int:
        """How many positions the prompt and all replies take at most."""
        replies = sum(map(len, self.choices)) or len(self.members) * self.room(sampling)
        return len(self.trunk) + replies


def alike(new: int, least: int) -> bool:
    """Whether a row with `new` tokens to compute may stand beside one with `least`."""
    return new <= 2 * least + UNLIKE


def batches(items: Sequence[T], new: Sequence[int], sizes: Sequence[int], limit: int) -> list[list[T]]:
    """Items with a like number of new tokens together, each batch within `limit` positions once it is padded.

    new: tokens that each item has to compute at once. sizes: positions that it takes in the end.
    """
    out: list[list[T]] = []
    least = widest = 0
    for k in sorted(range(len(items)), key=lambda k: (new[k], sizes[k], k)):
        widest = max(widest, sizes[k])
        if not out or not alike(new[k], least) or widest * (len(out[-1]) + 1) > limit:
            out.append([])
            least, widest = new[k], sizes[k]
        out[-1].append(items[k])
    return out

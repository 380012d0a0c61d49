"""Writes completions token by token: a row a prompt, a branch a completion, over one growing cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from r1ranker.llm.constrained import Guide
from r1ranker.llm.head import settle
from r1ranker.llm.kv import GrowingCache
from r1ranker.llm.packing import PAD_BRANCH, attention_mask, causal_lm, hidden_states
from r1ranker.types import Sampling

STOP_WINDOW = 16
"""Last tokens that are decoded to look for the stop text; it is shorter than that in any vocabulary."""


@dataclass(slots=True)
class Branch:
    """A completion that is being sampled. `row` moves as finished rows leave; `group` stays.

    state: the hidden state (H,) that the next token is drawn from.
    computed: how many of the tokens the model has read. drawn: how many there were when one was last drawn.
    """

    member: int
    row: int
    number: int
    trunk: int
    stop: str
    state: Tensor
    guide: Guide | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish: str | None = None
    computed: int = 0
    drawn: int = 0
    group: int = field(init=False)

    def __post_init__(self) -> None:
        self.group = self.row


def draw(
    model: nn.Module, hidden: Tensor, guides: Sequence[Guide | None], sampling: Sampling, generator: torch.Generator
) -> tuple[list[int], list[float]]:
    """The next token of each row of (N, H), and its log-prob under the policy at that temperature.

    A guide takes the tokens that may not come next out of the distribution, and the rest is renormalised: that is
    the policy which is sampled, so its log-probs are what is told.
    """
    logits = settle(model, causal_lm(model).get_output_embeddings()(hidden).float()).cpu()
    for row, guide in zip(logits, guides, strict=True):
        if guide is not None:
            _mask(row, guide)
    logprobs = (logits / sampling.temperature if sampling.temperature > 0 else logits).log_softmax(1)
    if sampling.temperature > 0:
        # By the inverse of the cumulative distribution: one random number a row, where multinomial draws V.
        cumulative = logprobs.exp().cumsum(1, dtype=torch.float64)
        at = torch.rand(len(logprobs), 1, generator=generator, dtype=torch.float64) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, at, right=True).clamp(max=logprobs.shape[1] - 1)
    else:
        tokens = logprobs.argmax(1, keepdim=True)
    return tokens.squeeze(1).tolist(), logprobs.gather(1, tokens).squeeze(1).tolist()


def _mask(logits: Tensor, guide: Guide) -> None:
    """Set to -inf, in place, the logits (V,) of tokens that may not come next."""
    allowed = guide.allowed()
    if allowed is None:
        logits[guide.forbidden()] = -torch.inf
    else:
        kept = logits[allowed]
        logits.fill_(-torch.inf)
        logits[allowed] = kept


class Writer:
    """Writes the branches of a batch until each has ended.

    stops: tokens that end a turn.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, stops: frozenset[int]) -> None:
        self.model, self.tokenizer, self.stops = model, tokenizer, stops

    def write(
        self, cache: GrowingCache, branches: Sequence[Branch], sampling: Sampling, generator: torch.Generator
    ) -> None:
        """Fill the branches in. `cache` holds their trunks, a row a group; finished rows leave it."""
        for branch in branches:
            self._force(branch)
        while True:
            branches = [b for b in branches if b.finish is None]
            if not branches:
                return
            self._step(cache, branches)
            source = torch.stack([b.state for b in branches])
            tokens, logprobs = draw(self.model, source, [b.guide for b in branches], sampling, generator)
            for branch, token, logprob in zip(branches, tokens, logprobs, strict=True):
                self._append(branch, token, logprob, sampling.max_tokens)

    def _step(self, cache: GrowingCache, branches: Sequence[Branch]) -> None:
        """Let the model read what it has not read yet, and take each branch's state after that."""
        self._leave(cache, branches)
        by_row: list[list[tuple[Branch, int]]] = [[] for _ in range(cache.branch.shape[0])]
        last: list[tuple[Branch, int]] = []
        for branch in branches:
            row = by_row[branch.row]
            row += [(branch, k) for k in range(branch.computed, len(branch.tokens))]
            if branch.computed < len(branch.tokens):
                last.append((branch, len(row) - 1))
            branch.computed = len(branch.tokens)
        if not last:
            return
        width = max(map(len, by_row))
        shape = (len(by_row), width)
        ids, positions, numbers = (torch.full(shape, fill, dtype=torch.long) for fill in (0, 0, PAD_BRANCH))
        for r, row in enumerate(by_row):
            for c, (branch, k) in enumerate(row):
                ids[r, c] = branch.tokens[k]
                positions[r, c] = branch.trunk + k
                numbers[r, c] = branch.number
        device = cache.branch.device
        ids, positions, numbers = (t.to(device) for t in (ids, positions, numbers))
        hidden = hidden_states(self.model, ids, positions, attention_mask(numbers, cache.branch), cache)
        cache.record(numbers, positions)
        states = hidden[[branch.row for branch, _ in last], [column for _, column in last]]
        for (branch, _), state in zip(last, states, strict=True):
            branch.state = state

    def _leave(self, cache: GrowingCache, branches: Sequence[Branch]) -> None:
        """Drop the rows in which no branch is open."""
        open_rows = sorted({b.row for b in branches})
        if len(open_rows) < cache.branch.shape[0]:
            cache.keep_rows(torch.tensor(open_rows, device=cache.branch.device))
            place = {row: k for k, row in enumerate(open_rows)}
            for branch in branches:
                branch.row = place[branch.row]

    def _append(self, branch: Branch, token: int, logprob: float, max_tokens: int) -> None:
        branch.tokens.append(token)
        branch.logprobs.append(logprob)
        branch.drawn = len(branch.tokens)
        if branch.guide is not None:
            branch.guide.push(token, self._decode(branch.tokens[-STOP_WINDOW:]))
            self._force(branch)
        elif token in self.stops:
            self._end(branch, "stop", branch.tokens[:-1])
        elif branch.stop and branch.stop in self._decode(branch.tokens[-STOP_WINDOW:]):
            self._end(branch, "stop", branch.tokens)
        elif len(branch.tokens) >= max_tokens:
            self._end(branch, "length", branch.tokens)

    def _force(self, branch: Branch) -> None:
        """Write the tokens that come without a choice: their log-prob is 0."""
        if branch.guide is not None:
            forced = branch.guide.forced(len(branch.tokens))
            branch.tokens += forced
            branch.logprobs += [0.0] * len(forced)
            if branch.guide.done:
                self._end(branch, "stop", branch.tokens)

    def _end(self, branch: Branch, finish: str, tokens: Sequence[int]) -> None:
        branch.text, branch.finish = self._decode(tokens), finish

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

"""The transformers backend: batched on CPU or CUDA, every shared prefix computed once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from r1ranker.errors import InputError
from r1ranker.llm.chat import ChatEncoder
from r1ranker.llm.kv import GrowingCache, Prefix, PrefixStore, preload, take_trunks
from r1ranker.llm.packing import (
    PAD_BRANCH,
    Pack,
    attention_mask,
    branch_means,
    causal_lm,
    collate,
    hidden_states,
    token_logprobs,
)
from r1ranker.types import Completion, Request, Sampling

STOP_WINDOW = 16
"""Last tokens that are decoded to look for the stop text; it is shorter than that in any vocabulary."""


class TransformersLLM:
    """Completes and scores with a causal LM.

    Requests with the same prompt are branches of one pack: their prompt is computed once and its keys
    and values are held once. Turns of a session reuse the prefix they have in common with the last one.

    batch_tokens: about how many positions (new and cached) are computed at once; bounds the memory.
    prefix_tokens: how many tokens' keys and values are kept between calls.
    autocast: compute in bfloat16 over weights of another type (a model that is being trained).
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        batch_tokens: int = 16384,
        prefix_tokens: int = 32768,
        autocast: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.chat = ChatEncoder(tokenizer)
        self.parameters: int | None = sum(p.numel() for p in model.parameters())
        self.batch_tokens = batch_tokens
        self.prefixes = PrefixStore(prefix_tokens)
        self.autocast = autocast
        config = causal_lm(model).config
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self._layers = int(config.num_hidden_layers)
        self._window = _sliding_window(config)
        self._stops = _stop_ids(model, tokenizer)
        self.seconds = 0.0

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", dtype: str = "auto", **options: Any) -> TransformersLLM:
        """Load safetensors from a folder (or a LoRA adapter beside its base); see `llm.load`."""
        from r1ranker.llm.load import load_model

        model, tokenizer = load_model(path, device=device, dtype=dtype)
        return cls(model, tokenizer, name=Path(path).name, **options)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def weights_changed(self) -> None:
        """Drop every kept prefix: it was computed with other weights."""
        self.prefixes.clear()

    def count_tokens(self, text: str) -> int:
        """Tokens of a user's text."""
        return len(self.chat.encode_text(text))

    def choice_tokens(self, request: Request) -> list[tuple[int, ...]]:
        """Each choice's token ids and the first one of the stop text; the rest of that follows by itself."""
        end = self.chat.encode_text(request.stop)[:1]
        return [self.chat.encode_text(choice) + end for choice in request.choices]

    @torch.no_grad()
    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `LLM.complete`. Raises InputError for a prompt that is longer than the model's context."""
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(sampling.seed)
        groups: dict[tuple[tuple[int, ...], tuple[str, ...], str], _Group] = {}
        for k, request in enumerate(requests):
            trunk = tuple(self.chat.encode(request.prompt))
            # Scored and sampled requests never share a pack: the one kind has all its branches at once.
            key = (trunk, request.choices, request.stop)
            group = groups.setdefault(key, _Group(trunk, request, []))
            group.members.append(k)
        self._check_lengths(groups.values(), sampling)
        was_training = self.model.training
        self.model.eval()
        out: dict[int, Completion] = {}
        with self._compute():
            for batch in self._batches([g for g in groups.values() if g.request.choices], sampling):
                out.update(self._score(batch, sampling, generator))
            for batch in self._batches([g for g in groups.values() if not g.request.choices], sampling):
                out.update(self._sample(batch, sampling, generator))
        self.model.train(was_training)
        self.seconds += time.perf_counter() - begin
        return [out[k] for k in range(len(requests))]

    def _compute(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def _check_lengths(self, groups: Any, sampling: Sampling) -> None:
        limit = self._window or self.context_tokens
        for group in groups:
            longest = max(map(len, self.choice_tokens(group.request)), default=0)
            need = len(group.trunk) + (longest or sampling.max_tokens)
            if limit and need > limit:
                raise InputError(
                    f"the prompt of '{group.request.session or 'a request'}' and its answer take {need} tokens; "
                    f"{self.name} reads {limit}: rank fewer or shorter candidates, or allow fewer new tokens"
                )

    def _batches(self, groups: list[_Group], sampling: Sampling) -> list[list[_Group]]:
        """Groups of like length together, each batch within `batch_tokens` positions."""
        sized = sorted(((self._size(g, sampling), k, g) for k, g in enumerate(groups)), key=lambda s: s[:2])
        batches: list[list[_Group]] = []
        for size, _, group in sized:
            if not batches or size * (len(batches[-1]) + 1) > self.batch_tokens:
                batches.append([])
            batches[-1].append(group)
        return batches

    def _size(self, group: _Group, sampling: Sampling) -> int:
        if group.request.choices:
            return len(group.trunk) + sum(map(len, self.choice_tokens(group.request)))
        return len(group.trunk) + len(group.members) * sampling.max_tokens

    def _start(self, packs: Sequence[Pack], groups: Sequence[_Group]) -> tuple[GrowingCache, Any, Tensor]:
        """Compute the packs over what is kept of their trunks; returns cache, batch and hidden states."""
        found = [self.prefixes.common(g.request.session, g.trunk) for g in groups]
        cache = GrowingCache(self._layers, len(packs), self.device)
        preload(cache, found)
        batch = collate(packs, skip=[length for length, _ in found], device=self.device)
        mask = attention_mask(batch.branch, cache.branch)
        hidden = hidden_states(self.model, batch.ids, batch.positions, mask, cache)
        cache.append_branch(batch.branch)
        for group, (length, _) in zip(groups, found, strict=True):
            group.cached = length
        keep = [k for k, g in enumerate(groups) if g.request.session]
        if keep and self.prefixes.max_tokens:
            states = take_trunks(cache)
            for k in keep:
                self.prefixes.put(groups[k].request.session, Prefix(groups[k].trunk, states[k]))
        return cache, batch, hidden

    def _score(self, groups: list[_Group], sampling: Sampling, generator: torch.Generator) -> dict[int, Completion]:
        """One packed pass: a branch a choice."""
        packs = [Pack(g.trunk, self.choice_tokens(g.request)) for g in groups]
        _, batch, hidden = self._start(packs, groups)
        picked = hidden[batch.source_row, batch.source_column]
        logprobs = token_logprobs(self.model, picked, batch.targets)
        means = branch_means(logprobs, batch.lengths).cpu()
        out, at = {}, 0
        for group, pack, count in zip(groups, packs, batch.branch_counts, strict=True):
            scores = means[at : at + count]
            scored = sum(len(branch) for branch in pack.branches)
            for n, member in enumerate(group.members):
                chosen = _choose(scores * sampling.sharpness, sampling.temperature, generator)
                out[member] = Completion(
                    text=group.request.choices[chosen] + group.request.stop,
                    token_ids=tuple(pack.branches[chosen]),
                    choice_logprobs=tuple(scores.tolist()),
                    prompt_tokens=len(group.trunk),
                    completion_tokens=scored,
                    cached_tokens=group.cached if n == 0 else len(group.trunk),
                    finish="choice",
                )
            at += count
        return out

    def _sample(self, groups: list[_Group], sampling: Sampling, generator: torch.Generator) -> dict[int, Completion]:
        """Token by token: a row a prompt, a branch a completion; finished rows leave the batch."""
        cache, batch, hidden = self._start([Pack(g.trunk) for g in groups], groups)
        last = (batch.branch != PAD_BRANCH).sum(1) - 1
        rows = torch.arange(len(groups), device=self.device)
        branches = [
            _Branch(member, row, number, len(group.trunk), group.request.stop)
            for row, group in enumerate(groups)
            for number, member in enumerate(group.members, start=1)
        ]
        everyone = list(branches)
        owner = torch.tensor([b.row for b in branches], device=self.device)
        source = hidden[rows, last][owner]
        while True:
            tokens, logprobs = self._draw(source, sampling, generator)
            for branch, token, logprob in zip(branches, tokens, logprobs, strict=True):
                self._append(branch, token, logprob, sampling.max_tokens)
            branches = [b for b in branches if b.finish is None]
            if not branches:
                break
            branches, source = self._step(cache, branches)
        out = {}
        for branch in everyone:
            group = groups[branch.group]
            first = branch.number == 1
            out[branch.member] = Completion(
                text=branch.text,
                token_ids=tuple(branch.tokens),
                logprobs=tuple(branch.logprobs),
                prompt_tokens=len(group.trunk),
                completion_tokens=len(branch.tokens),
                cached_tokens=group.cached if first else len(group.trunk),
                finish="stop" if branch.finish == "stop" else "length",
            )
        return out

    def _step(self, cache: GrowingCache, branches: list[_Branch]) -> tuple[list[_Branch], Tensor]:
        """Compute each open branch's last token; returns the branches in the order of the states (N, H)."""
        open_rows = sorted({b.row for b in branches})
        if len(open_rows) < cache.branch.shape[0]:
            cache.keep_rows(torch.tensor(open_rows, device=self.device))
            place = {row: k for k, row in enumerate(open_rows)}
            for branch in branches:
                branch.row = place[branch.row]
        by_row: list[list[_Branch]] = [[] for _ in open_rows]
        for branch in branches:
            by_row[branch.row].append(branch)
        width = max(len(row) for row in by_row)
        ids, positions, numbers = (
            torch.full((len(by_row), width), fill, dtype=torch.long) for fill in (0, 0, PAD_BRANCH)
        )
        for r, row in enumerate(by_row):
            for c, branch in enumerate(row):
                ids[r, c] = branch.tokens[-1]
                positions[r, c] = branch.trunk + len(branch.tokens) - 1
                numbers[r, c] = branch.number
        ids, positions, numbers = (t.to(self.device) for t in (ids, positions, numbers))
        hidden = hidden_states(self.model, ids, positions, attention_mask(numbers, cache.branch), cache)
        cache.append_branch(numbers)
        ordered = [branch for row in by_row for branch in row]
        return ordered, hidden[numbers != PAD_BRANCH]

    def _draw(self, hidden: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[list[int], list[float]]:
        """The next token of each row of (N, H), and its log-prob under the policy at that temperature."""
        logits = causal_lm(self.model).get_output_embeddings()(hidden).float().cpu()
        logprobs = (logits / sampling.temperature if sampling.temperature > 0 else logits).log_softmax(1)
        if sampling.temperature > 0:
            # By the inverse of the cumulative distribution: one random number a row, where multinomial draws V.
            cumulative = logprobs.exp().cumsum(1, dtype=torch.float64)
            at = torch.rand(len(logprobs), 1, generator=generator, dtype=torch.float64) * cumulative[:, -1:]
            tokens = torch.searchsorted(cumulative, at, right=True).clamp(max=logprobs.shape[1] - 1)
        else:
            tokens = logprobs.argmax(1, keepdim=True)
        return tokens.squeeze(1).tolist(), logprobs.gather(1, tokens).squeeze(1).tolist()

    def _append(self, branch: _Branch, token: int, logprob: float, max_tokens: int) -> None:
        branch.tokens.append(token)
        branch.logprobs.append(logprob)
        if token in self._stops:
            branch.text = self._decode(branch.tokens[:-1])
            branch.finish = "stop"
            return
        tail = self._decode(branch.tokens[-STOP_WINDOW:])
        if branch.stop and branch.stop in tail:
            branch.text = self._decode(branch.tokens)
            branch.finish = "stop"
        elif len(branch.tokens) >= max_tokens:
            branch.text = self._decode(branch.tokens)
            branch.finish = "length"

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


@dataclass(slots=True)
class _Group:
    """Requests with one prompt."""

    trunk: tuple[int, ...]
    request: Request
    members: list[int]
    cached: int = 0


@dataclass(slots=True)
class _Branch:
    """A completion that is being sampled. `row` moves as finished rows leave; `group` stays."""

    member: int
    row: int
    number: int
    trunk: int
    stop: str
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    finish: str | None = None
    group: int = field(init=False)

    def __post_init__(self) -> None:
        self.group = self.row


def _choose(scores: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(scores.argmax())
    return int(torch.multinomial((scores / temperature).softmax(0), 1, generator=generator))


def _sliding_window(config: Any) -> int | None:
    """The shortest attention window of any layer: the mask rule knows none, so prompts must fit in it."""
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    return int(window) if window and "sliding_attention" in kinds else None


def _stop_ids(model: nn.Module, tokenizer: Any) -> frozenset[int]:
    generation = getattr(causal_lm(model), "generation_config", None)
    eos = getattr(generation, "eos_token_id", None)
    ids = list(eos) if isinstance(eos, list | tuple) else [eos]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)

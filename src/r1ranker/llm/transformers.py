"""The transformers backend: batched on CPU or CUDA, every shared prefix computed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from r1ranker.errors import InputError
from r1ranker.llm.attention import share_keys
from r1ranker.llm.chat import ChatEncoder
from r1ranker.llm.constrained import LINE_END, OPENING, THOUGHT_END, Grammar, Guide, Spills, held_choices
from r1ranker.llm.groups import Group, alike, batches
from r1ranker.llm.kv import GrowingCache, PrefixStore, preload
from r1ranker.llm.linear import forget_packed, use_onednn, weights_stay
from r1ranker.llm.logprobs import branch_scores
from r1ranker.llm.norms import fuse_norms
from r1ranker.llm.packing import PAD_BRANCH, Pack, attention_mask, causal_lm, collate, hidden_states
from r1ranker.llm.sampling import Branch, Writer
from r1ranker.types import Completion, Request, Sampling

SPARE = 32
"""Columns of a cache that are kept free for the first tokens of the replies."""


class TransformersLLM:
    """Completes and scores with a causal LM.

    Requests with the same prompt are branches of one pack: their prompt is computed once and its keys
    and values are held once. Turns of a session reuse the prefix they have in common with the last one.

    batch_tokens: about how many positions (new and cached) are computed at once; bounds the memory.
    prefix_tokens: how many tokens' keys and values are kept between calls; enough for all rankings under way, or
        the prompts of some are computed anew in every turn.
    autocast: compute in bfloat16 over weights of another type (a model that is being trained).
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        batch_tokens: int = 16384,
        prefix_tokens: int = 65536,
        autocast: bool = False,
    ) -> None:
        self._lock = threading.RLock()  # two threads would write into the same kept prefixes
        share_keys(model)
        use_onednn(model)
        fuse_norms(model)
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.chat = ChatEncoder(tokenizer)
        own = (p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
        self.parameters: int | None = sum(own)  # an adapter makes no larger model: it is merged into it
        self.batch_tokens = batch_tokens
        self.autocast = autocast
        config = causal_lm(model).get_decoder().config  # a model that sees, too, keeps its language model's apart
        self._turns_at = switch_of_rotations(config)
        # Keys that were rotated in a long prompt are of no use in a short one.
        self.prefixes = PrefixStore(0 if self._turns_at else prefix_tokens)
        self.context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self._layers = int(config.num_hidden_layers)
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
        """Drop every kept prefix, and what was laid out of the weights: they are others now."""
        with self._lock:
            self.prefixes.clear()
            forget_packed(self.model)

    def count_tokens(self, text: str) -> int:
        """Tokens of a user's text."""
        return len(self.chat.encode_text(text))

    def choice_pack(self, request: Request) -> Pack:
        """The prompt, and each choice's (or scored answer's) token ids as a branch.

        Each has the first token of the stop text at its end (the rest of that follows by itself); of an answer only
        what tells it from the others is there.
        """
        trunk, end = self.chat.encode(request.prompt, request.written), self.chat.encode_wording(request.stop)[:1]
        if not request.answers:
            return Pack(trunk, [self.chat.encode_text(choice) + end for choice in request.choices])
        held = held_choices(self._whole_answers(request))
        return Pack(trunk, [choice.tokens for choice in held], [choice.among for choice in held])

    def _end(self, request: Request) -> tuple[int, ...]:
        return self.chat.encode_wording(request.stop) or tuple(sorted(self._stops))[:1]

    def _whole_answers(self, request: Request) -> list[tuple[int, ...]]:
        """Each answer's token ids with those of its end, so that none begins another."""
        end = self.chat.encode_wording(LINE_END) if request.listed else self._end(request)
        return [self.chat.encode_text(answer) + end for answer in request.answers]

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `LLM.complete`; threads wait for each other. Raises InputError for a prompt longer than the context."""
        with self._lock:
            return self._complete(requests, sampling)

    @torch.inference_mode()
    def _complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(sampling.seed)
        groups = self._groups(requests)
        self._check_lengths(groups, sampling)
        scored, held, written = ([g for g in groups if g.kind == kind] for kind in ("scored", "held", "written"))
        was_training = self.model.training
        self.model.eval()
        self.prefixes.next_call()
        out: dict[int, Completion] = {}
        with self._compute(), weights_stay():
            for batch in [*self._batches(scored, sampling), *self._batches(held, sampling)]:
                out.update(self._score(batch, sampling, generator))
            self._catch_up(written)
            for batch in self._batches(written, sampling):
                out.update(self._write(batch, sampling, generator))
        self.model.train(was_training)
        self.seconds += time.perf_counter() - begin
        return [out[k] for k in range(len(requests))]

    def _groups(self, requests: Sequence[Request]) -> list[Group]:
        """Requests with the same prompt and the same kind of reply together."""
        groups: dict[Request, Group] = {}
        for k, request in enumerate(requests):
            # Scored and sampled requests never share a pack: the one kind has all its branches at once.
            key = replace(request, session="")
            if key not in groups:
                groups[key] = self._group(request)
            groups[key].members.append(k)
        return list(groups.values())

    def _group(self, request: Request) -> Group:
        if not request.choices and not request.scored:
            trunk = tuple(self.chat.encode(request.prompt, request.written))
            return Group(trunk, request, [], [], None, self._grammar(request))
        if request.answers and not request.prompt.prefill.endswith(OPENING):
            raise InputError("what is scored is read after <answer>: leave thinking out, or do not ask for scores")
        pack = self.choice_pack(request)
        among = None if pack.among is None else [tuple(map(tuple, branch)) for branch in pack.among]
        return Group(tuple(pack.trunk), request, [], [tuple(branch) for branch in pack.branches], among, None)

    def _compute(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def _check_lengths(self, groups: Iterable[Group], sampling: Sampling) -> None:
        limit = self.context_tokens
        for group in groups:
            name = f"the prompt of '{group.request.session or 'a request'}'"
            need = len(group.trunk) + group.room(sampling)
            if limit and need > limit:
                raise InputError(
                    f"{name} and its answer take {need} tokens; "
                    f"{self.name} reads {limit}: rank fewer or shorter candidates, or allow fewer new tokens"
                )
            if group.grammar and not group.begun and group.grammar.reserve > sampling.max_tokens:
                raise InputError(
                    f"{name}: its longest answer takes {group.grammar.reserve} tokens with the tags, and max_tokens = "
                    f"{sampling.max_tokens} allows fewer: allow that many, or take shorter labels"
                )

    def _batches(self, groups: Sequence[Group], sampling: Sampling) -> list[list[Group]]:
        sides: list[list[Group]] = [[], []]
        for group in groups:
            longest = len(group.trunk) + group.room(sampling)
            sides[self._turns_at is not None and longest > self._turns_at].append(group)
        return [
            batch
            for side in filter(None, sides)
            for batch in batches(
                side, [self._new(group) for group in side], [g.size(sampling) for g in side], self.batch_tokens
            )
        ]

    def _new(self, group: Group) -> int:
        """How many of a prompt's tokens are not held."""
        return len(group.trunk) - self.prefixes.common(group.request.session, group.trunk)[0]

    def _catch_up(self, groups: Sequence[Group]) -> None:
        """Compute the prompts that have much more to read than others, so that all can then write in one batch."""
        new = [self._new(group) for group in groups]
        late = [k for k, group in enumerate(groups) if group.request.session and not alike(new[k], min(new))]
        sizes = [len(groups[k].trunk) for k in late]
        for batch in batches([groups[k] for k in late], [new[k] for k in late], sizes, self.batch_tokens):
            self._start([Pack(group.trunk[:-1]) for group in batch], batch)

    def _start(self, packs: Sequence[Pack], groups: Sequence[Group]) -> tuple[GrowingCache, Any, Tensor]:
        """Compute the packs over what is kept of their trunks; returns cache, batch and hidden states."""
        found = [self.prefixes.common(g.request.session, p.trunk) for g, p in zip(groups, packs, strict=True)]
        batch = collate(packs, skip=[length for length, _ in found], device=self.device)
        cache = GrowingCache(self._layers, len(packs), self.device)
        preload(cache, found, batch.ids.shape[1] + SPARE)
        mask = attention_mask(batch.branch, cache.branch)
        hidden = hidden_states(self.model, batch.ids, batch.positions, mask, cache)
        cache.record(batch.branch, batch.positions)
        for group, pack, (length, _) in zip(groups, packs, found, strict=True):
            group.computed += len(pack.trunk) - length
        if self.prefixes.max_tokens:
            for row, (group, pack) in enumerate(zip(groups, packs, strict=True)):
                if group.request.session:
                    self.prefixes.put(group.request.session, pack.trunk, cache, row)
        return cache, batch, hidden

    def _score(self, groups: list[Group], sampling: Sampling, generator: torch.Generator) -> dict[int, Completion]:
        """One packed pass: a branch a choice."""
        packs = [g.pack() for g in groups]
        _, batch, hidden = self._start(packs, groups)
        picked = hidden[batch.source_row, batch.source_column]
        worth = branch_scores(self.model, picked, batch, packs).cpu()
        out, at = {}, 0
        for group, pack, count in zip(groups, packs, batch.branch_counts, strict=True):
            scores = worth[at : at + count]
            sharpness = 1.0 if group.among else sampling.sharpness  # those are probabilities already
            scored = sum(len(branch) for branch in pack.branches)
            for n, member in enumerate(group.members):
                chosen = _choose(scores * sharpness, sampling.temperature, generator)
                out[member] = Completion(
                    text=group.texts[chosen] + group.request.stop,
                    token_ids=tuple(pack.branches[chosen]),
                    choice_logprobs=tuple(scores.tolist()),
                    prompt_tokens=len(group.trunk),
                    completion_tokens=scored,
                    cached_tokens=group.cached if n == 0 else len(group.trunk),
                    finish="choice",
                )
            at += count
        return out

    def _write(self, groups: list[Group], sampling: Sampling, generator: torch.Generator) -> dict[int, Completion]:
        """Token by token: a row a prompt, a branch a completion."""
        cache, batch, hidden = self._start([Pack(g.trunk) for g in groups], groups)
        last = (batch.branch != PAD_BRANCH).sum(1) - 1
        branches = [
            Branch(
                member,
                row,
                number,
                len(group.trunk),
                group.request.stop,
                hidden[row, last[row]],
                Guide(group.grammar, sampling.max_tokens, begun=group.begun) if group.grammar else None,
            )
            for row, group in enumerate(groups)
            for number, member in enumerate(group.members, start=1)
        ]
        Writer(self.model, self.tokenizer, self._stops).write(cache, branches, sampling, generator)
        return {
            branch.member: Completion(
                text=branch.text,
                token_ids=tuple(branch.tokens),
                logprobs=tuple(branch.logprobs),
                prompt_tokens=branch.trunk,
                completion_tokens=max(branch.drawn, branch.computed),
                cached_tokens=groups[branch.group].cached if branch.number == 1 else branch.trunk,
                finish="stop" if branch.finish == "stop" else "length",
            )
            for branch in branches
        }

    def _grammar(self, request: Request) -> Grammar | None:
        """What holds a reply to the request's answers, if it names any."""
        if not request.answers:
            return None
        encode = self.chat.encode_wording
        return Grammar(
            tuple(self._whole_answers(request)),
            encode(THOUGHT_END + OPENING),
            encode(OPENING),
            tuple(self._stops),
            self._spills,
            listed=request.listed,
            end=self._end(request),
        )

    @cached_property
    def _spills(self) -> Spills:
        return Spills.of(self.tokenizer)


def _choose(scores: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(scores.argmax())
    return int(torch.multinomial((scores / temperature).softmax(0), 1, generator=generator))


def _stop_ids(model: nn.Module, tokenizer: Any) -> frozenset[int]:
    generation = getattr(causal_lm(model), "generation_config", None)
    eos = getattr(generation, "eos_token_id", None)
    ids = list(eos) if isinstance(eos, list | tuple) else [eos]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


def switch_of_rotations(config: Any) -> int | None:
    """The length above which all positions are rotated by other factors (LongRoPE, Ding et al. 2024, arXiv 2402.13753);
    None for a model that has one set of them."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) != "longrope":
        return None
    length = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return None if length is None else int(length)

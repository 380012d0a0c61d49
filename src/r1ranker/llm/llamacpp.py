"""GGUF models in llama.cpp, through the `xllamacpp` package: named by the path of a `.gguf` file.

Prompts are sent as token ids: the file's own chat template is rendered here, and what a user wrote never becomes a
special token.

The server tells log-probs of what it writes, not of what it reads. So a choice is scored token by token: each is forced
by a bias, and its log-prob is the one before the bias. That takes as many steps as the choices have tokens, where
`TransformersLLM` computes all choices in one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1ranker.errors import AssetError, ConfigError, InputError
from r1ranker.llm.chat import ChatEncoder
from r1ranker.llm.choices import choose, common_length, require_room
from r1ranker.llm.constrained import LINE_END, OPENING, THOUGHT_END, token_tree
from r1ranker.llm.llamaserver import LlamaServer, LlamaTokenizer
from r1ranker.types import Completion, Request, Sampling

_FORCE = 1e3  # added to a logit: more than logits ever differ by, and little enough to keep their differences
_SEEDS = 2**32 - 1  # that number itself means "draw a seed"


class LlamaCppLLM:
    """Completes and scores with a GGUF model.

    path: the `.gguf` file. context_tokens: the longest prompt and completion together, at most what the model knows.
    slots: requests under way at once, each with memory for `context_tokens`.
    threads: by default OMP_NUM_THREADS, or as many as there are CPUs.

    What is written has its token ids, but no log-probs.
    Raises MissingExtraError without the package, AssetError for a file that is no model, ConfigError for a size
    below 1.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context_tokens: int = 4096,
        slots: int = 4,
        threads: int | None = None,
    ) -> None:
        path = Path(path)
        if min(context_tokens, slots, threads or 1) < 1:
            raise ConfigError("context_tokens, slots and threads of a GGUF model must be at least 1")
        self.name = path.stem
        self.slots = slots
        self._server = LlamaServer(path, context_tokens, slots, threads)
        self.chat = ChatEncoder(LlamaTokenizer(self._server))
        meta = self._server.meta
        self._vocabulary = meta["n_vocab"]
        self.parameters: int | None = meta["n_params"]
        self.context_tokens: int | None = min(context_tokens, meta["n_ctx_train"])

    def count_tokens(self, text: str) -> int:
        """Tokens of a user's text."""
        return len(self.chat.encode_text(text))

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `LLM.complete`. Raises InputError for a prompt that is longer than the context."""
        generator = random.Random(sampling.seed)
        tasks: dict[tuple[Any, ...], _Task] = {}
        for k, request in enumerate(requests):
            trunk = tuple(self.chat.encode(request.prompt, request.written))
            choices = [self.chat.encode_text(choice) + self._end_of(request) for choice in request.choices]
            # What is scored is scored once for all that ask it; what is written is written for each.
            key = (trunk, request.choices, request.stop) if choices else (k,)
            task = tasks.setdefault(key, _Task(request, trunk, choices, []))
            task.members.append((k, generator.randrange(_SEEDS)))
        for task in tasks.values():
            if task.request.answers and task.request.scored:
                raise InputError(
                    f"{self.name}: llama.cpp writes a constrained answer and scores none: set exclude_per_turn and "
                    "stop_at to 1, or constrained = false, or take a model that transformers runs"
                )
            longest = max(map(len, task.choices), default=sampling.max_tokens)
            require_room(task.request, len(task.trunk), longest, self)
        out: dict[int, Completion] = {}
        with ThreadPoolExecutor(self.slots) as pool:
            for done in pool.map(lambda task: self._run(task, sampling), tasks.values()):
                out |= done
        return [out[k] for k in range(len(requests))]

    def _end_of(self, request: Request) -> tuple[int, ...]:
        return self.chat.encode_wording(request.stop)[:1]

    def _run(self, task: _Task, sampling: Sampling) -> dict[int, Completion]:
        if task.choices:
            return self._score(task, sampling)
        ((member, seed),) = task.members
        if task.request.answers:
            return {member: self._hold(task, sampling, seed)}
        return {member: self._write(task.request, task.trunk, sampling, seed)}

    def _score(self, task: _Task, sampling: Sampling) -> dict[int, Completion]:
        """Log-probs of every choice; what two choices begin alike is computed once."""
        logprobs: dict[tuple[int, ...], list[float]] = {}
        cached: int | None = None
        last: tuple[int, ...] = ()
        known: list[float] = []
        for tokens in sorted(set(task.choices)):
            known = known[: common_length(last, tokens)]
            while len(known) < len(tokens):
                logprob, reused = self._logprob((*task.trunk, *tokens[: len(known)]), tokens[len(known)])
                known.append(logprob)
                cached = reused if cached is None else cached
            logprobs[tokens] = known
            last = tokens
        means = [sum(logprobs[tokens]) / len(tokens) for tokens in task.choices]
        out = {}
        for n, (member, seed) in enumerate(task.members):
            chosen = choose(means, sampling, random.Random(seed))
            out[member] = Completion(
                text=task.request.choices[chosen] + task.request.stop,
                token_ids=task.choices[chosen],
                choice_logprobs=tuple(means),
                prompt_tokens=len(task.trunk),
                completion_tokens=sum(map(len, task.choices)),
                cached_tokens=len(task.trunk) if n else cached or 0,
                finish="choice",
            )
        return out

    def _logprob(self, prompt: Sequence[int], token: int) -> tuple[float, int]:
        """A token's log-prob after a prompt, and how many of the prompt's tokens were not computed again."""
        reply = self._server.complete(prompt, 1, temperature=0, n_probs=1, logit_bias=[[token, _FORCE]])
        if steps := reply.get("completion_probabilities"):
            return steps[0]["logprob"], reply["timings/cache_n"]
        # The server is silent of a token that ends within a character (of a rare script, an emoji), except among
        # the likeliest ones in place of another, such as that of a letter.
        letter = self.chat.encode_text("a")[-1]
        for likeliest in (64, 4096, self._vocabulary):
            other = self._server.complete(prompt, 1, temperature=0, n_probs=likeliest, logit_bias=[[letter, _FORCE]])
            (step,) = other["completion_probabilities"]
            if found := [top["logprob"] for top in step["top_logprobs"] if top["id"] == token]:
                return found[0], reply["timings/cache_n"]
        raise AssetError(f"{self.name}: llama.cpp tells no log-prob of the token {token}: update xllamacpp")

    def _hold(self, task: _Task, sampling: Sampling, seed: int) -> Completion:
        """A free thought up to `<answer>`, which is written for it when just an answer still fits, and an answer."""
        request, text, trunk, thought = task.request, "", task.trunk, None
        if not request.prompt.prefill.endswith(OPENING):
            close = THOUGHT_END + OPENING
            end = LINE_END if request.listed else request.stop
            sizes = [self.count_tokens(answer + end) for answer in request.answers]
            longest = sum(sizes) + self.count_tokens(request.stop) if request.listed else max(sizes)
            room = sampling.max_tokens - longest - self.count_tokens(close)
            if room < 1:
                raise InputError(
                    f"an answer of '{request.session or 'a request'}' may take {longest} tokens, and max_tokens = "
                    f"{sampling.max_tokens} leaves no room for a thought: allow more new tokens"
                )
            thought = self._write(replace(request, stop=OPENING), trunk, replace(sampling, max_tokens=room), seed)
            text = thought.text.removesuffix(OPENING)
            text += OPENING if THOUGHT_END in text else close
            trunk = (*trunk, *self.chat.encode_text(text))
        ends = self.chat.encode_wording(LINE_END) if request.listed else self._end_of(request)
        answers = {self.chat.encode_text(answer) + ends: answer for answer in request.answers}
        lines, written, counted, generator = list[str](), list[int](), 0, random.Random(seed)
        cached = None if thought is None else thought.cached_tokens
        while answers:
            line, chosen, reused = self._one_of(list(answers), (*trunk, *written), sampling, generator)
            counted = len(written) + chosen if chosen else counted
            cached = reused if cached is None else cached
            lines.append(answers.pop(line))
            written += line
            if not request.listed:
                break
        answer = "".join(line + LINE_END for line in lines) if request.listed else lines[0]
        return Completion(
            text=text + answer + request.stop,
            prompt_tokens=len(task.trunk),
            completion_tokens=len(trunk) - len(task.trunk) + counted,
            cached_tokens=cached or 0,
        )

    def _one_of(
        self, texts: Sequence[tuple[int, ...]], trunk: tuple[int, ...], sampling: Sampling, generator: random.Random
    ) -> tuple[tuple[int, ...], int, int | None]:
        """One of the texts, its tokens up to the last that was chosen, and how many of the trunk were reused."""
        node, written, chosen, cached = token_tree(texts), list[int](), 0, None
        while node:
            token = next(iter(node))
            if len(node) > 1:
                reply = self._server.complete(
                    (*trunk, *written),
                    1,
                    temperature=sampling.temperature,
                    seed=generator.randrange(_SEEDS),
                    logit_bias=[[allowed, _FORCE] for allowed in node],
                )
                (token,) = reply["tokens"]
                chosen = len(written) + 1
                cached = reply["timings/cache_n"] if cached is None else cached
            written.append(token)
            node = node[token]
        return tuple(written), chosen, cached

    def _write(self, request: Request, trunk: tuple[int, ...], sampling: Sampling, seed: int) -> Completion:
        reply = self._server.complete(
            trunk, sampling.max_tokens, temperature=sampling.temperature, seed=seed, stop=_stops(request)
        )
        return Completion(
            text=reply["content"] + reply["stopping_word"],
            token_ids=tuple(reply["tokens"]),
            prompt_tokens=len(trunk),
            completion_tokens=len(reply["tokens"]),
            cached_tokens=reply["timings/cache_n"],
            finish="length" if reply["stop_type"] == "limit" else "stop",
        )


@dataclass(frozen=True, slots=True)
class _Task:
    """One request, or several that are scored alike: `members` are their places and seeds."""

    request: Request
    trunk: tuple[int, ...]
    choices: list[tuple[int, ...]]
    members: list[tuple[int, int]]


def _stops(request: Request) -> list[str]:
    return [request.stop] if request.stop else []

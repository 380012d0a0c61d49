"""LLMs behind OpenAI-compatible servers: hosted ones, vLLM, llama.cpp, Ollama, SGLang.

They are named `openai:MODEL` or `openai:MODEL@BASE_URL`. What differs from a model that is loaded here:

- A reply cannot be begun for the model: the prompt asks for the tags, and a reply that opens with the prefill
  loses it. What the model leaves out is not made up; the parser judges the reply as it stands.
- Servers drop the stop text. It is put back where the model opened an answer and stopped by itself; whether it
  wrote the closing tag or just ended there cannot be told.
- Choices cannot be scored: the model writes its answer, and `choice_logprobs` is empty.
- A model that always reasons needs `thinking = true`: without, it has 64 tokens for its answer.

The context's length is not known, so nothing is cut to fit; a server may refuse a long prompt, and some (Ollama)
cut it without a word.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from json import JSONDecodeError
from threading import Lock
from typing import Any

from r1ranker.errors import AssetError, InputError, MissingExtraError, R1RankerError
from r1ranker.llm.servers import SPEC, check_address, split_spec, without_credentials
from r1ranker.types import Completion, FinishReason, Request, Sampling

ANSWER_TOKENS = 64
"""Longest answer where one of some choices is asked for."""
TOKEN_CHARACTERS = 4
"""Characters a token, about, in English text."""
_SEEDS = 2**31  # some servers read 32 bits
_SHOWN = 200  # characters of what a server says
_TOO_LONG = re.compile(r"context.{0,20}(length|window|size)|too (long|many tokens)|reduce the length", re.IGNORECASE)
_SYSTEM = re.compile(r"system (role|message|prompt)", re.IGNORECASE)
_INSTEAD = {
    "max_tokens": "max_completion_tokens stands for it",
    "system": "its text stands first in the user's message",
}


class OpenAILLM:
    """Asks a server, many requests at a time.

    model, base_url: as in a spec; without an address, OPENAI_BASE_URL or the package's own default.
    api_key: without one, OPENAI_API_KEY, or "none" where there is an address. It is never shown or saved.
    max_workers: requests under way at once. timeout: seconds that one may take.
    max_retries: by the `openai` package, with growing pauses, where the server is busy or out of reach.
    notes: what the server would not take, such as a temperature; it is asked without from then on.

    Raises MissingExtraError without the package, ConfigError for an address that is none, InputError without a key.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        max_workers: int = 8,
        timeout: float = 120.0,
        max_retries: int = 5,
    ) -> None:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise MissingExtraError("an OpenAI-compatible LLM", "openai", "openai") from error
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        if base_url:
            check_address(base_url)
        key = (api_key or os.environ.get("OPENAI_API_KEY") or ("none" if base_url else "")).strip()
        if not key:
            raise InputError(f"{SPEC}{model} needs a key: set OPENAI_API_KEY, or name your server as {SPEC}{model}@URL")
        self.model = model
        self.name = SPEC + model + (f"@{without_credentials(base_url)}" if base_url else "")
        self.parameters: int | None = None
        self.context_tokens: int | None = None
        self.max_workers, self.timeout, self.max_retries = max_workers, timeout, max_retries
        self.notes: list[str] = []
        self._refused: set[str] = set()
        self._lock = Lock()
        self._client: Any = OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=max_retries)

    @classmethod
    def from_spec(cls, spec: str, **options: Any) -> OpenAILLM:
        """The LLM of `openai:MODEL[@BASE_URL]`; options are the keyword arguments of the class."""
        return cls(*split_spec(spec), **options)

    def count_tokens(self, text: str) -> int:
        """An estimate: a token is about four characters."""
        return math.ceil(len(text) / TOKEN_CHARACTERS)

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `LLM.complete`. The k-th of equal requests is asked with the seed `sampling.seed` + k.

        Raises InputError for a request that must be scored or held to some answers, or is too long, AssetError where
        the server fails; what has not been asked by then is not asked any more.
        """
        if any(request.scored for request in requests):
            raise InputError(
                f"{self.name} cannot score given choices, as 'first_step', 'pointwise' and several exclusions a turn "
                "need: take kind = 'iterative' with thinking, or with exclude_per_turn = 1 and stop_at = 1, or kind = "
                "'direct', or a model that is loaded here"
            )
        if any(request.answers for request in requests):
            raise InputError(
                f"{self.name} cannot hold an answer to given texts: set constrained = false, or take a model that is "
                "loaded here"
            )
        if not requests:
            return []
        asked: Counter[Request] = Counter()
        pool = ThreadPoolExecutor(min(self.max_workers, len(requests)))
        try:
            futures = []
            for request in requests:
                futures.append(pool.submit(self._one, request, sampling, sampling.seed + asked[request]))
                asked[request] += 1
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()  # raises at once, not after those before it
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, request: Request, sampling: Sampling, seed: int) -> Completion:
        try:
            response = self._ask(request, sampling, seed)
            choice = response.choices[0]
            message, usage = choice.message, response.usage
            content = message.content or ""
            thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None) or ""
            finish: FinishReason = "length" if choice.finish_reason == "length" else "stop"
            text = text_after_prefill(request, content, thought, finish)
        except (AttributeError, IndexError, TypeError, JSONDecodeError):
            raise AssetError(
                f"{self._address} answers, but not as an OpenAI-compatible server does: check the address, which "
                "usually ends in /v1"
            ) from None
        return Completion(
            text,
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            cached_tokens=_count(getattr(usage, "prompt_tokens_details", None), "cached_tokens"),
            finish=finish,
        )

    def _ask(self, request: Request, sampling: Sampling, seed: int) -> Any:
        """The server's response. What it refuses by name is left out, then and later."""
        from openai import APIError

        while True:
            arguments = self._arguments(request, sampling, seed)
            try:
                return self._client.chat.completions.create(**arguments)
            except APIError as error:
                name = self._refused_by(error, arguments)
                if name is None:
                    raise self._problem(error) from None  # the server's own text may hold the key
                with self._lock:
                    if name not in self._refused:
                        self._refused.add(name)
                        self.notes.append(f"{self.name} refuses '{name}': {_INSTEAD.get(name, 'asked without it')}")

    def _arguments(self, request: Request, sampling: Sampling, seed: int) -> dict[str, Any]:
        prompt, refused = request.prompt, self._refused
        if "system" in refused:
            messages = [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}]
        else:
            messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        limit = min(sampling.max_tokens, ANSWER_TOKENS) if request.choices else sampling.max_tokens
        settings = {
            "max_completion_tokens" if "max_tokens" in refused else "max_tokens": limit,
            "temperature": sampling.temperature,
            "stop": [request.stop],
            "seed": seed % _SEEDS,
        }
        return {
            "model": self.model,
            "messages": messages,
            **{name: value for name, value in settings.items() if name not in refused},
        }

    def _refused_by(self, error: Any, arguments: dict[str, Any]) -> str | None:
        """Which of the request's settings (or the system role) the server will not take, or None."""
        said = self._said(error)
        if getattr(error, "status_code", 0) not in (400, 422) or _TOO_LONG.search(said):
            return None
        if len(arguments["messages"]) > 1 and _SYSTEM.search(said):
            return "system"
        named = [name for name in ("max_tokens", "temperature", "stop", "seed") if name in arguments]
        by_field = [name for name in named if name == getattr(error, "param", None)]
        return next(iter([*by_field, *(name for name in named if re.search(rf"\b{name}\b", said))]), None)

    def _problem(self, error: Any) -> R1RankerError:
        """What to tell of an error, and its remedy."""
        from openai import APIConnectionError, APITimeoutError

        where, said, retried = self._address, self._said(error), f"after {self.max_retries} retries"
        if isinstance(error, APITimeoutError):
            return AssetError(
                f"{where} did not answer within {self.timeout:g} s, {retried}: lower max_tokens, or give it a longer "
                "timeout"
            )
        if isinstance(error, APIConnectionError):
            return AssetError(f"cannot connect to {where}, {retried} ({said}): start the server or correct the address")
        status = getattr(error, "status_code", None)
        if status in (401, 403):  # what is said of a wrong key may hold a part of it
            return AssetError(f"{where} refuses the key ({status}): set OPENAI_API_KEY to one that is valid there")
        if status == 404:
            return AssetError(
                f"{where} has no model '{self.model}' (404: {said}): check its name, and the address, which usually "
                "ends in /v1"
            )
        if status == 429:
            return AssetError(f"{where} takes no more requests, {retried} (429: {said}): wait, or ask fewer at once")
        if status in (400, 413, 422) and _TOO_LONG.search(said):
            return InputError(
                f"a prompt and its answer are longer than {self.name} reads ({said}): rank fewer or shorter "
                "candidates, or lower max_tokens"
            )
        if isinstance(status, int) and status >= 500:
            return AssetError(f"{where} fails, {retried} ({status}: {said}): look into the server's log")
        return AssetError(f"{where} refuses a request ({status or type(error).__name__}: {said}): change what it names")

    @property
    def _address(self) -> str:
        return without_credentials(str(self._client.base_url)).rstrip("/")

    def _said(self, error: Any) -> str:
        """What an error says, on one line, without the key."""
        body = error.body if isinstance(error.body, dict) else {}
        text = str(body.get("message") or body.get("detail") or error.__cause__ or error.message)
        line = without_credentials(" ".join(text.split())).replace(self._client.api_key, "***")
        return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"


def text_after_prefill(request: Request, content: str, thought: str, finish: FinishReason) -> str:
    """A reply as what follows the request's prefill.

    thought: reasoning that the server tells apart; it counts where the prefill is <think>.
    """
    prefill, stop = request.prompt.prefill, request.stop
    _, opened, answer = content.rpartition(stop.replace("</", "<"))
    if finish == "stop" and opened and stop not in answer:
        content += stop
    begun = content.lstrip().startswith(prefill)
    rest = content.lstrip()[len(prefill) :] if begun else content
    if not thought or prefill != "<think>":
        return rest
    if begun:  # two thoughts are one
        return f"{thought}\n{rest}"
    return f"{thought}</think>{rest}" if content or finish == "stop" else thought  # cut within the thought


def _count(usage: Any, name: str) -> int:
    """A figure of the server's usage; 0 where it tells none."""
    figure = getattr(usage, name, None)
    return figure if isinstance(figure, int) else 0

"""What an LLM backend is, and a scripted one for tests and dry runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from r1ranker.errors import InputError
from r1ranker.types import Completion, Request, Sampling


@runtime_checkable
class LLM(Protocol):
    """Anything that completes prompts.

    name: what reports call it. parameters: its size, or None if unknown.
    context_tokens: the longest prompt and completion together, or None if there is no limit.
    """

    name: str
    parameters: int | None
    context_tokens: int | None

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One completion a request, in the same order.

        Requests with the same prompt share one computed prefix: a group of samples is the same
        request repeated. A request with choices gets one of them, and all their log-probs.
        """

    def count_tokens(self, text: str) -> int:
        """How many tokens a user's text takes."""


def notes_of(llm: LLM) -> tuple[str, ...]:
    """What a backend has to tell of how it could be asked, such as a setting that a server refuses."""
    return tuple(getattr(llm, "notes", ()))


class CountingLLM:
    """An LLM that tells how many completions it has made: turns say more of progress than rankings do.

    on_calls: called with the number so far, after every batch.
    """

    def __init__(self, llm: LLM, on_calls: Callable[[int], None]) -> None:
        self.llm, self.on_calls, self.calls = llm, on_calls, 0
        self.name, self.parameters, self.context_tokens = llm.name, llm.parameters, llm.context_tokens

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `LLM.complete`."""
        completions = self.llm.complete(requests, sampling)
        self.calls += len(completions)
        self.on_calls(self.calls)
        return completions

    def count_tokens(self, text: str) -> int:
        """See `LLM.count_tokens`."""
        return self.llm.count_tokens(text)


class ScriptedLLM:
    """A fake that answers from a script: a list of texts taken in turn, or a function of the request.

    With choices, a text that is one of them (or that and the stop text) gets log-prob 0, the others -1.
    Raises InputError when the script runs out or names no choice: a test then fails where the script was wrong.
    """

    def __init__(
        self,
        script: Sequence[str] | Callable[[Request], str],
        *,
        name: str = "scripted",
        context_tokens: int | None = None,
    ) -> None:
        self.name = name
        self.parameters: int | None = None
        self.context_tokens = context_tokens
        self.requests: list[Request] = []
        self._script = script
        self._next = 0

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:  # noqa: ARG002
        """Answer each request from the script; tokens are words."""
        return [self._one(request) for request in requests]

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def _one(self, request: Request) -> Completion:
        self.requests.append(request)
        if callable(self._script):
            text = self._script(request)
        elif self._next < len(self._script):
            text = self._script[self._next]
            self._next += 1
        else:
            raise InputError(f"the script has {len(self._script)} answers and was asked for one more")
        prompt_tokens = self.count_tokens(request.prompt.system + " " + request.prompt.user)
        if not request.choices:
            return Completion(
                text, prompt_tokens=prompt_tokens, completion_tokens=self.count_tokens(text), finish="stop"
            )
        chosen = text.removesuffix(request.stop)
        if chosen not in request.choices:
            raise InputError(f"the script answers {text!r}, which is none of {request.choices}")
        logprobs = tuple(0.0 if choice == chosen else -1.0 for choice in request.choices)
        return Completion(
            chosen + request.stop,
            choice_logprobs=logprobs,
            prompt_tokens=prompt_tokens,
            completion_tokens=sum(self.count_tokens(c) for c in request.choices),
            finish="choice",
        )

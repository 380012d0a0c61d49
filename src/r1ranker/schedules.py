"""Ways to rank many candidates, or within a budget: generators around the generators of `rankers.py`.

A schedule yields the requests of the ranker within it, so that one driver serves them all. The windows of a ranking
follow one another and share its session: a backend then reuses the context that they have in common. The groups of a
tournament's round are asked side by side, each in a session of its own; within a budget they follow one another too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from r1ranker.errors import ConfigError
from r1ranker.firststep import FirstStep
from r1ranker.pointwise import Pointwise
from r1ranker.prompted import (
    INSTRUCTIONS,
    LABEL_TOKENS,
    Asked,
    OutOfBudget,
    Ranking,
    Told,
    ask,
    in_turn,
    part_of,
    requests_of,
    side_by_side,
)
from r1ranker.prompts import ANSWER
from r1ranker.rankers import AnyRanker
from r1ranker.types import Completion, RankingExample, Request, Trace, Turn

T = TypeVar("T")
Run = Callable[[Sequence[Ranking]], Generator[Asked, Told, list[Trace]]]


@dataclass(frozen=True)
class Windows:
    """A window slides from the back of the list to its front (as in RankGPT, arXiv 2304.09542).

    In each window of `size` candidates the last `stride` are settled, and the window moves on by so many; the
    others are carried forward, in the order in which the inner ranker leaves them. The last window, at the
    front, is ranked whole.

    Raises ConfigError unless 1 <= stride < size, and for a pointwise ranker.
    """

    inner: AnyRanker
    size: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.size:
            raise ConfigError(
                f"stride {self.stride} in a window of {self.size}: give at least 1, and less than the window"
            )
        _refuse_whole(self.inner)

    @property
    def shown(self) -> int | None:
        """One window."""
        return self.size

    @property
    def document_tokens(self) -> int | None:
        """The inner ranker's."""
        return self.inner.document_tokens

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """The inner ranker's."""
        return self.inner.text_budget(context_tokens, max_tokens)

    def calls(self, n: int) -> int:
        """LLM calls for `n` candidates."""
        calls = 0
        while n > self.size:
            calls += self.inner.calls(self.size, self.size - self.stride)
            n -= self.stride
        return calls + self.inner.calls(n)

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example. Where a budget ends it, what stands before the last window keeps its place."""
        keep = self.size - self.stride
        left, settled, turns = list(example.ids), list[str](), list[Turn]()
        while len(left) > self.size:
            trace = yield from self.inner.narrow(example.restrict(left[-self.size :]), keep)
            turns += trace.turns
            if trace.cut_short:
                ranking = (*left[: -self.size], *trace.ranking, *settled)
                return Trace(example.id, ranking, tuple(turns), cut_short=True)
            left[-self.size :] = trace.ranking[:keep]
            settled[:0] = trace.ranking[keep:]
        last = yield from self.inner.narrow(example.restrict(left), 1)
        return Trace(example.id, (*last.ranking, *settled), (*turns, *last.turns), cut_short=last.cut_short)


@dataclass(frozen=True)
class Tournament:
    """Rounds of groups until one group is left, which is ranked whole.

    A round deals the candidates out in turn to as few groups of at most `size` as hold them. Of each group the
    share `advance` (rounded down, at least one, never all of several) goes on, in listed order. Of the others
    those of a later round rank higher; within a round their place in the group counts, then the group.

    Raises ConfigError unless size >= 2 and 0 < advance < 1, and for a pointwise ranker.
    """

    inner: AnyRanker
    size: int
    advance: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"a tournament with groups of {self.size}: give 2 or more")
        if not 0 < self.advance < 1:
            raise ConfigError(f"advance is {self.advance}: give a share between 0 and 1")
        _refuse_whole(self.inner)

    @property
    def shown(self) -> int | None:
        """One group."""
        return self.size

    @property
    def document_tokens(self) -> int | None:
        """The inner ranker's."""
        return self.inner.document_tokens

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """The inner ranker's."""
        return self.inner.text_budget(context_tokens, max_tokens)

    def calls(self, n: int) -> int:
        """LLM calls for `n` candidates."""
        calls = 0
        while n > self.size:
            sizes = [len(group) for group in self.groups(range(n))]
            calls += sum(self.inner.calls(size, part_of(self.advance, size)) for size in sizes)
            n = sum(part_of(self.advance, size) for size in sizes)
        return calls + self.inner.calls(n)

    def groups(self, left: Sequence[T]) -> list[Sequence[T]]:
        """A round's groups; their sizes differ by one at most."""
        count = -(-len(left) // self.size)
        return [left[k::count] for k in range(count)]

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example, the groups of a round side by side."""
        return self._rank(example, side_by_side)

    def rank_in_turn(self, example: RankingExample) -> Ranking:
        """The same, group by group. Where a budget ends it, those that are not out yet stand first, as listed."""
        return self._rank(example, in_turn)

    def _rank(self, example: RankingExample, run: Run) -> Ranking:
        left, out, turns = list(example.ids), list[str](), list[Turn]()
        while len(left) > self.size:
            groups = [(group, part_of(self.advance, len(group))) for group in self.groups(left)]
            traces = yield from run([self.inner.narrow(example.restrict(group), keep) for group, keep in groups])
            lost: list[tuple[int, int, str]] = []
            for k, ((group, keep), trace) in enumerate(zip(groups, traces, strict=False)):
                turns += trace.turns
                first = len(group) - len(trace.eliminated) if trace.cut_short else keep
                lost += [(place, k, i) for place, i in enumerate(trace.ranking) if place >= first]
            out[:0] = [i for _, _, i in sorted(lost)]
            left = [i for i in left if i not in out]
            if traces[-1].cut_short:
                return Trace(example.id, (*left, *out), tuple(turns), cut_short=True)
        # Also the last group by `run`: in the first group's session, which holds the context.
        [last] = yield from run([self.inner.narrow(example.restrict(left), 1)])
        return Trace(example.id, (*last.ranking, *out), (*turns, *last.turns), cut_short=last.cut_short)


@dataclass(frozen=True)
class Budget:
    """The inner ranker, ended before the first request that could take a ranking over its budget.

    Only what a call has taken tells what is left for the next: requests that could be asked at once are asked one
    after another, and the groups of a tournament too, each to its end.

    max_calls: LLM calls. max_tokens: tokens that are read (also those that a backend had kept) and written or
    scored. None sets no limit. A backend that counts no tokens is charged the most that they can be.
    answer_tokens: the longest completion, as in the sampling.
    """

    inner: AnyRanker | Windows | Tournament
    max_calls: int | None = None
    max_tokens: int | None = None
    answer_tokens: int = 1024

    @property
    def shown(self) -> int | None:
        """The inner ranker's."""
        return self.inner.shown

    @property
    def document_tokens(self) -> int | None:
        """The inner ranker's."""
        return self.inner.document_tokens

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """The inner ranker's."""
        return self.inner.text_budget(context_tokens, max_tokens)

    def calls(self, n: int) -> int:
        """LLM calls for `n` candidates at most; a budget of tokens may allow fewer."""
        calls = self.inner.calls(n)
        return calls if self.max_calls is None else min(calls, self.max_calls)

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example; the trace says whether the budget ended it."""
        inner = self.inner
        ranking = inner.rank_in_turn(example) if isinstance(inner, Tournament) else inner.rank(example)
        calls = tokens = 0
        last: tuple[Counter[str], int] | None = None
        try:
            asked = next(ranking)
            while True:
                told: list[Completion] = []
                for request in requests_of(asked):
                    lines = _lines(request)
                    most = _most_prompt_tokens(lines, last) + self._most_answer_tokens(request)
                    if self._exceeded(calls + 1, tokens + most):
                        break
                    completion = yield from ask(request)
                    told.append(completion)
                    calls += 1
                    tokens += completion.prompt_tokens + completion.completion_tokens or most
                    last = (lines, completion.prompt_tokens) if completion.prompt_tokens else None
                if len(told) < len(requests_of(asked)):
                    asked = ranking.throw(OutOfBudget(told))
                else:
                    asked = ranking.send(tuple(told) if isinstance(asked, tuple) else told[0])
        except StopIteration as stop:
            trace: Trace = stop.value
            return trace

    def _exceeded(self, calls: int, tokens: int) -> bool:
        over_calls = self.max_calls is not None and calls > self.max_calls
        return over_calls or (self.max_tokens is not None and tokens > self.max_tokens)

    def _most_answer_tokens(self, request: Request) -> int:
        """Choices are scored (each with a beginning of the stop text), or one of them is written.

        Where one of some answers is written at once, or all as a list, it takes what it takes.
        """
        if request.answers and request.prompt.prefill == ANSWER and not request.scored:
            sizes = [_bytes(answer) for answer in request.answers]
            # Each line of a list has its end.
            return (sum(sizes) + len(sizes) if request.listed else max(sizes)) + _bytes(request.stop)
        scored = request.choices or (request.answers if request.scored else ())
        if not scored:
            return self.answer_tokens
        return max(min(self.answer_tokens, LABEL_TOKENS), sum(_bytes(text) + 1 for text in scored))


def _refuse_whole(inner: AnyRanker) -> None:
    """Raises ConfigError for a ranker that judges each candidate alone, or goes by the whole list."""
    if isinstance(inner, Pointwise):
        raise ConfigError(
            f"kind = '{inner.kind}' judges each candidate alone, in whichever window or group: leave out window and "
            "tournament"
        )
    if isinstance(inner, FirstStep) and inner.fusion:
        raise ConfigError("fusion goes by places in the whole list: leave out window and tournament")


def _most_prompt_tokens(lines: Counter[str], last: tuple[Counter[str], int] | None) -> int:
    """Lines that stood in the last prompt too take no more than that did; the others no more than their bytes.

    last: that prompt's lines, and its tokens. Without one, the chat template's tokens are what is kept free for it.
    """
    known = INSTRUCTIONS if last is None else last[1]
    new = lines if last is None else lines - last[0]
    return known + sum((_bytes(line) + 1) * times for line, times in new.items())


def _lines(request: Request) -> Counter[str]:
    prompt = request.prompt
    return Counter(f"{prompt.system}\n{prompt.user}\n{prompt.prefill}".split("\n"))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


ScheduledRanker = AnyRanker | Windows | Tournament | Budget


def with_document_tokens(ranker: ScheduledRanker, document_tokens: int) -> ScheduledRanker:
    """The same way to rank, with another limit of a candidate's text."""
    if isinstance(ranker, Windows | Tournament | Budget):
        return replace(ranker, inner=with_document_tokens(ranker.inner, document_tokens))  # type: ignore[arg-type]
    return replace(ranker, document_tokens=document_tokens)

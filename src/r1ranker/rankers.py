"""DRanker and IRanker (arXiv 2506.21638, section 3), as generators free of I/O; and all kinds by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from r1ranker.errors import ConfigError
from r1ranker.firststep import FirstStep
from r1ranker.parsing import parse_choice, parse_ranking
from r1ranker.pointwise import Pointwise
from r1ranker.prompted import (
    LABEL_TOKENS,
    ExclusionRanker,
    OutOfBudget,
    PromptedRanker,
    Ranking,
    ask,
    best_first,
    part_of,
)
from r1ranker.prompts import build_prompt
from r1ranker.types import Completion, ParsedAnswer, RankingExample, Request, Trace, Turn

RankerKind = Literal["iterative", "direct", "first_step", "pointwise"]


@dataclass(frozen=True)
class IRanker(ExclusionRanker):
    """Excludes the least likely candidate again and again: n - 1 turns for n candidates.

    Without thinking a turn's request carries the labels as choices, and the LLM scores them all. An
    answer that names no candidate excludes the last one listed; the turn's status says so.

    exclude_per_turn: a whole number, or a share of those that are left (then at least one), in (0, 1). Without
        thinking the most likely exclusions are taken, whatever the temperature; with it, those that are
        written, at most so many.
    stop_at: once so many are left, one more turn orders them all.
    constrained: only a label that is left can be written as the answer. Without thinking the model then writes it
        token by token in place of scoring all labels, and a turn costs the same however many are left; where several
        are to be excluded, each label gets its probability of being written.

    Raises ConfigError for a value that is neither, or for several exclusions with `constrained` and thinking, and
    InputError where several are to be excluded without thinking by an LLM that tells no log-probs.
    """

    kind: ClassVar[RankerKind] = "iterative"
    exclude_per_turn: float = 1
    stop_at: int = 1
    constrained: bool = False

    def __post_init__(self) -> None:
        several = self.exclude_per_turn
        if not (0 < several < 1 or (several >= 1 and float(several).is_integer())):
            raise ConfigError(f"exclude_per_turn is {several}: give a whole number from 1, or a share between 0 and 1")
        if self.stop_at < 1:
            raise ConfigError(f"stop_at is {self.stop_at}: give a whole number from 1")
        if self.constrained and self.thinking and (self.exclude_per_turn, self.stop_at) != (1, 1):
            raise ConfigError(
                "after a thought a constrained answer names one candidate: leave exclude_per_turn and stop_at at 1, or "
                "do not think"
            )

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Without thinking only a label is read after the prompt; with `append` a label may stand there twice."""
        room = max_tokens if self.thinking else min(max_tokens, LABEL_TOKENS)
        budget = super().text_budget(context_tokens, room)
        return budget // 2 if self.layout == "append" else budget

    def calls(self, n: int, keep: int = 1) -> int:
        """Turns from `n` candidates to `keep`; more where the LLM names fewer than it is asked for."""
        turns = 0
        while n > keep:
            n -= self._count(n, keep)
            turns += 1
        return turns

    def _count(self, left: int, keep: int) -> int:
        """How many of `left` candidates a turn excludes, on the way to `keep`."""
        if left <= self.stop_at:
            return left - keep
        several = self.exclude_per_turn
        most = int(several) if several >= 1 else part_of(several, left)
        return min(most, left - max(keep, self.stop_at))

    def request(
        self,
        example: RankingExample,
        remaining: Sequence[str],
        count: int = 1,
        excluded: Sequence[str] | None = None,
    ) -> Request:
        """The request of the state in which `remaining` are left and `count` of them are to be excluded.

        excluded: the others in the order in which they were excluded; None for a state that has no order.
        """
        request = self._exclusion(example, remaining, count, excluded)
        if not self.constrained:
            return request
        labels = self.labels(example)
        return replace(request, choices=(), answers=tuple(labels[i] for i in remaining))

    def parse(
        self,
        example: RankingExample,
        remaining: Sequence[str],
        request: Request,
        completion: Completion,
        count: int = 1,
    ) -> ParsedAnswer:
        """What the completion says: at most `count` ids. Naming a candidate that is already excluded is naming none."""
        if request.scored:
            remedy = "exclude_per_turn and stop_at go by: set both to 1, or think (thinking = true)"
            return ParsedAnswer("exact", best_first(example.id, remaining, completion, remedy)[: -count - 1 : -1])
        labels = list(self.labels(example).values())
        reply = request.prompt.prefill + completion.text
        # All labels compete: an excluded "Toy Story" must not pass for the "Toy Story 2" that is left.
        if count > 1:
            parsed = parse_ranking(reply, labels, example.ids, thinking=self.thinking, count=count)
        else:
            parsed = parse_choice(reply, labels, example.ids, thinking=self.thinking)
        named = tuple(i for i in parsed.ids if i in remaining)[:count]
        if named == parsed.ids:
            return parsed
        return replace(parsed, status="repaired" if named else "defaulted", ids=named)

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example; see the class."""
        return self.narrow(example, 1)

    def narrow(self, example: RankingExample, keep: int) -> Ranking:
        """Exclude until `keep` are left. They, and what a budget leaves, stand in the order of the last turn that
        scored them, else as listed.
        """
        remaining, eliminated, turns, cut_short = list(example.ids), list[str](), list[Turn](), False
        while len(remaining) > keep:
            count = self._count(len(remaining), keep)
            request = self.request(example, remaining, count, eliminated)
            try:
                completion = yield from ask(request)
            except OutOfBudget:
                cut_short = True
                break
            parsed = self.parse(example, remaining, request, completion, count)
            excluded = parsed.ids or (remaining[-1],)
            turns.append(Turn(tuple(remaining), request, completion, parsed, excluded))
            eliminated += excluded
            remaining = [i for i in remaining if i not in excluded]
        ranking = (*_by_last_scores(remaining, turns), *reversed(eliminated))
        return Trace(example.id, ranking, tuple(turns), cut_short=cut_short)


@dataclass(frozen=True)
class DRanker(PromptedRanker):
    """Writes the whole ranking in one turn. Candidates it does not name follow in listed order.

    constrained: the answer can only be a whole list, every candidate once; what is left without a choice costs nothing.
    """

    kind: ClassVar[RankerKind] = "direct"
    constrained: bool = False

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """A constrained list takes as many tokens as its labels do, which stand in the prompt too."""
        if not self.constrained:
            return super().text_budget(context_tokens, max_tokens)
        return super().text_budget(context_tokens, max_tokens if self.thinking else 0) // 2

    def request(self, example: RankingExample, session: str = "", written: Sequence[str] = ()) -> Request:
        """The one request of an example.

        written: with `constrained`, the candidates that stand at the beginning of the list already.
        """
        labels = self.labels(example)
        prompt = build_prompt(
            self.templates,
            example,
            list(labels.values()),
            example.ids,
            ranker="direct",
            thinking=self.thinking,
            form=self.form(example),
        )
        if not self.constrained:
            return Request(prompt, session=session)
        return Request(
            prompt,
            session=session,
            answers=tuple(label for i, label in labels.items() if i not in written),
            listed=True,
            written=tuple(labels[i] for i in written),
        )

    def parse(self, example: RankingExample, request: Request, completion: Completion) -> ParsedAnswer:
        """What the completion says."""
        labels = self.labels(example)
        reply = request.prompt.prefill + completion.text
        return parse_ranking(reply, list(labels.values()), example.ids, thinking=self.thinking)

    def _once(self, example: RankingExample, session: str) -> Ranking:
        if len(example.candidates) == 1:
            return Trace(example.id, example.ids)
        request = self.request(example, session)
        try:
            completion = yield from ask(request)
        except OutOfBudget:
            return Trace(example.id, example.ids, cut_short=True)
        parsed = self.parse(example, request, completion)
        named = set(parsed.ids)
        ranking = (*parsed.ids, *(i for i in example.ids if i not in named))
        return Trace(example.id, ranking, (Turn(example.ids, request, completion, parsed),))


def _by_last_scores(left: Sequence[str], turns: Sequence[Turn]) -> tuple[str, ...]:
    """`left` in the order of the last turn that scored all its candidates; as they stand if none did."""
    for turn in reversed(turns):
        if len(turn.completion.choice_logprobs) == len(turn.remaining):
            scores = dict(zip(turn.remaining, turn.completion.choice_logprobs, strict=True))
            return tuple(sorted(left, key=scores.__getitem__))
    return tuple(left)


AnyRanker = IRanker | DRanker | FirstStep | Pointwise
_KINDS: dict[RankerKind, type[AnyRanker]] = {r.kind: r for r in (IRanker, DRanker, FirstStep, Pointwise)}


def make_ranker(kind: RankerKind, **settings: object) -> AnyRanker:
    """The ranker of that kind; settings are its fields."""
    return _KINDS[kind](**settings)  # type: ignore[arg-type]

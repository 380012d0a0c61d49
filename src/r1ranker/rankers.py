"""DRanker, IRanker (arXiv 2506.21638, section 3) and FirstStep, as generators free of I/O.

A ranker yields a `Request`, is sent a `Completion`, and returns a `Trace`. Whoever drives it decides
which LLM answers, how many rankers run at once, and whether the answers train it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol

from r1ranker.answers import QUOTE_WORDS, AnswerForm, answer_labels, default_answer_form
from r1ranker.errors import ConfigError, InputError
from r1ranker.parsing import parse_choice, parse_ranking
from r1ranker.prompts import Layout, PromptTemplates, build_prompt
from r1ranker.types import Completion, ParsedAnswer, RankingExample, Request, Trace, Turn

RankerKind = Literal["iterative", "direct", "first_step"]
INSTRUCTIONS = 256
"""Tokens kept free for the wording around the texts: the chat template, the question, the tags."""
LABEL_TOKENS = 64
"""Tokens kept free for a label that is scored."""
SCORES_ONLY = "scores the candidates and writes nothing: set thinking = false (--no-think)"
Ranking = Generator[Request, Completion, Trace]


class Ranker(Protocol):
    """What the rollout driver needs of a ranker."""

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Tokens that an example's texts may take beside the wording and an answer of `max_tokens`."""

    def rank(self, example: RankingExample) -> Ranking:
        """Yield requests, be sent completions, return the trace."""


@dataclass(frozen=True)
class PromptedRanker:
    """What the rankers share: how candidates are named and prompts are worded.

    thinking: reason in `<think>` first; without, the answer comes at once.
    answer_form: `None` takes the form that suits the scenario and the model's size.
    parameters: the model's size, for that choice.
    """

    thinking: bool = True
    answer_form: AnswerForm | None = None
    quote_words: int = QUOTE_WORDS
    layout: Layout = "rebuild"
    parameters: int | None = None
    templates: PromptTemplates = field(default_factory=PromptTemplates.default)

    def form(self, example: RankingExample) -> AnswerForm:
        """The answer form used for this example."""
        return self.answer_form or default_answer_form(example.scenario, self.parameters)

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Tokens that an example's texts may take in a model that reads `context_tokens`."""
        return context_tokens - max_tokens - INSTRUCTIONS

    def labels(self, example: RankingExample) -> dict[str, str]:
        """Candidate id -> label. Labels are those of the whole example and stay the same in every turn."""
        labels = answer_labels(example, self.form(example), self.quote_words)
        return dict(zip(example.ids, labels, strict=True))

    def _exclusion(self, example: RankingExample, remaining: Sequence[str]) -> Request:
        """Asks which of `remaining` is to be excluded; without thinking, with their labels as choices."""
        labels = self.labels(example)
        prompt = build_prompt(
            self.templates,
            example,
            list(labels.values()),
            remaining,
            ranker="iterative",
            thinking=self.thinking,
            form=self.form(example),
            layout=self.layout,
        )
        choices = () if self.thinking else tuple(labels[i] for i in remaining)
        return Request(prompt, choices, session=example.id)


@dataclass(frozen=True)
class IRanker(PromptedRanker):
    """Excludes the least likely candidate again and again: n - 1 turns for n candidates.

    Without thinking a turn's request carries the labels as choices, and the LLM scores them all. An
    answer that names no candidate excludes the last one listed; the turn's status says so.
    """

    kind: ClassVar[RankerKind] = "iterative"

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Without thinking only a label is read after the prompt; with `append` a label may stand there twice."""
        room = max_tokens if self.thinking else min(max_tokens, LABEL_TOKENS)
        budget = super().text_budget(context_tokens, room)
        return budget // 2 if self.layout == "append" else budget

    def request(self, example: RankingExample, remaining: Sequence[str]) -> Request:
        """The request of the state in which `remaining` are left."""
        return self._exclusion(example, remaining)

    def parse(
        self, example: RankingExample, remaining: Sequence[str], request: Request, completion: Completion
    ) -> ParsedAnswer:
        """What the completion says. Naming a candidate that is already excluded is naming none."""
        labels = self.labels(example)
        reply = request.prompt.prefill + completion.text
        # All labels compete: an excluded "Toy Story" must not pass for the "Toy Story 2" that is left.
        parsed = parse_choice(reply, list(labels.values()), example.ids, thinking=self.thinking)
        if parsed.ids and parsed.ids[0] not in remaining:
            return replace(parsed, status="defaulted", ids=())
        return parsed

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example; see the class."""
        remaining, turns = list(example.ids), list[Turn]()
        while len(remaining) > 1:
            request = self.request(example, remaining)
            completion = yield request
            parsed = self.parse(example, remaining, request, completion)
            excluded = parsed.ids[0] if parsed.ids else remaining[-1]
            turns.append(Turn(tuple(remaining), request, completion, parsed, excluded))
            remaining.remove(excluded)
        eliminated = [turn.excluded for turn in turns if turn.excluded is not None]
        return Trace(example.id, (*remaining, *reversed(eliminated)), tuple(turns))


@dataclass(frozen=True)
class DRanker(PromptedRanker):
    """Writes the whole ranking in one turn. Candidates it does not name follow in listed order."""

    kind: ClassVar[RankerKind] = "direct"

    def request(self, example: RankingExample) -> Request:
        """The one request of an example."""
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
        return Request(prompt)  # no session: there is no later turn to keep the prefix for

    def parse(self, example: RankingExample, request: Request, completion: Completion) -> ParsedAnswer:
        """What the completion says."""
        labels = self.labels(example)
        reply = request.prompt.prefill + completion.text
        return parse_ranking(reply, list(labels.values()), example.ids, thinking=self.thinking)

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example; see the class."""
        if len(example.candidates) == 1:
            return Trace(example.id, example.ids)
        request = self.request(example)
        completion = yield request
        parsed = self.parse(example, request, completion)
        named = set(parsed.ids)
        ranking = (*parsed.ids, *(i for i in example.ids if i not in named))
        return Trace(example.id, ranking, (Turn(example.ids, request, completion, parsed),))


@dataclass(frozen=True)
class FirstStep(PromptedRanker):
    """An IRanker's first turn without thinking, and no more: one pass scores all candidates.

    The likelier a candidate is to be excluded, the lower it ranks; equal scores keep the listed order.
    Raises ConfigError with thinking, and InputError for an LLM that tells no log-probs.
    """

    kind: ClassVar[RankerKind] = "first_step"
    thinking: bool = False

    def __post_init__(self) -> None:
        if self.thinking:
            raise ConfigError(f"kind = '{self.kind}' {SCORES_ONLY}")

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Only a label is read after the prompt."""
        return super().text_budget(context_tokens, min(max_tokens, LABEL_TOKENS))

    def request(self, example: RankingExample) -> Request:
        """The one request of an example."""
        return replace(self._exclusion(example, example.ids), session="", scored=True)  # there is no later turn

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example; see the class."""
        if len(example.candidates) == 1:
            return Trace(example.id, example.ids)
        request = self.request(example)
        completion = yield request
        scores = completion.choice_logprobs
        if len(scores) != len(example.ids):
            raise InputError(
                f"example '{example.id}': the LLM tells {len(scores)} of {len(example.ids)} choices' log-probs, which "
                f"kind = '{self.kind}' ranks by: take kind = 'iterative' or 'direct', or a model that is loaded here"
            )
        by_score = sorted(zip(scores, example.ids, strict=True), key=lambda pair: pair[0])
        ranking = tuple(candidate_id for _, candidate_id in by_score)
        return Trace(example.id, ranking, (Turn(example.ids, request, completion, ParsedAnswer("exact", ranking)),))


AnyRanker = IRanker | DRanker | FirstStep
_KINDS: dict[RankerKind, type[AnyRanker]] = {ranker.kind: ranker for ranker in (IRanker, DRanker, FirstStep)}


def make_ranker(kind: RankerKind, **settings: object) -> AnyRanker:
    """The ranker of that kind; settings are the fields of `PromptedRanker`."""
    return _KINDS[kind](**settings)  # type: ignore[arg-type]

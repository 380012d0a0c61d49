"""What a ranker is, and what the rankers share that ask an LLM.

A ranker yields a `Request`, is sent a `Completion`, and returns a `Trace`. Where it has several requests that do not
wait for each other, it yields them as a tuple and is sent the tuple of their completions. Whoever drives it decides
which LLM answers, how many rankers run at once, and whether the answers train it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from r1ranker.answers import QUOTE_WORDS, AnswerForm, answer_labels, default_answer_form
from r1ranker.errors import InputError
from r1ranker.prompts import THOUGHT_TOKENS, Layout, PromptTemplates, build_prompt
from r1ranker.thoughts import ThoughtBank
from r1ranker.types import Completion, RankingExample, Request, Trace

INSTRUCTIONS = 256
"""Tokens kept free for the wording around the texts: the chat template, the question, the tags."""
LABEL_TOKENS = 64
"""Tokens kept free for a label that is scored."""
SCORES_ONLY = "scores the candidates and writes nothing: set thinking = false (--no-think)"
Asked = Request | tuple[Request, ...]
Told = Completion | tuple[Completion, ...]
Ranking = Generator[Asked, Told, Trace]


class OutOfBudget(Exception):
    """Thrown into a ranking in place of what it would be told, where its budget does not allow all that it asks.

    completions: those of a tuple's first requests, which the budget did allow.
    """

    def __init__(self, completions: Sequence[Completion] = ()) -> None:
        super().__init__()
        self.completions = tuple(completions)


class Ranker(Protocol):
    """What the rollout driver needs of a ranker."""

    @property
    def shown(self) -> int | None:
        """How many candidates stand in one prompt at most; None: all of an example."""

    @property
    def document_tokens(self) -> int | None:
        """Tokens of a candidate's text in a prompt at most; None: what the LLM's context allows."""

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
    document_tokens: see `Ranker`.
    """

    thinking: bool = True
    answer_form: AnswerForm | None = None
    quote_words: int = QUOTE_WORDS
    layout: Layout = "rebuild"
    parameters: int | None = None
    templates: PromptTemplates = field(default_factory=PromptTemplates.default)
    document_tokens: int | None = None

    def form(self, example: RankingExample) -> AnswerForm:
        """The answer form used for this example."""
        return self.answer_form or default_answer_form(example.scenario, self.parameters)

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Tokens that an example's texts may take in a model that reads `context_tokens`."""
        return context_tokens - max_tokens - INSTRUCTIONS

    @property
    def shown(self) -> int | None:
        """All candidates stand in the first prompt."""
        return None

    def calls(self, n: int, keep: int = 1) -> int:  # noqa: ARG002 - a whole ranking is one call
        """LLM calls for `n` candidates, down to `keep` (see `narrow`)."""
        return int(n > 1)

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example; see the class."""
        return self._once(example, session="")  # there is no later turn to keep the prefix for

    def narrow(self, example: RankingExample, keep: int) -> Ranking:  # noqa: ARG002 - a whole ranking serves
        """Rank a part of a longer list, in its session; the first `keep` places need no order among themselves."""
        return self._once(example, session=example.id)

    def _once(self, example: RankingExample, session: str) -> Ranking:
        """Rank the example by one request."""
        raise NotImplementedError

    def labels(self, example: RankingExample) -> dict[str, str]:
        """Candidate id -> label. Labels are those of the whole example and stay the same in every turn."""
        labels = answer_labels(example, self.form(example), self.quote_words)
        return dict(zip(example.ids, labels, strict=True))


@dataclass(frozen=True)
class ExclusionRanker(PromptedRanker):
    """What the rankers share that ask which candidate is to be excluded.

    thoughts: a bank of which the `thoughts_shown` nearest to an example's context stand in its prompts, at their
        beginning and the same in every turn.
    """

    thoughts: ThoughtBank | None = None
    thoughts_shown: int = 1

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """The thoughts that are shown take room too."""
        room = self.thoughts_shown * THOUGHT_TOKENS if self.thoughts else 0
        return super().text_budget(context_tokens, max_tokens) - room

    def _exclusion(
        self,
        example: RankingExample,
        remaining: Sequence[str],
        count: int = 1,
        excluded: Sequence[str] | None = None,
    ) -> Request:
        """Asks which `count` of `remaining` are to be excluded; without thinking, with their labels as choices.

        The choices' log-probs tell the whole order, so that without thinking the wording always asks for one.
        """
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
            count=count if self.thinking else 1,
            excluded=excluded,
            thoughts=self.thoughts.nearest(example, self.thoughts_shown) if self.thoughts else (),
        )
        choices = () if self.thinking else tuple(labels[i] for i in remaining)
        return Request(prompt, choices, session=example.id, scored=bool(choices) and count > 1)


def ask(request: Request) -> Generator[Asked, Told, Completion]:
    """Within a ranking: `completion = yield from ask(request)`."""
    told = yield request
    assert isinstance(told, Completion)
    return told


def ask_all(requests: Sequence[Request]) -> Generator[Asked, Told, tuple[Completion, ...]]:
    """Within a ranking: the completions of requests that do not wait for each other."""
    told = yield tuple(requests)
    assert isinstance(told, tuple)
    return told


def requests_of(asked: Asked) -> tuple[Request, ...]:
    """What a ranking asks, as a tuple in either case."""
    return asked if isinstance(asked, tuple) else (asked,)


def deal(asked: Sequence[Asked], completions: Sequence[Completion]) -> list[Told]:
    """What each of several rankings is told, from the completions of all their requests in order."""
    owners = [k for k, one in enumerate(asked) for _ in requests_of(one)]
    dealt: list[list[Completion]] = [[] for _ in asked]
    for k, completion in zip(owners, completions, strict=True):
        dealt[k].append(completion)
    return [tuple(own) if isinstance(one, tuple) else own[0] for one, own in zip(asked, dealt, strict=True)]


def advance(ranking: Ranking, told: Told | None = None) -> Asked | Trace:
    """What a ranking asks next, or its trace. told: None where it has not begun."""
    try:
        return next(ranking) if told is None else ranking.send(told)
    except StopIteration as stop:
        trace: Trace = stop.value
        return trace


def one_ahead(ranking: Ranking) -> Ranking:
    """Of the first requests that are asked at once one goes ahead of the others.

    They begin with the same context, which a backend would compute for each where all come in one call. Those that
    follow find it kept.
    """
    step = advance(ranking)
    if isinstance(step, tuple) and len(step) > 1:
        first = yield from ask(step[0])
        step = advance(ranking, (first, *(yield from ask_all(step[1:]))))
    while not isinstance(step, Trace):
        step = advance(ranking, (yield step))
    return step


def side_by_side(rankings: Sequence[Ranking]) -> Generator[Asked, Told, list[Trace]]:
    """Rankings that do not wait for each other, a turn of each at a time; returns their traces in order.

    Each gets a session of its own: a backend keeps one prompt a session.
    """
    steps = [advance(ranking) for ranking in rankings]
    while waiting := [(k, step) for k, step in enumerate(steps) if not isinstance(step, Trace)]:
        asked = [replace(r, session=f"{r.session}#{k}") for k, step in waiting for r in requests_of(step)]
        told = deal([step for _, step in waiting], (yield from ask_all(asked)))
        for (k, _), own in zip(waiting, told, strict=True):
            steps[k] = advance(rankings[k], own)
    return [step for step in steps if isinstance(step, Trace)]


def in_turn(rankings: Sequence[Ranking]) -> Generator[Asked, Told, list[Trace]]:
    """The same one after another, in one session. Where a budget ends one, those after it are left out."""
    traces: list[Trace] = []
    for ranking in rankings:
        traces.append((yield from ranking))
        if traces[-1].cut_short:
            break
    return traces


def scores_of(example_id: str, count: int, completion: Completion, remedy: str) -> tuple[float, ...]:
    """The log-probs of all `count` choices of a request. Raises InputError where the LLM does not tell them."""
    scores = completion.choice_logprobs
    if len(scores) != count:
        raise InputError(
            f"example '{example_id}': the LLM tells {len(scores)} of {count} choices' log-probs, which {remedy}, "
            "or take a model that is loaded here"
        )
    return scores


def best_first(example_id: str, ids: Sequence[str], completion: Completion, remedy: str) -> tuple[str, ...]:
    """`ids`, the likeliest to be excluded last; equal scores keep their order. Raises InputError without scores."""
    scores = scores_of(example_id, len(ids), completion, remedy)
    return tuple(i for _, i in sorted(zip(scores, ids, strict=True), key=lambda pair: pair[0]))


def part_of(share: float, n: int) -> int:
    """That share of `n`, rounded down: at least one, and of several never all."""
    return max(1, min(n - 1, int(share * n + 1e-9)))  # in floats, 0.29 * 100 is less than 29

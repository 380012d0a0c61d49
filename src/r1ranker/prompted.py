"""What a ranker is, and what the rankers share that ask an LLM.

A ranker yields a `Request`, is sent a `Completion`, and returns a `Trace`. Whoever drives it decides
which LLM answers, how many rankers run at once, and whether the answers train it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from r1ranker.answers import QUOTE_WORDS, AnswerForm, answer_labels, default_answer_form
from r1ranker.errors import InputError
from r1ranker.prompts import Layout, PromptTemplates, build_prompt
from r1ranker.types import Completion, RankingExample, Request, Trace

INSTRUCTIONS = 256
"""Tokens kept free for the wording around the texts: the chat template, the question, the tags."""
LABEL_TOKENS = 64
"""Tokens kept free for a label that is scored."""
Ranking = Generator[Request, Completion, Trace]


class OutOfBudget(Exception):
    """Thrown into a ranking in place of a completion, where its budget does not allow the request."""


class Ranker(Protocol):
    """What the rollout driver needs of a ranker."""

    @property
    def shown(self) -> int | None:
        """How many candidates stand in one prompt at most; None: all of an example."""

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
        )
        choices = () if self.thinking else tuple(labels[i] for i in remaining)
        return Request(prompt, choices, session=example.id, scored=bool(choices) and count > 1)


def best_first(example_id: str, ids: Sequence[str], completion: Completion, remedy: str) -> tuple[str, ...]:
    """`ids`, the likeliest to be excluded last; equal scores keep their order. Raises InputError without scores."""
    scores = completion.choice_logprobs
    if len(scores) != len(ids):
        raise InputError(
            f"example '{example_id}': the LLM tells {len(scores)} of {len(ids)} choices' log-probs, which {remedy}, "
            "or take a model that is loaded here"
        )
    return tuple(i for _, i in sorted(zip(scores, ids, strict=True), key=lambda pair: pair[0]))


def part_of(share: float, n: int) -> int:
    """That share of `n`, rounded down: at least one, and of several never all."""
    return max(1, min(n - 1, int(share * n + 1e-9)))  # in floats, 0.29 * 100 is less than 29

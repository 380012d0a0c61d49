"""Pointwise ranking, as a generator free of I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from r1ranker.errors import ConfigError
from r1ranker.prompted import LABEL_TOKENS, SCORES_ONLY, OutOfBudget, PromptedRanker, Ranking, ask_all, scores_of
from r1ranker.prompts import build_judgement
from r1ranker.types import Completion, ParsedAnswer, RankingExample, Request, Trace, Turn

_DIGITS = 3
"""Of scores that are told apart: the same text scores a little otherwise in another batch, and keeps its place."""


@dataclass(frozen=True)
class Pointwise(PromptedRanker):
    """Judges each candidate alone by the log-odds of "yes" against "no": n calls for n candidates.

    Relevance generation: Liang et al. 2022 (HELM, arXiv 2211.09110), after Nogueira et al. 2020 (monoT5, arXiv
    2003.06713); RankGPT (arXiv 2304.09542) compares with it. Equal odds keep the listed order. What a budget leaves
    unjudged follows those that are judged, as listed. A prompt names no label and shows one candidate: answer_form,
    quote_words and layout change nothing.
    Raises ConfigError with thinking, and InputError for an LLM that tells no log-probs.
    """

    kind: ClassVar[Literal["pointwise"]] = "pointwise"
    thinking: bool = False

    def __post_init__(self) -> None:
        if self.thinking:
            raise ConfigError(f"kind = '{self.kind}' {SCORES_ONLY}")

    @property
    def shown(self) -> int | None:
        """One."""
        return 1

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Only a word is read after the prompt."""
        return super().text_budget(context_tokens, min(max_tokens, LABEL_TOKENS))

    def calls(self, n: int, keep: int = 1) -> int:  # noqa: ARG002 - whichever are kept, all are judged
        """One a candidate, also of a single one: its score is of itself."""
        return n

    def request(self, example: RankingExample, candidate_id: str) -> Request:
        """The question whether this candidate is a good one.

        Nothing closes the reply: without a stop text a choice's score is that of its word alone.
        """
        prompt = build_judgement(self.templates, example, candidate_id)
        words = tuple(self.templates.text("answer", word) for word in ("yes", "no"))
        return Request(prompt, words, session=example.id, stop="", scored=True)

    def _once(self, example: RankingExample, session: str) -> Ranking:  # noqa: ARG002 - its calls share one anyway
        requests = [self.request(example, i) for i in example.ids]
        try:
            told = yield from ask_all(requests)
        except OutOfBudget as short:
            told = short.completions
        turns = tuple(
            Turn((i,), request, completion, ParsedAnswer("exact", (i,)))
            for i, request, completion in zip(example.ids, requests, told, strict=False)
        )
        odds = {turn.remaining[0]: _log_odds(example.id, turn.completion) for turn in turns}
        judged = sorted(odds, key=lambda i: -round(odds[i], _DIGITS))
        ranking = (*judged, *example.ids[len(turns) :])
        return Trace(example.id, ranking, turns, cut_short=len(turns) < len(ranking), scores=odds)


def _log_odds(example_id: str, completion: Completion) -> float:
    """How much likelier yes is than no, in nats."""
    remedy = f"kind = '{Pointwise.kind}' ranks by: take kind = 'iterative' or 'direct'"
    yes, no = scores_of(example_id, 2, completion, remedy)
    return yes - no

"""What every baseline can do: rank like any other ranker, only without an LLM."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from r1ranker.prompted import Ranking
from r1ranker.types import Candidate, RankingExample, Trace


class Baseline:
    """A ranker that asks no LLM: `rollout(baseline, examples)` drives it like any other.

    A subclass gives `scores`, or `order` where it has none.

    name: what tables call it.
    """

    name: str

    @property
    def flops(self) -> float:
        """What has been computed so far, an estimate: an encoder's 2 x parameters x tokens; 0 for the others."""
        return 0.0

    @property
    def shown(self) -> int | None:
        """There is no prompt in which candidates stand."""
        return None

    @property
    def document_tokens(self) -> int | None:
        """Texts are read whole."""
        return None

    def scores(self, example: RankingExample) -> Sequence[float]:
        """A score for each candidate, in listed order; higher is better."""
        raise NotImplementedError

    def order(self, example: RankingExample) -> tuple[str, ...]:
        """Every candidate id exactly once, best first; ties keep their listed order."""
        return by_score(example, self.scores(example))

    def warm(self, examples: Sequence[RankingExample]) -> None:
        """Compute in batches what ranking these examples will ask for; `rank` gives the same without it."""

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:  # noqa: ARG002 - the Ranker protocol
        """Texts need not fit any LLM: nothing is cut."""
        return sys.maxsize

    def rank(self, example: RankingExample) -> Ranking:
        """Ask nothing; return a trace without turns. A list in a first stage's order is ranked as if it were not."""
        yield from ()
        return Trace(example.id, self.order(_unordered(example) if example.presorted else example))


class AsListed(Baseline):
    """The order in which a list was handed over: what a first stage ranked, where it is in its order."""

    name = "as listed"

    def order(self, example: RankingExample) -> tuple[str, ...]:
        """The candidates as they stand."""
        return example.ids

    def rank(self, example: RankingExample) -> Ranking:
        """Ask nothing; also of a list in a first stage's order."""
        yield from ()
        return Trace(example.id, example.ids)


def by_score(example: RankingExample, scores: Sequence[float]) -> tuple[str, ...]:
    """Candidate ids by falling score, given in listed order; ties keep their listed order."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # sorted() is stable
    return tuple(example.candidates[i].id for i in order)


def read_text(candidate: Candidate) -> str:
    """What is read of a candidate, as prompts show it: its text, and its name where the text does not say it."""
    name = candidate.name or ""
    return candidate.text if name.casefold() in candidate.text.casefold() else f"{name}: {candidate.text}"


def _unordered(example: RankingExample) -> RankingExample:
    shuffled = sorted(example.ids)
    random.Random(f"unordered:{example.id}").shuffle(shuffled)
    return replace(example.restrict(shuffled), presorted=False)


def steady(scores: Iterable[float]) -> list[float]:
    """Scores to five significant digits, and to five decimals below 1.

    What a text's neighbours in a batch change lies below that. They change what is summed up to a score, so that more
    digits change of a score near 0.
    """
    return [round(score, 5) if abs(score) < 1 else float(f"{score:.5g}") for score in map(float, scores)]

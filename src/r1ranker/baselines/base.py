"""What every baseline can do: put an example's candidates in order without an LLM."""

from __future__ import annotations

from typing import Protocol

from r1ranker.types import RankingExample, Trace


class Baseline(Protocol):
    """A ranker that needs no LLM. `name` is what tables call it."""

    @property
    def name(self) -> str: ...

    def rank(self, example: RankingExample) -> tuple[str, ...]:
        """Every candidate id exactly once, best first."""
        ...


def trace(baseline: Baseline, example: RankingExample) -> Trace:
    """The baseline's ranking as a trace without turns, so that it is measured like any other ranker."""
    return Trace(example_id=example.id, ranking=baseline.rank(example))


def by_score(example: RankingExample, scores: list[float]) -> tuple[str, ...]:
    """Candidate ids by falling score, given in listed order; ties keep their listed order."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # sorted() is stable
    return tuple(example.candidates[i].id for i in order)

"""What routing achieves: effect and cost of the LLMs that a ranking would ask, beside what it might have asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from r1ranker.types import RankingExample

BEST = "the best of each query"


def routed(examples: Sequence[RankingExample], runs: Sequence[Iterable[tuple[str, Sequence[str]]]]) -> dict[str, float]:
    """Mean effect and cost of the LLMs that are asked: of each query (by its id) one, or several with equal chances.

    Empty where what they achieved is not known of every query; without cost where that is not.
    """
    by_id = {example.id: example.achieved for example in examples}
    asked = [[by_id[key].get(llm) for llm in llms] for run in runs for key, llms in run]
    known = [[a for a in of_query if a is not None] for of_query in asked]
    if not known or known != asked or not all(known):
        return {}
    found = {"effect": fmean(fmean(a.effect for a in of_query) for of_query in known)}
    costs = [[a.cost for a in of_query if a.cost is not None] for of_query in known]
    if all(len(one) == len(other) for one, other in zip(costs, known, strict=True)):
        found["cost"] = fmean(map(fmean, costs))
    return found


def references(examples: Sequence[RankingExample]) -> dict[str, dict[str, float]]:
    """What one would achieve who knew the best LLM of each query (the cheapest of equals), or always asked the same.

    An LLM that some query lacks is left out. Empty where what they achieved is not known.
    """
    if not all(example.achieved for example in examples):
        return {}
    best = [(e.id, [min(e.achieved, key=lambda i, e=e: _rank(e, i))]) for e in examples]  # type: ignore[misc]
    always = [i for i in examples[0].ids if all(i in e.achieved for e in examples)] if examples else []
    found = {BEST: routed(examples, [best])}
    return found | {f"always {i}": routed(examples, [[(e.id, [i]) for e in examples]]) for i in sorted(always)}


def _rank(example: RankingExample, llm: str) -> tuple[float, float]:
    told = example.achieved[llm]
    return -told.effect, told.cost or 0.0

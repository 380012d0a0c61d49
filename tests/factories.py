"""Small examples for all tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from r1ranker.types import Candidate, RankingExample, Scenario

ITEMS = {
    "recommendation": (
        "Toy Story (1995)",
        "Heat (1995)",
        "Casablanca (1942)",
        "Alien (1979)",
        "Vertigo (1958)",
        "Fargo (1996)",
        "Psycho (1960)",
        "Jaws (1975)",
    ),
    "routing": ("Qwen2 7B", "Mistral 7B", "Llama 3 70B", "Mixtral 8x7B", "Gemma 9B", "Phi 3", "Yi 34B", "Gpt Mini"),
    "passage": (
        "Rome was not built in a single day, as the saying goes, nor was Paris.",
        "The Tiber flows through Rome and reaches the sea near Ostia.",
        "A whale is a mammal and breathes air.",
        "Bread is made of flour, water, salt and yeast.",
        "Glaciers carve valleys over thousands of years.",
        "The violin has four strings tuned in fifths.",
        "Copper conducts electricity better than iron does.",
        "Tea grows best on cool, wet slopes.",
    ),
}

ExampleFactory = Callable[..., RankingExample]


def example(
    n: int = 4,
    *,
    positives: Mapping[str, float] | tuple[str, ...] | None = None,
    scenario: Scenario = "recommendation",
    id: str = "e1",
    **fields: Any,
) -> RankingExample:
    """An example with candidates c1, c2, … (at most 8 differ); c1 is the positive unless `positives` says otherwise."""
    texts = ITEMS[scenario]
    if scenario == "routing":
        candidates = [
            Candidate(f"c{k + 1}", f"{texts[k % 8]} costs {k + 1} cents a call.", texts[k % 8]) for k in range(n)
        ]
    else:
        candidates = [Candidate(f"c{k + 1}", texts[k % 8]) for k in range(n)]
    grades = positives if isinstance(positives, Mapping) else dict.fromkeys(positives or ("c1",), 1.0)
    context: dict[str, Any] = (
        {"history": ("Rocky (1976)", "Big (1988)"), "item_type": "movie"}
        if scenario == "recommendation"
        else {"query": "What is the capital of Italy?"}
    )
    return RankingExample(id, scenario, tuple(candidates), relevance=grades, **{**context, **fields})

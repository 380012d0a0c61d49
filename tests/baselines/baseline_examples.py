"""The smallest examples and data sets that every baseline can learn from."""

from __future__ import annotations

from r1ranker.datasets import Dataset
from r1ranker.types import Candidate, RankingExample, Scenario


def example(
    texts: list[str],
    query: str = "",
    history: tuple[str, ...] = (),
    id: str = "e",
    scenario: Scenario | None = None,
    relevant: tuple[str, ...] = (),
) -> RankingExample:
    """Candidates c0, c1, … with these texts; passages unless there is a history, or a scenario."""
    candidates = tuple(Candidate(f"c{i}", text) for i, text in enumerate(texts))
    scenario = scenario or ("recommendation" if history else "passage")
    return RankingExample(id, scenario, candidates, query, history, dict.fromkeys(relevant, 1.0))


def dataset(scenario: Scenario, test: tuple[RankingExample, ...] = ()) -> Dataset:
    """Four training examples that every baseline for the scenario can learn from."""
    texts = ["heat", "alien", "star wars", "star trek"]
    train = tuple(
        example(
            texts,
            query="" if scenario == "recommendation" else f"what is {word}",
            history=("the cat", word) if scenario == "recommendation" else (),
            id=f"train{k}",
            scenario=scenario,
            relevant=(f"c{k % 2}",),
        )
        for k, word in enumerate(("rome", "paris", "red", "blue"))
    )
    sequences = tuple(("the cat", "rome", texts[k % 4], texts[(k + 1) % 4]) for k in range(6))
    recommendation = scenario == "recommendation"
    counts = {} if scenario == "passage" else {"c0": 3, "c1": 1}
    return Dataset("tiny", train, test, counts, sequences=sequences if recommendation else ())

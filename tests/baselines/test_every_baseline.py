"""What holds for every baseline in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from baseline_examples import dataset, example

from r1ranker.baselines import BASELINES, Baseline, fit_baseline
from r1ranker.llm.base import ScriptedLLM
from r1ranker.rollout import rank_all
from r1ranker.types import RankingExample, Scenario

Make = Callable[[list[RankingExample]], Baseline]
EXTRAS = {"eval": "bm25s", "embeddings": "sentence_transformers", "recommenders": "cornac"}
SMALL = {"bpr": {"epochs": 3}, "sasrec": {"epochs": 1, "dimensions": 8}, "trained-cross-encoder": {"epochs": 1}}
TEXTS = ["heat", "the red dog ran", "alien", "", "star wars", "heat", "never seen", "?!"]


@pytest.fixture(params=[(name, scenario) for name, info in BASELINES.items() for scenario in info.scenarios], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[str, Scenario]:
    name, scenario = request.param
    if needs := BASELINES[name].needs:
        pytest.importorskip(EXTRAS[needs])
    return name, scenario


@pytest.fixture
def make(case: tuple[str, Scenario], encoder_folder: Path, cross_encoder_folder: Path) -> Make:
    """Fits the baseline anew, with a tiny model where it takes one."""
    name, scenario = case
    options: dict[str, object] = dict(SMALL.get(name, {}))
    if "model" in BASELINES[name].options:
        options["model"] = str(cross_encoder_folder if name == "cross-encoder" else encoder_folder)
    return lambda examples: fit_baseline(name, dataset(scenario, tuple(examples)), examples, **options)


@pytest.fixture
def examples(case: tuple[str, Scenario]) -> list[RankingExample]:
    """A long list with doubles and an empty text, the same after other words, one candidate, one that is empty."""
    scenario = case[1]

    def context(words: str) -> dict[str, object]:
        return {"history": tuple(words.split())} if scenario == "recommendation" else {"query": words}

    return [
        example(TEXTS, id="long", scenario=scenario, **context("what is the rome")),
        example(TEXTS, id="other", scenario=scenario, **context("alien dog")),
        example(["heat"], id="one", scenario=scenario, **context("cat")),
        example(["", ""], id="empty", scenario=scenario, **context("cat")),
        example(["heat", "alien"], id="no context", scenario=scenario),
    ]


def test_it_ranks_every_id_once_and_asks_nothing(make: Make, examples: list[RankingExample]) -> None:
    baseline = make(examples)
    traces = rank_all(baseline, examples)
    for trace, ranked in zip(traces, examples, strict=True):
        assert (trace.example_id, sorted(trace.ranking), trace.turns) == (ranked.id, sorted(ranked.ids), ())
    # Beside an LLM with a short context nothing is cut, and nothing is asked.
    assert rank_all(baseline, examples, ScriptedLLM([], context_tokens=8)) == traces
    assert isinstance(baseline.name, str)
    assert baseline.flops >= 0


def test_warming_and_fitting_again_change_nothing(make: Make, examples: list[RankingExample]) -> None:
    cold, warm = make(examples), make(examples)
    warm.warm(examples)
    spent = warm.flops
    assert [warm.scores(e) for e in examples] == [cold.scores(e) for e in reversed(examples)][::-1]
    assert (cold.flops, warm.flops) == (spent, spent)


def test_a_candidate_scores_the_same_wherever_it_is_listed(make: Make, examples: list[RankingExample]) -> None:
    baseline = make(examples)
    long = examples[0]
    turned = long.restrict(long.ids[::-1])
    assert baseline.scores(turned) == baseline.scores(long)[::-1]


def test_equal_texts_keep_their_listed_order(make: Make, examples: list[RankingExample]) -> None:
    same = [replace(e, candidates=tuple(replace(c, text="heat") for c in e.candidates)) for e in examples[:2]]
    baseline = make(same)
    if baseline.name not in ("popularity", "label prior", "knn-router", "logistic-router"):  # these go by id
        assert [baseline.order(e) for e in same] == [e.ids for e in same]

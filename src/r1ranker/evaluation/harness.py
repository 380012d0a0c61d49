"""Runs rankers and baselines over examples and makes their rows: the one way every figure comes about."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from r1ranker.baselines import BM25, AsListed, Baseline, Popularity, expected_measures
from r1ranker.evaluation.achieved import routed
from r1ranker.evaluation.measures import MEASURES
from r1ranker.evaluation.rows import Row, make_row, row_of_scores
from r1ranker.llm.base import LLM
from r1ranker.prompted import Ranker
from r1ranker.rollout import rank_all, rollout
from r1ranker.types import RankingExample, Sampling, Trace

RANDOM = "random"
Progress = Callable[[str, int, int], None]
"""Called with (row's name, examples done, examples in all)."""


def run_ranker(
    name: str,
    ranker: Ranker,
    examples: Sequence[RankingExample],
    llm: LLM | None = None,
    sampling: Sampling | None = None,
    *,
    concurrency: int = 32,
    progress: Progress | None = None,
) -> tuple[list[Trace], float]:
    """Rank all examples, with an LLM if the ranker asks one; returns the traces in their order, and the seconds."""
    sampling = sampling or Sampling()
    traces: dict[int, Trace] = {}
    begin = time.perf_counter()
    for position, finished in rollout(ranker, examples, llm, sampling, concurrency=concurrency):
        traces[position] = finished
        if progress is not None:
            progress(name, len(traces), len(examples))
    return [traces[k] for k in range(len(examples))], time.perf_counter() - begin


def random_row(dataset: str, examples: Sequence[RankingExample], *, base: Row | None = None, seed: int = 0) -> Row:
    """Uniform random order, by its exact expectation."""
    expected = [expected_measures(example) for example in examples]
    values = {measure: [e[measure] for e in expected] for measure in MEASURES}
    row = row_of_scores(RANDOM, dataset, values, base=base, seed=seed)
    return replace(row, routed=routed(examples, [[(e.id, e.ids) for e in examples]]))


BASELINE_ROWS = (RANDOM, AsListed.name, "popularity", "label prior", BM25.name)
"""What `baseline_rows` calls its rows."""


def baseline_rows(
    dataset: str,
    examples: Sequence[RankingExample],
    popularity: Mapping[str, float],
    *,
    as_ranked: bool = False,
    base: Row | None = None,
    seed: int = 0,
) -> Iterator[Row]:
    """Random, popularity (for routing: the label prior; left out where there are no counts) and BM25.

    Where all lists are in the order of a first stage, that order too. as_ranked: they are, though no list says so.
    """
    yield random_row(dataset, examples, base=base, seed=seed)
    baselines: list[Baseline] = [BM25()]
    if popularity:
        name = "label prior" if examples[0].scenario == "routing" else "popularity"
        baselines.insert(0, Popularity(popularity, name=name))
    if as_ranked or all(example.presorted for example in examples):
        baselines.insert(0, AsListed())
    for baseline in baselines:
        begin = time.perf_counter()
        traces = rank_all(baseline, examples)
        seconds = time.perf_counter() - begin
        yield make_row(baseline.name, dataset, examples, traces, base=base, seconds=seconds, seed=seed)

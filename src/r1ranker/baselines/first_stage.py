"""First stages: lists in the order in which a baseline ranks them, as a search engine or a recommender hands them over.

A ranker that is told so (`RankingExample.presorted`) can learn how far to trust that order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from r1ranker.baselines.base import Baseline
from r1ranker.baselines.popularity import Popularity
from r1ranker.baselines.registry import BASELINES, fit_baseline
from r1ranker.datasets import Dataset
from r1ranker.errors import ConfigError
from r1ranker.types import RankingExample

COUNTS = ("popularity", "label-prior")
LEARNERS = tuple(name for name, info in BASELINES.items() if info.learns_answers)
"""Baselines whose order of the training lists is better than it will ever be of others."""


def presort(examples: Sequence[RankingExample], first_stage: Baseline) -> list[RankingExample]:
    """The examples with their candidates as the first stage ranks them; ties keep their listed order."""
    first_stage.warm(examples)
    return [_listed(example, first_stage) for example in examples]


def presort_dataset(dataset: Dataset, first_stage: str, *, share: float = 1.0, seed: int = 0) -> Dataset:
    """A data set of which a share of the lists, on both sides, is as the baseline `first_stage` ranks them.

    Which lists these are depends on the seed and their ids. Of popularity and the label prior a training list's own
    answer is left out: it is among the counts, and would stand higher than an answer that is yet to come.

    Raises ConfigError for a baseline that learns from the training lists (LEARNERS), and as `fit_baseline` does.
    """
    if first_stage in LEARNERS:
        raise ConfigError(
            f"'{first_stage}' knows the answers of '{dataset.name}' that are to be trained on, so that its order there "
            "is better than it will ever be: take a first stage that learns from none (popularity, label-prior, bm25, "
            "embeddings)"
        )
    chosen = {e.id for e in (*dataset.train, *dataset.test) if _draw(seed, e.id) < share}
    given = [e for e in (*dataset.train, *dataset.test) if e.id in chosen]
    baseline = fit_baseline(first_stage, dataset, given, seed=seed)
    baseline.warm(given)
    trained = {e.id for e in dataset.train} if first_stage in COUNTS else set()
    known = {e.id: _listed(e, _without_own(dataset, e, baseline.name) if e.id in trained else baseline) for e in given}
    note = f"{len(known):,} of {len(dataset.train) + len(dataset.test):,} lists are in the order of {baseline.name}"
    return replace(
        dataset,
        train=tuple(known.get(e.id, e) for e in dataset.train),
        test=tuple(known.get(e.id, e) for e in dataset.test),
        notes=(*dataset.notes, note),
    )


def _listed(example: RankingExample, first_stage: Baseline) -> RankingExample:
    return replace(example.restrict(first_stage.order(example)), presorted=True)


def _without_own(dataset: Dataset, example: RankingExample, name: str) -> Popularity:
    best = max(example.grade(i) for i in example.ids)
    counts = {i: dataset.popularity.get(i, 0) - (example.grade(i) == best) for i in example.ids}
    return Popularity(counts, name=name)


def _draw(seed: int, example_id: str) -> float:
    return random.Random(f"{seed}/first stage/{example_id}").random()

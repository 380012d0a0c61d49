"""The data of a recipe: its data sets, loaded, and mixed into one."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

from r1ranker.baselines import presort_dataset
from r1ranker.cli.options import load_data
from r1ranker.config import RunConfig
from r1ranker.datasets import Dataset, built_as
from r1ranker.datasets.base import note
from r1ranker.datasets.duplicates import near_duplicate_groups, past_of
from r1ranker.types import RankingExample

OWN_TEST_FRACTION = 0.2
"""How much of a .jsonl file is kept for testing where a recipe does not say."""


def data_options(config: RunConfig, name: str) -> dict[str, Any]:
    """A data set's options in this recipe. A .jsonl file, which has no split, keeps a fifth for testing."""
    options = dict(config.data.options.get(name, {}))
    if name.endswith((".jsonl", ".jsonl.gz")):
        options.setdefault("test_fraction", OWN_TEST_FRACTION)
    return options


def load_datasets(config: RunConfig) -> list[Dataset]:
    """The recipe's data sets, each built with its source and options, and listed by its first stage if it has one."""
    datasets = []
    for name in config.data.names:
        dataset = load_data(name, config.data.sources.get(name), data_options(config, name))
        dataset = replace(dataset, fingerprints={name: dataset.fingerprint()})
        if first_stage := config.data.first_stage.get(name):
            dataset = presort_dataset(dataset, first_stage, share=config.data.first_stage_share, seed=config.seed)
        datasets.append(dataset)
    return datasets


def load_examples(config: RunConfig) -> Dataset:
    """The recipe's data as one data set; several are mixed (see `mix`)."""
    return mix(load_datasets(config))


def mix(datasets: list[Dataset]) -> Dataset:
    """Data sets one after the other, each training example with the data set it is from; the trainer shuffles them.

    Groups count within their own data set. A query that is tested in one data set is not trained on in another,
    nor is a near-duplicate of it, nor the very history of a list without a query, nor a user who is tested there under
    the same id (of a file that `data build` wrote).
    """
    if len(datasets) == 1:
        return datasets[0]
    taken: set[str] = set()
    train: list[RankingExample] = []
    test: list[RankingExample] = []
    notes: list[str] = []
    for number, dataset in enumerate(datasets, 1):
        twice = any(e.id in taken for e in (*dataset.train, *dataset.test))
        taken |= {e.id for e in (*dataset.train, *dataset.test)}
        for side, examples in ((train, dataset.train), (test, dataset.test)):
            side += [
                replace(e, id=f"{number}:{e.id}" if twice else e.id, group=f"{number}:{e.group}" if e.group else "")
                for e in examples
            ]
        notes += [f"{dataset.name}: {text}" for text in dataset.notes]
    keys = iter(near_duplicate_groups([e.query for e in (*train, *test) if e.query.strip()]))
    asked = [next(keys) if e.query.strip() else "" for e in (*train, *test)]
    tests = iter(asked[len(train) :])
    tested = [
        {*islice(tests, len(one.test)), *map(past_of, one.test), *(built_as(e.id) for e in one.test)} - {""}
        for one in datasets
    ]
    elsewhere = [set().union(*(keys for keys in tested if keys is not own)) for own in tested]
    origins = [(one.name, known, e.id) for one, known in zip(datasets, elsewhere, strict=True) for e in one.train]
    kept = [
        (e, origin)
        for e, (origin, known, own), key in zip(train, origins, asked, strict=False)
        if not {key, past_of(e), built_as(own)} & known
    ]
    dropped = "training examples dropped: their query, history or user is tested in another data set"
    note(notes, len(train) - len(kept), dropped)
    popularity: dict[str, float] = {}
    for dataset in datasets:
        for key, count in dataset.popularity.items():
            popularity[key] = popularity.get(key, 0) + count
    return Dataset(
        name="+".join(d.name for d in datasets),
        train=tuple(e for e, _ in kept),
        test=tuple(test),
        popularity=popularity,
        notes=tuple(notes),
        sequences=tuple(sequence for d in datasets for sequence in d.sequences),
        origins=tuple(origin for _, origin in kept),
        fingerprints={name: told for d in datasets for name, told in d.fingerprints.items()},
    )

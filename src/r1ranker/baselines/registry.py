"""Baselines by name: what each needs, which scenarios it suits, and how it is fitted to a data set."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

from r1ranker.baselines.base import Baseline
from r1ranker.baselines.bm25 import BM25
from r1ranker.baselines.cross_encoder import CrossEncoder
from r1ranker.baselines.embeddings import MODEL, Embeddings, Encoder
from r1ranker.baselines.item_knn import ItemKNN
from r1ranker.baselines.popularity import Popularity
from r1ranker.baselines.recommenders import BPR, SASRec, train_sequences
from r1ranker.baselines.routers import KNNRouter, LogisticRouter
from r1ranker.baselines.trained_cross_encoder import TrainedCrossEncoder
from r1ranker.datasets import Dataset
from r1ranker.errors import ConfigError, InputError
from r1ranker.types import RankingExample, Scenario


@dataclass(frozen=True)
class BaselineInfo:
    """What a registered baseline is, and how it is made.

    needs: the extra that installs what it needs; empty where the package itself is enough.
    fit: (dataset, examples, seed, options...) -> Baseline; of the data set it reads the train side alone.
    options: what `fit` takes by name. tells: `fit` takes long, and an `on_share` that is told how much of it is done.
    reads_lists: what is learned depends on the histories of the lists to be ranked. learns_answers: it has seen which
    candidates of the training lists are relevant, and would rank those lists better than any others.
    """

    name: str
    scenarios: tuple[Scenario, ...]
    needs: str
    description: str
    fit: Callable[..., Baseline]
    options: tuple[str, ...] = ()
    tells: bool = False
    reads_lists: bool = False
    learns_answers: bool = False


def fit_baseline(
    name: str,
    dataset: Dataset,
    examples: Sequence[RankingExample],
    *,
    seed: int = 0,
    on_share: Callable[[float], None] | None = None,
    **options: Any,
) -> Baseline:
    """The baseline `name`, fitted to the train side of a data set, ready to rank `examples`.

    examples: what will be ranked. Only BPR learns from them, and only from their histories.
    seed: for those that learn by chance (BPR, SASRec, a trained cross-encoder). options: see BaselineInfo.options.
    on_share: told which share of the fitting is done, by those that take long.

    Call `warm(examples)` on it before ranking many. Raises ConfigError for an unknown name or option or a
    scenario that the baseline is not for, InputError where the data set has nothing to learn from,
    MissingExtraError without the packages it needs, AssetError for a model that cannot be had.
    """
    if (info := BASELINES.get(name)) is None:
        raise ConfigError(f"unknown baseline '{name}'{_nearest(name, BASELINES)}; there are {', '.join(BASELINES)}")
    for key in options:
        if key not in info.options:
            known = f"it has {', '.join(info.options)}" if info.options else "it has none"
            raise ConfigError(f"baseline '{name}' has no option '{key}'{_nearest(key, info.options)}; {known}")
    for example in examples:
        if example.scenario not in info.scenarios:
            raise ConfigError(
                f"baseline '{name}' is for {' and '.join(info.scenarios)}, and '{dataset.name}' is "
                f"{example.scenario}: use one of {', '.join(baseline_names(example.scenario))}"
            )
    if info.tells and on_share is not None:
        options["on_share"] = on_share
    return info.fit(dataset, examples, seed, **options)


def baseline_names(scenario: Scenario) -> tuple[str, ...]:
    """The names of the baselines for a scenario."""
    return tuple(name for name, info in BASELINES.items() if scenario in info.scenarios)


def _counts(dataset: Dataset) -> Mapping[str, float]:
    if not dataset.popularity:
        raise InputError(
            f"data set '{dataset.name}' has no counts on its train side: leave this baseline out, or give ids of the "
            "candidates and a test_fraction below 1 where the file is your own"
        )
    return dataset.popularity


def _cross_encoder(model: str = "") -> CrossEncoder:
    if not model:
        raise ConfigError(
            "baseline 'cross-encoder' has no model of its own: give model = a folder, or a name on the hub such as "
            "cross-encoder/ms-marco-MiniLM-L6-v2"
        )
    return CrossEncoder(model)


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


_ALL: tuple[Scenario, ...] = get_args(Scenario)
_REC: tuple[Scenario, ...] = ("recommendation",)
_ROUTING: tuple[Scenario, ...] = ("routing",)

BASELINES: Mapping[str, BaselineInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            BaselineInfo(
                "popularity",
                _REC,
                "",
                "how often each item was chosen",
                lambda data, _examples, _seed: Popularity(_counts(data)),
            ),
            BaselineInfo(
                "label-prior",
                _ROUTING,
                "",
                "how often each LLM was among the best",
                lambda data, _examples, _seed: Popularity(_counts(data), name="label prior"),
            ),
            BaselineInfo(
                "bm25",
                _ALL,
                "eval",
                "words shared with the query or the history",
                lambda _data, _examples, _seed, **options: BM25(**options),
                ("k1", "b"),
            ),
            BaselineInfo(
                "embeddings",
                _ALL,
                "embeddings",
                "cosine to the query, to the mean of the history, or halfway",
                lambda _data, _examples, _seed, model=MODEL: Embeddings(Encoder(model)),
                ("model",),
            ),
            BaselineInfo(
                "cross-encoder",
                _ALL,
                "embeddings",
                "a model that reads query and candidate together; it must be named",
                lambda _data, _examples, _seed, model="": _cross_encoder(model),
                ("model",),
            ),
            BaselineInfo(
                "trained-cross-encoder",
                _ALL,
                "embeddings",
                "an encoder that learns from the training lists to read query and candidate together",
                lambda data, _examples, seed, model=MODEL, **options: TrainedCrossEncoder(
                    data.train, model, seed=seed, **options
                ),
                ("model", "epochs", "learning_rate", "lists"),
                tells=True,
                learns_answers=True,
            ),
            BaselineInfo(
                "knn-router",
                _ROUTING,
                "embeddings",
                "what was relevant for the nearest training queries",
                lambda data, _examples, _seed, model=MODEL, **options: KNNRouter(data.train, Encoder(model), **options),
                ("model", "k"),
                learns_answers=True,
            ),
            BaselineInfo(
                "logistic-router",
                _ROUTING,
                "embeddings",
                "a logistic regression for each LLM on the query's embedding",
                lambda data, _examples, _seed, model=MODEL, **options: LogisticRouter(
                    data.train, Encoder(model), **options
                ),
                ("model", "C"),
                learns_answers=True,
            ),
            BaselineInfo(
                "item-knn",
                _REC,
                "",
                "what others chose along with the items of the history",
                lambda data, _examples, _seed: ItemKNN(train_sequences(data)),
                learns_answers=True,
            ),
            BaselineInfo(
                "bpr",
                _REC,
                "recommenders",
                "matrix factorisation, also over the histories to rank for",
                lambda data, examples, seed, **options: BPR(
                    train_sequences(data), [e.history for e in examples], seed=seed, **options
                ),
                ("factors", "epochs", "learning_rate", "regularisation"),
                reads_lists=True,
                learns_answers=True,
            ),
            BaselineInfo(
                "sasrec",
                _REC,
                "recommenders",
                "self-attention over the history",
                lambda data, _examples, seed, **options: SASRec(train_sequences(data), seed=seed, **options),
                ("dimensions", "blocks", "length", "recent", "epochs", "learning_rate", "batch", "negatives"),
                learns_answers=True,
            ),
        )
    }
)

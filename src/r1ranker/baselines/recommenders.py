"""BPR and SASRec from the recommender library cornac: collaborative filtering without reading any text.

An item is known by its name, or by its text where it has none (in the data sets here titles are unique). An item that
nobody interacted with in training scores below all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from r1ranker.baselines.base import Baseline, steady
from r1ranker.datasets import Dataset
from r1ranker.errors import InputError, MissingExtraError
from r1ranker.types import RankingExample

Sequences = Sequence[Sequence[str]]


class BPR(Baseline):
    """Bayesian personalised ranking: matrix factorisation over pairs (Rendle et al. 2009).

    A user needs a vector, so the histories of the examples to rank (inputs; never their targets) are
    learned from beside the train users' sequences. A history that was not among them is ranked by the
    items' biases alone, which is much like popularity.

    factors: dimensions of a vector. epochs: passes over all interactions. The defaults are the best of a few that
    were tried on held-out train users.
    """

    name = "bpr"

    def __init__(
        self,
        sequences: Sequences,
        histories: Sequences,
        *,
        seed: int = 0,
        factors: int = 64,
        epochs: int = 200,
        learning_rate: float = 0.05,
        regularisation: float = 0.02,
    ) -> None:
        cornac = _cornac()
        users = list(dict.fromkeys(tuple(items) for items in (*sequences, *histories) if items))
        rows = [(user, item, 1.0) for user in users for item in dict.fromkeys(user)]
        data = cornac.data.Dataset.from_uir(rows)
        model = cornac.models.BPR(
            k=factors, max_iter=epochs, learning_rate=learning_rate, lambda_reg=regularisation, seed=seed
        ).fit(data)
        self._users, self._items = dict(data.uid_map), dict(data.iid_map)
        self._user_factors, self._item_factors, self._biases = model.u_factors, model.i_factors, model.i_biases

    def scores(self, example: RankingExample) -> list[float]:
        """Bias plus the product of the vectors; -inf for an item never seen."""
        everything = self._biases
        if (user := self._users.get(example.history)) is not None:
            everything = everything + self._item_factors @ self._user_factors[user]
        return _of_candidates(example, everything, self._items)


class SASRec(Baseline):
    """Self-attention over the history predicts the next item (Kang and McAuley 2018).

    It learns from the train users' sequences, and reads the history of the example that it ranks. The
    loss is cross-entropy against the batch's other items and `negatives` drawn uniformly, as the data
    sets' candidates are. Without any known item in the history all candidates that were seen are equal.

    dimensions: of an item's vector. length: items of a history that are read, the newest.
    recent: items of a train user that are learned from, the newest: each is a row to predict.
    """

    name = "sasrec"

    def __init__(
        self,
        sequences: Sequences,
        *,
        seed: int = 0,
        dimensions: int = 64,
        blocks: int = 1,
        length: int = 20,
        recent: int = 50,
        epochs: int = 2,
        learning_rate: float = 0.005,
        batch: int = 256,
        negatives: int = 256,
    ) -> None:
        cornac = _cornac()
        newest = [items[-recent:] for items in sequences]
        rows = [(user, item, place) for user, items in enumerate(newest) for place, item in enumerate(items)]
        data = cornac.data.SequentialDataset.from_sit(rows)
        self._items = dict(data.iid_map)
        self._model = cornac.models.SASRec(
            embedding_dim=dimensions,
            num_blocks=blocks,
            max_len=length,
            n_epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch,
            n_sample=negatives,
            sample_alpha=0.0,
            seed=seed,
        )
        import torch

        with torch.random.fork_rng(devices=[]):  # cornac seeds torch's global generator
            self._model.fit(data)

    def scores(self, example: RankingExample) -> list[float]:
        """The model's scores for the next item; -inf for an item never seen."""
        history = [self._items[item] for item in example.history if item in self._items]
        return _of_candidates(example, self._model.score(0, history), self._items)


def train_sequences(dataset: Dataset) -> Sequences:
    """The train users' items, oldest first; where a data set has none, the history and positives of each train example.

    Raises InputError where there is neither.
    """
    sequences = dataset.sequences or tuple(
        (*e.history, *(c.called for c in e.candidates if e.grade(c.id) > 0)) for e in dataset.train
    )
    if not any(len(items) > 1 for items in sequences):
        raise InputError(f"data set '{dataset.name}' has no train user with two items: there is nothing to learn from")
    return sequences


def _of_candidates(example: RankingExample, everything: Any, items: dict[str, int]) -> list[float]:
    """The candidates' places in an array over all items."""
    places = [items.get(c.called) for c in example.candidates]
    return steady(-math.inf if place is None else float(np.asarray(everything)[place]) for place in places)


def _cornac() -> Any:
    try:
        import cornac
    except ImportError as error:
        raise MissingExtraError("BPR and SASRec", "cornac", "recommenders") from error
    return cornac

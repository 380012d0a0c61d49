"""Routers over query embeddings: k nearest training queries, and logistic regression for each LLM.

Both learn from the train side, and know a candidate by its id; an LLM they have not seen scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from r1ranker.baselines.base import Baseline, steady
from r1ranker.baselines.embeddings import Encoder, Vectors, context_texts
from r1ranker.errors import InputError, MissingExtraError
from r1ranker.types import RankingExample


class EmbeddingRouter(Baseline):
    """What both routers share: an encoder of queries, and the training queries' vectors."""

    def __init__(self, train: Sequence[RankingExample], encoder: Encoder) -> None:
        self.encoder = encoder
        encoder.warm(text for example in train for text in context_texts(example))
        contexts = [(example, encoder.context(example)) for example in train]
        self._train = [example for example, context in contexts if context is not None]
        if not self._train:
            raise InputError(f"{self.name} needs training examples with a query: the data set has none")
        self._vectors: Vectors = np.stack([context for _, context in contexts if context is not None])

    @property
    def flops(self) -> float:
        """The encoder's alone, training queries with them; the rest is small beside it."""
        return self.encoder.flops

    def warm(self, examples: Sequence[RankingExample]) -> None:
        """Embed all queries."""
        self.encoder.warm(text for example in examples for text in context_texts(example))

    def scores(self, example: RankingExample) -> list[float]:
        """See the class; all 0 without a query."""
        context = self.encoder.context(example)
        return [0.0] * len(example.ids) if context is None else steady(self._route(context, example.ids))

    def _route(self, context: Vectors, ids: Sequence[str]) -> Sequence[float]:
        raise NotImplementedError


class KNNRouter(EmbeddingRouter):
    """An LLM's score is its relevance averaged over the k nearest training queries, weighted by their cosine.

    Of them those count that list the LLM: where a log lacks its outcome, nothing is known of it. A neighbour with a
    cosine below 0 has no weight. Raises InputError for a k below 1.
    """

    name = "knn-router"

    def __init__(self, train: Sequence[RankingExample], encoder: Encoder, k: int = 32) -> None:
        if k < 1:
            raise InputError(f"k is {k}; it must be at least 1")
        super().__init__(train, encoder)
        self.k = k

    def _route(self, context: Vectors, ids: Sequence[str]) -> list[float]:
        near = self._vectors @ context
        nearest = np.argsort(-near, kind="stable")[: self.k]
        weights = np.maximum(near[nearest], 0.0)
        neighbours = [self._train[k] for k in nearest]
        return [self._mean_grade(neighbours, weights, i) for i in ids]

    @staticmethod
    def _mean_grade(neighbours: Sequence[RankingExample], weights: Vectors, llm: str) -> float:
        listed = np.asarray([llm in example.ids for example in neighbours])
        grades = np.asarray([example.grade(llm) for example in neighbours])
        return float(weights @ grades) / max(float(weights[listed].sum()), 1e-12)


class LogisticRouter(EmbeddingRouter):
    """An LLM's score is the probability that it is relevant: one logistic regression on the query's vector each.

    An LLM that is always relevant in training scores 1, one that never is 0. C: scikit-learn's, the inverse of
    the regularisation. Raises MissingExtraError without scikit-learn.
    """

    name = "logistic-router"

    def __init__(self, train: Sequence[RankingExample], encoder: Encoder, C: float = 1.0) -> None:
        super().__init__(train, encoder)
        try:
            from sklearn.linear_model import LogisticRegression
        except ImportError as error:
            raise MissingExtraError("The logistic-regression router", "scikit-learn", "embeddings") from error
        self._constant: dict[str, float] = {}
        self._linear: dict[str, tuple[NDArray[np.float64], float]] = {}
        for llm, places in _places(self._train).items():
            relevant = np.asarray([self._train[k].grade(llm) > 0 for k in places])
            if relevant.all() or not relevant.any():
                self._constant[llm] = float(relevant[0])
                continue
            fitted = LogisticRegression(C=C, max_iter=1000).fit(self._vectors[places].astype(float), relevant)
            self._linear[llm] = fitted.coef_[0], float(fitted.intercept_[0])

    def _route(self, context: Vectors, ids: Sequence[str]) -> list[float]:
        return [self._probability(context, llm) for llm in ids]

    def _probability(self, context: Vectors, llm: str) -> float:
        if llm not in self._linear:
            return self._constant.get(llm, 0.0)
        weights, bias = self._linear[llm]
        return float(1.0 / (1.0 + np.exp(-(weights @ context + bias))))


def _places(train: Sequence[RankingExample]) -> Mapping[str, list[int]]:
    """LLM -> places (from 0) of the examples that list it."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(train):
        for llm in example.ids:
            places.setdefault(llm, []).append(place)
    return places

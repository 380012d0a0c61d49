"""Routers over hand-made vectors: every expected score is worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from baseline_examples import example

from r1ranker.baselines.embeddings import Encoder
from r1ranker.baselines.routers import KNNRouter, LogisticRouter
from r1ranker.errors import InputError
from r1ranker.types import RankingExample

ROOT = 1 / math.sqrt(2)
VECTORS = {"east": (1, 0), "north": (0, 1), "northeast": (ROOT, ROOT), "west": (-1, 0), "": (1, 0)}


class Compass(Encoder):
    """Two dimensions, known words, no model."""

    def __init__(self) -> None:
        self._vectors = {word: np.asarray(vector, dtype=np.float32) for word, vector in VECTORS.items()}
        self.flops = 0.0


def query(word: str, *relevant: str, id: str = "q") -> RankingExample:
    return example(["x", "y", "z"], query=word, scenario="routing", relevant=relevant, id=id)


TRAIN = [query("east", "c0", id="1"), query("north", "c1", id="2"), query("west", "c2", id="3")]


@pytest.mark.parametrize(
    ("k", "word", "expected"),
    [
        (1, "east", [1, 0, 0]),
        (2, "northeast", [0.5, 0.5, 0]),  # both at a cosine of 0.707
        (32, "northeast", [0.5, 0.5, 0]),  # the third neighbour lies behind and weighs nothing
        (32, "east", [1, 0, 0]),  # weights 1, 0 and none
        (1, "", [0, 0, 0]),  # no query
    ],
)
def test_knn_averages_what_was_relevant_nearby(k: int, word: str, expected: list[float]) -> None:
    assert KNNRouter(TRAIN, Compass(), k).scores(query(word)) == pytest.approx(expected)


def test_knn_weighs_grades_by_nearness() -> None:
    train = [query("east", "c0", "c1", id="1"), query("northeast", "c1", id="2")]
    # Weights 1 and 0.70711: c0 has 1 / 1.70711 of them.
    assert KNNRouter(train, Compass()).scores(query("east")) == pytest.approx([1 / (1 + ROOT), 1, 0], abs=1e-4)


def test_knn_asks_those_neighbours_alone_that_list_the_llm() -> None:
    """c2 is best on the one query that lists it: of the others, which were not asked of it, nothing is known."""
    seldom = RankingExample("1", "routing", query("east", id="1").candidates, "east", relevance={"c2": 1})
    train = [seldom, *(query("east", "c1", id=str(k)).restrict(["c0", "c1"]) for k in (2, 3))]
    assert KNNRouter(train, Compass()).scores(query("east")) == pytest.approx([0, 2 / 3, 1], abs=1e-5)


def test_a_query_that_is_like_none_has_only_ties() -> None:
    assert KNNRouter(TRAIN[:1], Compass()).order(query("west")) == ("c0", "c1", "c2")


def test_an_llm_that_training_never_listed_scores_nothing() -> None:
    new = RankingExample("new", "routing", (*query("east").candidates[:1], *example(["x"] * 4).candidates[3:]), "east")
    for router in (KNNRouter(TRAIN, Compass()), LogisticRouter(TRAIN, Compass())):
        assert new.ids == ("c0", "c3")
        scores = router.scores(new)
        assert scores[0] > 0
        assert scores[1] == 0


def test_logistic_is_scikit_learns_and_constant_where_nothing_is_to_be_told() -> None:
    linear: Any = pytest.importorskip("sklearn.linear_model")
    train = [query("east", "c0", "c1", id="1"), query("north", "c1", id="2"), query("west", "c1", id="3")]
    router = LogisticRouter(train, Compass(), C=5.0)
    X = np.asarray([VECTORS["east"], VECTORS["north"], VECTORS["west"]])
    model = linear.LogisticRegression(C=5.0, max_iter=1000).fit(X, [True, False, False])
    expected = model.predict_proba([VECTORS["northeast"]])[0, 1]
    assert router.scores(query("northeast")) == pytest.approx([expected, 1, 0], rel=1e-4)
    assert router.scores(query("east"))[0] > router.scores(query("north"))[0] > router.scores(query("west"))[0]


def test_an_llm_is_fitted_only_where_it_was_listed() -> None:
    only = example(["x"], query="west", scenario="routing", id="4")  # lists c0 alone, not relevant
    router = LogisticRouter([query("east", "c0", "c1", id="1"), only], Compass())
    assert router.scores(query("west"))[1:] == [1, 0]


def test_what_cannot_be_learned_from_is_told() -> None:
    for router in (KNNRouter, LogisticRouter):
        with pytest.raises(InputError, match=f"{router.name} needs training examples with a query"):
            router([example(["x"], scenario="routing")], Compass())
    with pytest.raises(InputError, match="k is 0; it must be at least 1"):
        KNNRouter(TRAIN, Compass(), 0)

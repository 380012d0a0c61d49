"""The exact expectation against fractions worked out by hand, and against every permutation."""

from __future__ import annotations

from itertools import permutations
from math import log2
from statistics import fmean

import pytest

from r1ranker.baselines import expected_measures
from r1ranker.evaluation import MEASURES, per_query
from r1ranker.types import Candidate, RankingExample


def example(grades: list[float], id: str = "e") -> RankingExample:
    candidates = tuple(Candidate(f"c{i}", "") for i in range(len(grades)))
    return RankingExample(id, "passage", candidates, relevance={f"c{i}": g for i, g in enumerate(grades)})


def test_one_positive_of_twenty() -> None:
    found = expected_measures(example([1.0] + [0.0] * 19))
    assert found["MRR"] == pytest.approx(sum(1 / k for k in range(1, 21)) / 20)
    assert found["MRR"] == pytest.approx(0.1799, abs=5e-5)  # the paper table's "uniform random", 17.99
    assert found["Hit@1"] == pytest.approx(1 / 20)
    assert found["Hit@5"] == pytest.approx(5 / 20)
    assert found["nDCG@5"] == pytest.approx(sum(1 / log2(k + 1) for k in range(1, 6)) / 20)


def test_two_positives_of_three() -> None:
    """The first is at rank 1 in two of three placements, at rank 2 in the third: 2/3 + 1/3 * 1/2 = 5/6."""
    found = expected_measures(example([1.0, 0.0, 1.0]))
    assert found["MRR"] == pytest.approx(5 / 6)
    assert found["Hit@1"] == pytest.approx(2 / 3)
    assert found["Hit@5"] == 1.0


def test_all_or_none_relevant() -> None:
    assert set(expected_measures(example([2.0, 2.0])).values()) == {1.0}
    assert set(expected_measures(example([0.0, 0.0])).values()) == {0.0}


@pytest.mark.parametrize(
    "grades",
    [
        [1],
        [0],
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0],
        [3, 1, 0, 2, 0],
        [2, 2, 1, 1, 1],
        [0.25, 0.5, 0, 0.125],
        [0, 0, 0],
    ],
)
def test_agrees_with_the_mean_over_every_permutation(grades: list[float]) -> None:
    orders = list(permutations(f"c{i}" for i in range(len(grades))))
    examples = [example(grades, id=f"e{i}") for i in range(len(orders))]
    values = per_query({e.id: order for e, order in zip(examples, orders, strict=True)}, examples)
    expected = expected_measures(examples[0])
    assert tuple(expected) == MEASURES
    for measure in MEASURES:
        assert expected[measure] == pytest.approx(fmean(values[measure]), abs=1e-9)

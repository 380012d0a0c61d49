"""Measures on tiny examples, with fractions worked out by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import log2

import pytest

from r1ranker.errors import InputError, MissingExtraError
from r1ranker.evaluation import MEASURES, per_query, without_relevant
from r1ranker.types import Candidate, RankingExample

DISCOUNT = [1 / log2(rank + 1) for rank in range(1, 20)]


def example(id: str, relevance: dict[str, float], ids: str = "abcdefgh") -> RankingExample:
    return RankingExample(id, "passage", tuple(Candidate(i, "") for i in ids), relevance=relevance)


def measure(relevance: dict[str, float], order: str) -> dict[str, float]:
    found = per_query({"e": tuple(order)}, [example("e", relevance, "".join(sorted(order)))])
    return {name: values[0] for name, values in found.items()}


def test_one_positive_at_rank_three() -> None:
    assert measure({"c": 1}, "abcdefgh") == pytest.approx(
        {"MRR": 1 / 3, "nDCG@5": DISCOUNT[2], "nDCG@10": DISCOUNT[2], "Hit@1": 0, "Hit@5": 1}
    )


def test_one_positive_at_rank_six_is_past_the_cut_of_five() -> None:
    assert measure({"f": 1}, "abcdefgh") == pytest.approx(
        {"MRR": 1 / 6, "nDCG@5": 0, "nDCG@10": DISCOUNT[5], "Hit@1": 0, "Hit@5": 0}
    )


def test_several_positives_count_the_first() -> None:
    found = measure({"b": 1, "d": 1, "a": 0}, "abcd")
    assert found["MRR"] == pytest.approx(1 / 2)
    assert found["nDCG@5"] == pytest.approx((DISCOUNT[1] + DISCOUNT[3]) / (DISCOUNT[0] + DISCOUNT[1]))


def test_graded_gain_is_linear() -> None:
    """An exponential gain (2^3 - 1 = 7) would give another value."""
    found = measure({"a": 1, "b": 3}, "abc")
    assert found["nDCG@5"] == pytest.approx((1 + 3 * DISCOUNT[1]) / (3 + 1 * DISCOUNT[1]))
    assert found["Hit@1"] == 1


def test_what_no_ranking_reaches_counts_in_the_ideal() -> None:
    short = replace(example("e", {"b": 1}, "abc"), unlisted={"d": 3.0})
    found = per_query({"e": ("a", "b", "c")}, [short])
    assert found["nDCG@5"] == [pytest.approx(DISCOUNT[1] / (3 + DISCOUNT[1]))]
    assert found["MRR"] == [0.5]


def test_tied_grades_may_stand_in_either_order() -> None:
    relevance = {"a": 2.0, "b": 2.0, "c": 1.0}
    assert measure(relevance, "abcd") == measure(relevance, "bacd")
    assert measure(relevance, "abcd")["nDCG@5"] == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.5, 0.001, 1e-7, 1 / 3, 1e9])
def test_ndcg_does_not_depend_on_the_scale_of_grades(scale: float) -> None:
    found = measure({"a": 1 * scale, "b": 3 * scale}, "abc")
    assert found == pytest.approx(measure({"a": 1, "b": 3}, "abc"), abs=1e-5)


def test_a_tiny_grade_beside_a_large_one_is_still_relevant() -> None:
    found = measure({"a": 1e-9, "b": 12345.678}, "abc")
    assert (found["MRR"], found["Hit@1"]) == (1, 1)


def test_no_relevant_candidate_scores_zero_and_is_counted() -> None:
    examples = [example("none", {}), example("zero", {"a": 0}), example("some", {"a": 1})]
    found = per_query({e.id: e.ids for e in examples}, examples)
    assert found == {m: [0, 0, 1] for m in MEASURES}
    assert without_relevant(examples) == 2


def test_values_stand_in_example_order() -> None:
    examples = [example(f"e{i}", {"abcdefgh"[i % 8]: 1}) for i in range(12)]
    found = per_query({e.id: e.ids for e in reversed(examples)}, examples)
    assert found["MRR"] == pytest.approx([1 / (i % 8 + 1) for i in range(12)])


def test_ids_may_hold_any_characters() -> None:
    ids = ("a b", "tab\there", "Ünï 文", "", "new\nline", "d0")
    odd = RankingExample("q 1\t?", "passage", tuple(Candidate(i, "") for i in ids), relevance={"Ünï 文": 1, "d0": 1})
    ranking = ("d0", "new\nline", "a b", "tab\there", "Ünï 文", "")
    found = per_query({odd.id: ranking}, [odd])
    assert found["MRR"] == [1]
    assert found["nDCG@5"] == pytest.approx([(1 + DISCOUNT[4]) / (1 + DISCOUNT[1])])


@pytest.mark.parametrize("ranking", [("a", "b"), ("a", "b", "b"), ("a", "b", "x"), ("a", "b", "c", "a")])
def test_a_ranking_must_be_a_permutation(ranking: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="'e' must hold each of its 3 candidates"):
        per_query({"e": ranking}, [example("e", {}, "abc")])


def test_missing_rankings_and_shared_ids_are_refused() -> None:
    with pytest.raises(InputError, match="no ranking for example 'e'"):
        per_query({}, [example("e", {})])
    with pytest.raises(InputError, match="same id"):
        per_query({"e": tuple("abc")}, [example("e", {}, "abc")] * 2)


def test_names_the_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match=r"r1ranker\[eval\]"):
        per_query({}, [])

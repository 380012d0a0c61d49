"""First stages: the order that lists are handed over in, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from baseline_examples import dataset, example

from r1ranker.baselines import BASELINES, BM25, fit_baseline, presort, presort_dataset
from r1ranker.baselines.first_stage import LEARNERS
from r1ranker.datasets import Dataset
from r1ranker.errors import ConfigError

TEXTS = ["a dog ran", "the cat sat", "the dog, the dog"]


def test_lists_stand_as_the_first_stage_ranks_them_and_say_so() -> None:
    given = example(TEXTS, query="dog", relevant=("c1",))
    [listed] = presort([given], BM25())
    assert listed.ids == BM25().order(given) == ("c2", "c0", "c1")
    assert listed.presorted
    assert not given.presorted
    assert listed.relevance == given.relevance


def test_the_mark_stays_with_what_is_left() -> None:
    [listed] = presort([example(TEXTS, query="dog")], BM25())
    left = listed.restrict([i for i in listed.ids if i != "c0"])
    assert (left.ids, left.presorted) == (("c2", "c1"), True)


def by_counts(counts: dict[str, int]) -> Dataset:
    """A training list that chose c1 and a test list that chose it too, of three candidates."""
    lists = [
        replace(example(TEXTS, history=("x",), id=id, scenario="recommendation", relevant=("c1",)), group=id)
        for id in ("train", "test")
    ]
    return Dataset("tiny", (lists[0],), (lists[1],), popularity=counts)


def test_a_training_lists_own_answer_is_not_among_its_counts() -> None:
    data = presort_dataset(by_counts({"c0": 2, "c1": 3, "c2": 1}), "popularity")
    assert data.test[0].ids == ("c1", "c0", "c2")
    assert data.train[0].ids == ("c0", "c1", "c2")  # 2, 3 - 1 and 1: a tie keeps the listed order
    once = presort_dataset(by_counts({"c0": 1, "c1": 1}), "popularity")
    assert once.train[0].ids == ("c0", "c1", "c2")  # chosen by this list alone: no more than one never chosen
    assert data.notes == ("2 of 2 lists are in the order of popularity",)


def test_what_learns_nothing_from_lists_leaves_nothing_out() -> None:
    data = presort_dataset(dataset("passage", test=(example(["rome", "cat"], query="cat", id="t"),)), "bm25")
    bm25 = BM25()
    assert [e.ids for e in data.train] == [bm25.order(e) for e in dataset("passage").train]
    assert data.test[0].ids == ("c1", "c0")


def test_a_share_of_the_lists_is_the_same_for_a_seed_and_the_others_stay() -> None:
    many = [replace(e, id=f"{e.id}/{k}") for k in range(50) for e in dataset("passage").train]
    given = Dataset("tiny", tuple(many), ())
    half = presort_dataset(given, "bm25", share=0.5, seed=1)
    chosen = [e.presorted for e in half.train]
    assert 70 < sum(chosen) < 130
    assert chosen == [e.presorted for e in presort_dataset(given, "bm25", share=0.5, seed=1).train]
    assert chosen != [e.presorted for e in presort_dataset(given, "bm25", share=0.5, seed=2).train]
    assert [e for e in half.train if not e.presorted] == [e for e, new in zip(many, chosen, strict=True) if not new]
    fewer = presort_dataset(given, "bm25", share=0.2, seed=1)
    assert {e.id for e in fewer.train if e.presorted} < {e.id for e in half.train if e.presorted}


def test_what_has_learned_the_answers_is_known() -> None:
    assert set(LEARNERS) == set(BASELINES) - {"popularity", "label-prior", "bm25", "embeddings", "cross-encoder"}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_first_stage_that_knows_the_answers_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' knows the answers of 'tiny'"):
        presort_dataset(dataset("routing"), name)


def test_a_first_stage_must_suit_the_data() -> None:
    with pytest.raises(ConfigError, match="'popularity' is for recommendation"):
        presort_dataset(dataset("passage"), "popularity")
    with pytest.raises(ConfigError, match=r"did you mean 'bm25'\?"):
        presort_dataset(dataset("passage"), "bm52")


def test_the_label_prior_leaves_its_own_out_too() -> None:
    given = dataset("routing")  # counts 3 and 1; its lists chose c0, c1, c0, c1
    prior = fit_baseline("label-prior", given, given.train)
    assert prior.order(given.train[1]) == ("c0", "c1", "c2", "c3")
    close = replace(given, popularity={"c0": 2, "c1": 3})
    assert presort_dataset(close, "label-prior").train[1].ids[:2] == ("c0", "c1")  # 2, and 3 - 1
    assert presort_dataset(close, "label-prior").train[0].ids[:2] == ("c1", "c0")

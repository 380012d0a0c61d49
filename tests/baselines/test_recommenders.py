"""BPR and SASRec: what they learn from, items and users that are new, seeds, silence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from baseline_examples import dataset, example

from r1ranker.baselines.recommenders import BPR, SASRec, train_sequences
from r1ranker.datasets import Dataset
from r1ranker.errors import InputError
from r1ranker.types import Candidate

pytest.importorskip("cornac")

CYCLE = [[f"i{(start + k) % 6}" for k in range(5)] for start in range(6)] * 8
"""After each item comes the next, i0 after i5."""
TASTES = [["a1", "a2", "a3"], ["a2", "a3", "a4"], ["a1", "a3", "a4"], ["b1", "b2", "b3"], ["b2", "b3", "b4"]] * 6


def test_sasrec_learns_what_comes_next() -> None:
    model = SASRec(CYCLE, epochs=40, dimensions=16, length=3, negatives=8, learning_rate=0.01)
    firsts = [
        model.order(example([f"i{k}" for k in range(6)], history=(f"i{last - 1}", f"i{last}")))[0] for last in (1, 3)
    ]
    assert firsts == ["c2", "c4"]


def test_bpr_tells_tastes_apart() -> None:
    model = BPR(TASTES, [("a1", "a2"), ("b1", "b2")], epochs=100)
    candidates = ["a4", "b4"]
    assert model.order(example(candidates, history=("a1", "a2"))) == ("c0", "c1")
    assert model.order(example(candidates, history=("b1", "b2"))) == ("c1", "c0")


def test_bpr_ranks_a_user_it_does_not_know_by_biases() -> None:
    model = BPR([["a", "b"], ["a", "c"], ["a", "d"]] * 5, [])
    new = example(["d", "a"], history=("z",))
    assert model.order(new) == ("c1", "c0")
    assert model.scores(new) == model.scores(example(["d", "a"]))


def test_an_item_is_known_by_its_name_where_it_has_one() -> None:
    plain = example(["i1", "i3", "new"], history=("i0",))
    named = replace(
        plain, candidates=tuple(Candidate(c.id, "others chose it with i0", c.text) for c in plain.candidates)
    )
    for model in (SASRec(CYCLE, epochs=1), BPR(CYCLE, [("i0",)], epochs=1)):
        assert model.scores(named) == model.scores(plain)
        assert math.isfinite(model.scores(named)[0])
    learnt = Dataset("plain", (replace(named, relevance={"c1": 1.0}),), ())
    assert train_sequences(learnt) == (("i0", "i3"),)


def test_new_items_come_last_in_listed_order() -> None:
    ranked = example(["new", "i1", "", "i2"], history=("i0",))
    for model in (SASRec(CYCLE, epochs=1), BPR(CYCLE, [("i0",)], epochs=1)):
        scores = model.scores(ranked)
        assert (scores[0], scores[2]) == (-math.inf, -math.inf)
        assert all(math.isfinite(s) for s in (scores[1], scores[3]))
        assert model.order(ranked)[2:] == ("c0", "c2")


def test_without_a_known_history_sasrec_cannot_tell() -> None:
    model = SASRec(CYCLE, epochs=1)
    for history in ((), ("new",)):
        assert model.order(example(["new", "i1", "i2"], history=history)) == ("c1", "c2", "c0")


def test_the_seed_decides_and_torchs_own_stays_as_it_was() -> None:
    import torch

    ranked = example(["i1", "i2", "i3"], history=("i0",))
    before = torch.get_rng_state()
    one, again, other = (SASRec(CYCLE, seed=seed, epochs=1).scores(ranked) for seed in (1, 1, 2))
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)
    one, again, other = (BPR(CYCLE, [("i0",)], seed=seed, epochs=1).scores(ranked) for seed in (1, 1, 2))
    assert one == again != other


def test_only_the_newest_items_are_read() -> None:
    model = SASRec(CYCLE, epochs=1, length=2)
    long, short = (example(["i1", "i2"], history=history) for history in (("i5", "i4", "i3", "i0"), ("i3", "i0")))
    assert model.scores(long) == model.scores(short)


def test_only_a_users_newest_items_are_learned_from() -> None:
    scores = SASRec([["i9", *items] for items in CYCLE], epochs=1, recent=5).scores(example(["i9", "i1"]))
    assert (scores[0], scores[1]) == (-math.inf, 1.0)


@pytest.mark.filterwarnings("error")
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    SASRec(CYCLE, epochs=1)
    BPR([*CYCLE, ["i0", "i0"]], [("i0",), ()], epochs=1)
    assert capfd.readouterr() == ("", "")


def test_sequences_are_the_data_sets_or_else_its_examples() -> None:
    data = dataset("recommendation")
    assert train_sequences(data) == data.sequences
    plain = Dataset("plain", data.train, ())
    assert train_sequences(plain)[:2] == (("the cat", "rome", "heat"), ("the cat", "paris", "alien"))
    with pytest.raises(InputError, match="data set 'none' has no train user with two items"):
        train_sequences(Dataset("none", (example(["a"], query="q"),), ()))

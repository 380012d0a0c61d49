"""Baselines: hand-made orders, ties, odd inputs, and that a ranking is always a permutation."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker.baselines import BM25, Baseline, Popularity, RandomRanker
from r1ranker.errors import MissingExtraError
from r1ranker.rollout import rank_all
from r1ranker.types import Candidate, RankingExample


def example(texts: list[str], query: str = "", history: tuple[str, ...] = (), id: str = "e") -> RankingExample:
    candidates = tuple(Candidate(f"c{i}", text) for i, text in enumerate(texts))
    return RankingExample(id, "recommendation" if history else "passage", candidates, query=query, history=history)


def test_popularity_orders_by_count_and_keeps_ties_in_listed_order() -> None:
    ranking = Popularity({"c0": 1, "c2": 5, "c3": 1}).order(example(["a", "b", "c", "d", "e"]))
    assert ranking == ("c2", "c0", "c3", "c1", "c4")


def test_bm25_prefers_the_candidate_that_shares_the_query_words() -> None:
    texts = ["the cat sat", "a dog ran", "The DOG, the dog!", "nothing"]
    assert BM25().order(example(texts, query="Dog?")) == ("c2", "c1", "c0", "c3")


def test_bm25_weighs_a_rare_word_more() -> None:
    texts = ["common x", "common y", "rare z", "common w"]
    assert BM25().order(example(texts, query="common rare"))[0] == "c2"


def test_bm25_reads_the_history_where_there_is_no_query() -> None:
    assert BM25().order(example(["Heat", "Star Wars"], history=("Star Trek", "Alien")))[0] == "c1"


@pytest.mark.parametrize(
    ("texts", "query"),
    [
        (["a", "b", "c"], "zebra"),  # no overlap
        (["a", "b", "c"], ""),
        (["a", "b", "c"], "?!"),
        (["", "", ""], "a"),
        (["a b", "a b", "a b"], "a"),  # all equal, and the word in every text
        (["a"], "a"),
    ],
)
def test_bm25_keeps_listed_order_where_it_cannot_tell(texts: list[str], query: str) -> None:
    ranked = example(texts, query=query)
    assert BM25().order(ranked) == ranked.ids


def test_a_list_that_was_handed_over_in_order_gives_its_order_to_no_baseline() -> None:
    """Every text is the same: ties in the listed order would be the first stage's ranking."""
    told = [example(["a b"] * 6, query="a", id=str(k)) for k in range(12)]
    handed = [replace(e, presorted=True) for e in told]
    ranked = [trace.ranking for trace in rank_all(BM25(), handed)]
    assert all(sorted(ranking) == sorted(e.ids) for ranking, e in zip(ranked, told, strict=True))
    assert sum(ranking == e.ids for ranking, e in zip(ranked, told, strict=True)) <= 1
    turned = [replace(e.restrict(e.ids[::-1]), presorted=True) for e in told]
    assert [t.ranking for t in rank_all(BM25(), turned)] == ranked
    assert [t.ranking for t in rank_all(BM25(), told)] == [e.ids for e in told]


def test_bm25_reads_a_name_that_the_text_does_not_say() -> None:
    candidates = (Candidate("a", "a large model", "general-70b"), Candidate("b", "a large model", "coder-34b"))
    assert BM25().order(RankingExample("e", "routing", candidates, query="which coder")) == ("b", "a")


def test_bm25_tolerates_an_empty_text() -> None:
    assert BM25().order(example(["", "a b", "a"], query="a")) == ("c2", "c1", "c0")


def test_bm25_reads_words_of_any_alphabet() -> None:
    assert BM25().order(example(["кот спит", "собака Ёж"], query="ёж"))[0] == "c1"


def test_bm25_is_silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        BM25().order(example(["a b", "c"], query="a"))
    out, err = capfd.readouterr()
    assert (out, err, caplog.records) == ("", "", [])


def test_bm25_names_the_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"r1ranker\[eval\]"):
        BM25().order(example(["a"], query="a"))


def test_random_depends_on_seed_and_id_alone() -> None:
    texts = [str(i) for i in range(20)]
    one, other = example(texts, id="one"), example(texts, id="other")
    assert RandomRanker(3).order(one) == RandomRanker(3).order(one)
    assert RandomRanker(3).order(one) != RandomRanker(4).order(one)
    assert RandomRanker(3).order(one) != RandomRanker(3).order(other)


def test_random_is_uniform() -> None:
    firsts = [RandomRanker().order(example(["a", "b", "c", "d"], id=str(i)))[0] for i in range(2000)]
    assert all(abs(firsts.count(c) - 500) < 100 for c in ("c0", "c1", "c2", "c3"))  # 5 standard deviations


def test_a_trace_has_the_ranking_and_no_turns() -> None:
    (found,) = rank_all(Popularity({"c1": 1}), [example(["a", "b"])])
    assert (found.example_id, found.ranking, found.turns) == ("e", ("c1", "c0"), ())


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(max_size=12), min_size=1, max_size=8),
    query=st.text(max_size=12),
    counts=st.dictionaries(st.sampled_from([f"c{i}" for i in range(8)]), st.integers(0, 9)),
)
def test_every_baseline_ranks_every_id_once(texts: list[str], query: str, counts: dict[str, int]) -> None:
    ranked = example(texts, query=query)
    baselines: list[Baseline] = [Popularity(counts), BM25(), RandomRanker()]
    for baseline in baselines:
        assert sorted(baseline.order(ranked)) == sorted(ranked.ids)

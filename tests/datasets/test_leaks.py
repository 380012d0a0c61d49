"""A planted problem of each kind is found, alone; clean data give nothing."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import chi2

from r1ranker.datasets import Dataset, load_dataset
from r1ranker.datasets.leaks import Finding, _tail, check
from r1ranker.types import Candidate, RankingExample

WORDS = [f"word{n}" for n in range(4000)]
DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = [
    ("rec-music", "rec_music_amazon"),
    ("rec-game", "rec_game_amazon"),
    *((f"router-{name}", "router_nq6") for name in ("performance", "balance", "cost")),
    ("router-cost", "router_llmrouter9"),
    *((f"passage-{count}", "passage_selqa") for count in (5, 7, 9)),
]


def passages(count: int = 60, n: int = 5, seed: int = 0) -> Dataset:
    """Queries of eight random words, one relevant passage at a random place."""
    rng = random.Random(seed)

    def example(key: str) -> RankingExample:
        texts = [" ".join(rng.sample(WORDS, 6)) for _ in range(n)]
        return RankingExample(
            id=key,
            scenario="passage",
            candidates=tuple(Candidate(f"p{i}", text) for i, text in enumerate(texts)),
            query=" ".join(rng.sample(WORDS, 8)),
            relevance={f"p{rng.randrange(n)}": 1.0},
        )

    test = tuple(example(f"test{k}") for k in range(count // 5))
    return Dataset("passages", tuple(example(f"train{k}") for k in range(count - len(test))), test)


def users(count: int = 60, seed: int = 0) -> Dataset:
    """Users with 12 items of 300; six are the history, the seventh is among four new ones."""
    rng = random.Random(seed)
    items = [f"Item {n}" for n in range(300)]
    sequences = [rng.sample(items, 12) for _ in range(count)]

    def example(user: int) -> RankingExample:
        sequence = sequences[user]
        listed = [sequence[6], *rng.sample([item for item in items if item not in sequence], 4)]
        rng.shuffle(listed)
        return RankingExample(
            id=f"u{user}",
            scenario="recommendation",
            candidates=tuple(Candidate(item, item) for item in listed),
            history=tuple(sequence[:6]),
            relevance={sequence[6]: 1.0},
        )

    examples = [example(user) for user in range(count)]
    return Dataset("users", tuple(examples[12:]), tuple(examples[:12]), sequences=tuple(map(tuple, sequences[12:])))


def with_test(data: Dataset, **changes: object) -> Dataset:
    """The data set with its first test example changed."""
    return replace(data, test=(replace(data.test[0], **changes), *data.test[1:]))


def only(data: Dataset) -> Finding:
    findings = check(data)
    assert len(findings) == 1, findings
    return findings[0]


def test_clean_data_give_nothing() -> None:
    assert check(passages()) == []
    assert check(users()) == []
    assert check(Dataset("empty", (), ())) == []


def test_a_shared_state() -> None:
    data, twin = passages(), passages().train[3]
    shouted = tuple(Candidate(c.id + "x", c.text.upper()) for c in twin.candidates[::-1])
    planted = with_test(data, query=f" {twin.query.title()} ", candidates=shouted, relevance={"p0x": 1.0})
    assert only(planted) == Finding("shared states", "leak", 1, ("'test0' (test) is 'train3' (train) over again",))


def test_a_shared_query() -> None:
    found = only(with_test(passages(), query=passages().train[3].query.upper()))
    assert found == Finding("shared queries", "leak", 1, ("'test0' (test) has the query of 'train3' (train)",))


def test_a_shared_history() -> None:
    data = replace(users(), sequences=())
    found = only(with_test(data, history=data.train[5].history))
    assert found == Finding("shared queries", "leak", 1, ("'u0' (test) has the history of 'u17' (train)",))


def test_users_of_lists_without_groups_are_told_by_five_items_in_a_row() -> None:
    data = replace(users(), sequences=())
    assert check(data) == []
    twin = data.train[5]
    positive = next(c.text for c in twin.candidates if twin.grade(c.id))
    found = only(with_test(data, history=("Other", *twin.history[2:], positive)))
    assert found == Finding("shared users", "leak", 1, ("'u0' (test) has 5 items in a row that 'u17' (train) has too",))
    assert check(with_test(data, history=("Other", *twin.history[2:]))) == []  # four


def test_a_near_duplicate_query() -> None:
    data = passages()
    words = data.train[3].query.split()
    near = with_test(data, query=" ".join([*words[:-1], "other"]))  # 7 of 9 different words are shared
    assert check(near) == []
    assert only(near_ := with_test(data, query=" ".join([*words, "other"]))).name == "near-duplicate queries"  # 8 of 9
    assert check(near_)[0].examples == ("'test0' (test) has nearly the query of 'train3' (train)",)
    assert check(near, near_duplicates=0.7)[0].count == 1
    assert check(near_, near_duplicates=None) == []


def test_a_user_on_both_sides() -> None:
    data = users()
    later = data.sequences[4][3:9]
    found = only(with_test(data, history=later))
    assert (found.name, found.severity, found.count) == ("shared users", "leak", 1)
    assert check(with_test(data, history=later[:4])) == []  # too short a run to tell


def test_a_positive_in_the_history() -> None:
    data = users()
    positive = next(iter(data.test[0].relevance))
    found = only(with_test(data, history=(*data.test[0].history, positive.upper())))
    assert found == Finding("positives in histories", "leak", 1, (f"'u0': '{positive}'",))


def test_a_negative_that_the_user_has_later() -> None:
    data = users()
    victim, later = data.train[7], data.sequences[7][10]
    place = next(i for i, c in enumerate(victim.candidates) if not victim.grade(c.id))
    candidates = (*victim.candidates[:place], Candidate("later", later), *victim.candidates[place + 1 :])
    planted = replace(victim, candidates=candidates)
    found = only(replace(data, train=(*data.train[:7], planted, *data.train[8:])))
    assert found == Finding("the user's own items as negatives", "leak", 1, (f"'u19': '{later}'",))


@pytest.mark.parametrize(("copied", "name"), [(True, "contradicting candidates"), (False, "repeated candidates")])
def test_a_text_that_stands_twice_in_a_list(copied: bool, name: str) -> None:
    data = passages()
    first = data.test[0]
    (positive,) = (c for c in first.candidates if first.grade(c.id))
    others = [c for c in first.candidates if c is not positive]
    twin = Candidate(others[0].id, (positive if copied else others[1]).text + " ")
    candidates = tuple(twin if c is others[0] else c for c in first.candidates)
    assert only(with_test(data, candidates=candidates)) == Finding(name, "note", 1, ("'test0'",))


def test_the_same_description_under_two_names_is_no_repetition() -> None:
    llms = (Candidate("a", "a model", "A"), Candidate("b", "a model", "B"))
    assert check(Dataset("x", (), (RankingExample("1", "routing", llms, "q", relevance={"a": 1}),))) == []


def test_positives_that_stand_first_too_often() -> None:
    data = passages(200)
    train = tuple(replace(e, relevance={"p2": 1.0}) if k % 4 == 0 else e for k, e in enumerate(data.train))
    found = only(replace(data, train=train))
    assert (found.name, found.severity, found.count) == ("place of the positives", "note", 200)
    counts = [sum(bool(e.grade(f"p{n}")) for e in (*train, *data.test)) for n in range(5)]
    assert f"chi-square {sum((c - 40) ** 2 / 40 for c in counts):.1f} on 4 degrees of freedom" in found.examples[0]
    assert found.examples[1] == "in lists of 5 most of all at place 3"


def test_several_positives_are_no_reason_for_a_note() -> None:
    """Lists of two lengths with many ties: the statistic must not grow with the number of positives."""
    rng = random.Random(1)
    examples = []
    for k in range(1000):
        ids = [f"d{n}" for n in range(rng.choice((4, 6)))]
        relevance = dict.fromkeys(rng.sample(ids, rng.randint(1, len(ids))), 1.0)
        examples.append(
            RankingExample(str(k), "routing", tuple(Candidate(i, i) for i in ids), str(k), relevance=relevance)
        )
    assert check(Dataset("ties", (), tuple(examples))) == []
    planted = [replace(e, relevance={**e.relevance, "d0": 1.0}) if int(e.id) % 3 == 0 else e for e in examples]
    assert only(Dataset("ties", (), tuple(planted))).name == "place of the positives"


def test_the_statistic_by_hand() -> None:
    """60 lists of three with positives at places 1 and 2: deviations 20, 20, -40; variance 60 * 2 * 1 / (3 * 2)."""
    candidates = tuple(Candidate(i, i) for i in "abc")
    lists = [("ab", 60), ("abc", 1), ("", 1)]  # the last two tell nothing of places
    examples = [
        RankingExample(f"{ids}{k}", "passage", candidates, f"{ids}{k}", relevance=dict.fromkeys(ids, 1.0))
        for ids, count in lists
        for k in range(count)
    ]
    found = only(Dataset("x", tuple(examples), ()))
    assert found.count == 60
    assert found.examples[0].startswith("chi-square 120.0 on 2 degrees of freedom")


def test_false_alarms_are_rare() -> None:
    """120 clean data sets: at p < 0.001 an alarm in more than two would be a fault of the statistic."""
    alarms = 0
    rng = random.Random(2)
    candidates = tuple(Candidate(str(n), str(n)) for n in range(8))
    for _ in range(120):
        marks = [rng.sample(range(8), rng.choice((1, 1, 3, 7))) for _ in range(150)]
        test = tuple(
            RankingExample(str(k), "passage", candidates, f"w{k}", relevance={str(m): 1.0 for m in mark})
            for k, mark in enumerate(marks)
        )
        alarms += bool(check(Dataset("x", (), test)))
    assert alarms <= 2


@pytest.mark.parametrize(("value", "freedom"), [(0.5, 3), (11.0, 4), (30.0, 19), (60.0, 19), (45.0, 16)])
def test_the_tail_of_chi_square(value: float, freedom: int) -> None:
    assert _tail(value, freedom) == pytest.approx(chi2.sf(value, freedom), rel=0.1, abs=0.003)


def test_leaks_stand_before_notes() -> None:
    data = passages(200)
    train = tuple(replace(e, relevance={"p0": 1.0}) for e in data.train)
    planted = with_test(replace(data, train=train), query=data.train[3].query)
    assert [finding.severity for finding in check(planted)] == ["leak", "note"]


def test_six_thousand_queries_take_seconds() -> None:
    data = passages(6000, n=9)
    start = time.perf_counter()
    assert check(data) == []
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(("name", "folder"), REAL)
def test_the_real_data_sets_are_clean(name: str, folder: str) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"the real data {folder} is not beside this checkout ({DATA / folder})")
    assert [f for f in check(load_dataset(name, source=DATA / folder)) if f.severity == "leak"] == []


@pytest.mark.assets
def test_movielens_is_clean() -> None:
    assert check(load_dataset("rec-movie")) == []

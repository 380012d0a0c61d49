"""The builders on real data: counts, invariants, and the same examples for the same seed."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import pytest

from r1ranker.datasets import Dataset, load_dataset
from r1ranker.datasets.base import normalise
from r1ranker.datasets.duplicates import near_duplicate_groups

DATA = Path(__file__).parents[3] / "shared" / "data"

# name: (folder, train, test, fingerprint at seed 0); the paper's settings.
# The fingerprints are pinned: who changes how examples are drawn changes what earlier results were measured on.
EXPECTED = {
    "rec-movie": (None, 727, 182, "d0531f76fdfca704"),
    "rec-music": ("rec_music_amazon", 578, 144, "5821e4e0bc7ce234"),
    "rec-game": ("rec_game_amazon", 1934, 483, "b975f7c28037c844"),
    "router-performance": ("router_nq6", 400, 100, "8ac1ff9693a58830"),
    "router-balance": ("router_nq6", 400, 100, "5edee09d530c7f42"),
    "router-cost": ("router_nq6", 400, 100, "baccd7b20f74ba40"),
    "passage-5": ("passage_selqa", 682, 1402, "0aba40293dc17180"),
    "passage-7": ("passage_selqa", 569, 1192, "8b69657415393ffc"),
    "passage-9": ("passage_selqa", 467, 965, "8c061defac52638c"),
}
LARGE = {"router-performance": "c6eb7784cd8b193c", "router-balance": "73ec2d68938d8c93"}  # LLMRouter's scores
NAMES = [pytest.param(name, marks=pytest.mark.assets) if name == "rec-movie" else name for name in EXPECTED]
SIZE = {"rec": 20, "router": 6, "passage-5": 5, "passage-7": 7, "passage-9": 9}


def folder(name: str) -> Path:
    if not (path := DATA / name).is_dir():
        pytest.skip(f"the real data {name} is not beside this checkout ({path})")
    return path


@cache
def load(name: str, seed: int = 0) -> Dataset:
    source = EXPECTED[name][0]
    return load_dataset(name, source=folder(source) if source else None, seed=seed)


@pytest.mark.parametrize("name", NAMES)
def test_real_data(name: str) -> None:
    data = load(name)
    _, train, test, fingerprint = EXPECTED[name]
    assert (len(data.train), len(data.test), data.fingerprint()[:16]) == (train, test, fingerprint)
    assert load(name, seed=1).fingerprint() != data.fingerprint()
    size = SIZE.get(name) or SIZE[name.split("-")[0]]
    for example in data.train + data.test:
        assert len(example.candidates) == size
        assert all(example.grade(i) in (0.0, 1.0) for i in example.ids)
        assert len(example.relevance) == 1 or (example.scenario == "routing" and example.relevance)
    assert not {normalise(e.query) for e in data.train if e.query} & {normalise(e.query) for e in data.test}
    if name.startswith("rec"):
        assert len(data.sequences) == train
        assert all(len(sequence) >= 21 for sequence in data.sequences)
        for example in data.test:
            titles = [normalise(t) for t in (*example.history, *(c.text for c in example.candidates))]
            assert len(set(titles)) == 40  # no title twice, neither in the list nor from the history
    else:
        assert data.sequences == ()
        queries = [e.query for e in data.train + data.test]
        groups = near_duplicate_groups(queries)
        assert not set(groups[:train]) & set(groups[train:])


@pytest.mark.parametrize("name", LARGE)
def test_routing_at_a_larger_scale(name: str) -> None:
    data = load_dataset(name, source=folder("router_llmrouter9"))
    assert len(data.train) + len(data.test) == 6108
    assert data.fingerprint()[:16] == LARGE[name]
    assert {len(e.candidates) for e in data.test} == {9}
    assert "119 queries stand in several of the source's own splits" in data.notes
    assert "213 queries have a near-duplicate with other words and were split together with it" in data.notes
    if name == "router-performance":
        single = {normalise(e.query) for e in data.train + data.test if len(e.relevance) == 1}
        assert 680 < len(single) < 740  # about 708 of the 5,989 different queries have a single best LLM


def test_the_best_llms_are_skewed_and_often_tie() -> None:
    prior = load("router-performance").popularity
    assert len(prior) == 6
    assert sum(prior.values()) > 2 * 400
    assert "84 queries kept on which all LLMs tie as best" in load("router-performance").notes


def test_hard_negatives_are_as_hard_for_bm25_as_measured_independently() -> None:
    from r1ranker.baselines import BM25

    data = load_dataset("passage-9", source=folder("passage_selqa"), negatives="hard", near_duplicates=None)
    ranks = [BM25().order(e).index(next(iter(e.relevance))) + 1 for e in data.train + data.test]
    assert len(ranks) == 473 + 965  # of 970 test lists five have fewer than nine different sentences
    assert sum(1 / rank for rank in ranks) / len(ranks) == pytest.approx(0.839, abs=0.012)  # random negatives: 0.876


@pytest.mark.assets
def test_all_nine_are_built_within_a_minute() -> None:
    sources = {name: folder(expected[0]) if expected[0] else None for name, expected in EXPECTED.items()}
    load("rec-movie")  # fetched, where it was not yet
    start = time.process_time()
    for name, source in sources.items():
        load_dataset(name, source=source)
    assert time.process_time() - start < 60  # about 2 seconds

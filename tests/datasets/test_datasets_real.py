"""The builders on real data: counts, invariants, and the same examples for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ranker.datasets import Dataset, load_dataset
from r1ranker.datasets.base import normalise

DATA = Path(__file__).parents[3] / "shared" / "data"

# name: (folder, train, test); the paper's settings
EXPECTED = {
    "rec-music": ("rec_music_amazon", 578, 144),
    "rec-game": ("rec_game_amazon", 1934, 483),
    "router-performance": ("router_nq6", 400, 100),
    "router-balance": ("router_nq6", 400, 100),
    "router-cost": ("router_nq6", 400, 100),
    "passage-5": ("passage_selqa", 689, 1402),
    "passage-7": ("passage_selqa", 575, 1192),
    "passage-9": ("passage_selqa", 473, 970),
}
SIZE = {"rec": 20, "router": 6, "passage-5": 5, "passage-7": 7, "passage-9": 9}


def load(name: str, seed: int = 0) -> Dataset:
    folder = DATA / EXPECTED[name][0]
    if not folder.is_dir():
        pytest.skip(f"the real data {folder.name} is not beside this checkout ({folder})")
    return load_dataset(name, source=folder, seed=seed)


@pytest.mark.parametrize("name", EXPECTED)
def test_real_data(name: str) -> None:
    data = load(name)
    assert (len(data.train), len(data.test)) == EXPECTED[name][1:]
    size = SIZE.get(name) or SIZE[name.split("-")[0]]
    for example in data.train + data.test:
        assert len(example.candidates) == size
        assert all(example.grade(i) in (0.0, 1.0) for i in example.ids)
        assert len(example.relevance) == 1 or (example.scenario == "routing" and example.relevance)
    assert not {normalise(e.query) for e in data.train if e.query} & {normalise(e.query) for e in data.test}
    if name.startswith("rec"):
        for example in data.test:
            titles = [normalise(t) for t in (*example.history, *(c.text for c in example.candidates))]
            assert len(set(titles)) == 40  # no title twice, neither in the list nor from the history
    assert data.fingerprint() == load(name).fingerprint()
    assert data.fingerprint() != load(name, seed=1).fingerprint()


def test_the_best_llms_are_skewed_and_often_tie() -> None:
    prior = load("router-performance").popularity
    assert len(prior) == 6
    assert sum(prior.values()) > 2 * 400
    assert "84 queries kept on which all LLMs tie as best" in load("router-performance").notes


def test_examples_are_the_same_on_every_machine() -> None:
    """Pinned: who changes how examples are drawn changes what earlier results were measured on."""
    prints = {name: load(name).fingerprint()[:16] for name in ("rec-music", "router-balance", "passage-5")}
    assert prints == {
        "rec-music": "5821e4e0bc7ce234",
        "router-balance": "5edee09d530c7f42",
        "passage-5": "bbbcc393d2df75e1",
    }

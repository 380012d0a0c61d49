"""Results that are kept: what tells them apart, and what a kill leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factories import example
from r1ranker.benchmark.cache import Chunk, ResultCache, chunk_key
from r1ranker.errors import InputError, R1RankerError
from r1ranker.evaluation import Outcome
from r1ranker.types import Candidate

EXAMPLES = (example(id="e1"), example(id="e2"))
CHUNK = Chunk(
    (
        Outcome("e1", ("c2", "c1", "c3", "c4"), 3, 300, 30, 200, {"exact": 2, "failed": 1}, 1),
        Outcome("e2", ("c1", "c2", "c3", "c4")),
    ),
    1.5,
    0.1 + 0.2,  # a number whose digits show any loss
    ("the server refuses 'temperature'",),
)
IDENTITY = {"model": "m"}


def test_a_chunk_comes_back_as_it_was_also_from_disk(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "new", IDENTITY)
    assert cache.get(0, EXAMPLES) is None
    cache.put(0, EXAMPLES, CHUNK)
    assert cache.get(0, EXAMPLES) == CHUNK
    again = ResultCache(tmp_path / "new", IDENTITY)
    assert again.get(0, EXAMPLES) == CHUNK
    assert again.broken == 0


def test_only_the_same_question_finds_it(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path, IDENTITY)
    cache.put(0, EXAMPLES, CHUNK)
    assert cache.get(1, EXAMPLES) is None
    assert cache.get(0, EXAMPLES[::-1]) is None
    assert cache.get(0, EXAMPLES[:1]) is None
    assert ResultCache(tmp_path, {"model": "n"}).get(0, EXAMPLES) is None


def test_grades_and_groups_are_no_part_of_the_key() -> None:
    key = chunk_key(IDENTITY, 0, EXAMPLES)
    graded = (replace(EXAMPLES[0], relevance={"c2": 3.0}, group="g"), replace(EXAMPLES[1], relevance={}))
    assert chunk_key(IDENTITY, 0, graded) == key
    first = EXAMPLES[0].candidates
    for change in (
        {"candidates": (replace(first[0], text="Toy Story (1996)"), *first[1:])},
        {"candidates": (replace(first[0], name="Toy"), *first[1:])},
        {"candidates": (*first[1:], first[0])},
        {"candidates": (*first, Candidate("c5", "Jaws"))},
        {"history": ("Rocky (1976)",)},
        {"query": "a query"},
        {"item_type": "film"},
        {"id": "e9"},
        {"scenario": "passage", "history": ()},
    ):
        assert chunk_key(IDENTITY, 0, (replace(EXAMPLES[0], **change), EXAMPLES[1])) != key, change


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_half_a_line_is_passed_over_and_what_follows_is_kept(tmp_path: Path, cut: int) -> None:
    cache = ResultCache(tmp_path, IDENTITY)
    cache.put(0, EXAMPLES, CHUNK)
    cache.put(1, EXAMPLES, CHUNK)
    whole = cache.path.read_bytes()
    cache.path.write_bytes(whole[:-cut])  # a cut of 1 takes the line's end alone: the line can still be read
    torn = ResultCache(tmp_path, IDENTITY)
    assert torn.broken == (cut > 1)
    assert torn.get(0, EXAMPLES) == CHUNK
    assert torn.get(1, EXAMPLES) == (None if cut > 1 else CHUNK)
    torn.put(2, EXAMPLES, CHUNK)
    torn.put(1, EXAMPLES, CHUNK)
    mended = ResultCache(tmp_path, IDENTITY)
    assert [mended.get(seed, EXAMPLES) for seed in range(3)] == [CHUNK] * 3
    assert mended.broken == (cut > 1)


@pytest.mark.parametrize("line", [b"[]", b"3", b"{}", b'{"key": 1, "outcomes": 3}', b"\xff\xfe", b'{"outcomes": [3]}'])
def test_what_is_no_result_is_counted(tmp_path: Path, line: bytes) -> None:
    cache = ResultCache(tmp_path, IDENTITY)
    cache.put(0, EXAMPLES, CHUNK)
    cache.path.write_bytes(line + b"\n\n" + cache.path.read_bytes())
    read = ResultCache(tmp_path, IDENTITY)
    assert read.broken == 1
    assert read.get(0, EXAMPLES) == CHUNK


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(R1RankerError, match="cannot write"):
        ResultCache(tmp_path / "file", IDENTITY).put(0, EXAMPLES, CHUNK)


def test_where_nothing_can_be_read_it_says_so(tmp_path: Path) -> None:
    ResultCache(tmp_path, IDENTITY).path.mkdir()
    with pytest.raises(InputError, match="cannot read"):
        ResultCache(tmp_path, IDENTITY)

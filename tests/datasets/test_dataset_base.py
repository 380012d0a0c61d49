from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.datasets import Dataset, split_groups
from r1ranker.datasets.base import json_lines, normalise
from r1ranker.errors import InputError
from r1ranker.types import Candidate, RankingExample

A = RankingExample("a", "passage", (Candidate("1", "x"), Candidate("2", "y")), query="q", group="g")
B = replace(A, id="b", group="h")


@given(st.lists(st.text(max_size=3)), st.floats(0, 1), st.integers(0, 9))
def test_a_split_never_leaks_and_forgets_nothing(groups: list[str], fraction: float, seed: int) -> None:
    train, test = split_groups(groups, test_fraction=fraction, rng=random.Random(seed))
    assert sorted(train + test) == sorted(set(groups))
    assert len(test) == round(fraction * len(set(groups)))


def test_a_split_depends_on_the_keys_and_the_seed_alone() -> None:
    keys = [str(i) for i in range(50)]
    split = split_groups(keys, test_size=10, rng=random.Random(1))
    assert split == split_groups(keys[::-1] * 2, test_size=10, rng=random.Random(1))
    assert split != split_groups(keys, test_size=10, rng=random.Random(2))
    larger = split_groups(keys, test_size=20, rng=random.Random(1))
    assert larger[1][:10] == split[1]


def test_sizes_that_are_not_to_be_had_are_refused() -> None:
    with pytest.raises(InputError, match="3 test groups are asked for, but there are 2"):
        split_groups("ab", test_size=3, rng=random.Random(0))
    with pytest.raises(InputError, match=r"test_fraction is 1\.5"):
        split_groups("ab", test_fraction=1.5, rng=random.Random(0))


def test_a_data_set_refuses_double_ids_and_groups_on_both_sides() -> None:
    with pytest.raises(InputError, match="'a' stands twice"):
        Dataset("d", (A,), (A,))
    with pytest.raises(InputError, match="group 'g' is in both train and test"):
        Dataset("d", (A,), (replace(B, group="g"),))
    Dataset("d", (replace(A, group=""),), (replace(B, group=""),))  # no group is not a common group


def test_the_fingerprint_tells_data_sets_apart() -> None:
    base = Dataset("d", (A,), (B,))
    assert base.sequences == ()
    assert base.fingerprint() == Dataset("other name", (A,), (B,), {"1": 3}, ("note",), (("x",),)).fingerprint()
    variants = [
        Dataset("d", (B,), (A,)),
        Dataset("d", (A, B), ()),
        Dataset("d", (replace(A, query="Q"),), (B,)),
        Dataset("d", (replace(A, relevance={"1": 1.0}),), (B,)),
        Dataset("d", (A.restrict(["2", "1"]),), (B,)),
    ]
    assert len({base.fingerprint(), *(v.fingerprint() for v in variants)}) == 6


def test_json_lines_are_read_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n[2]\n')
    assert list(json_lines(path)) == [(1, {"a": 1}), (3, [2])]
    path.write_text("\n1\n{")
    with pytest.raises(InputError, match=r"a\.jsonl:3: not valid JSON .*: repair or remove the line"):
        list(json_lines(path))
    path.write_text("\n\n")
    with pytest.raises(InputError, match=r"a\.jsonl is empty: check that the download is complete"):
        list(json_lines(path))


def test_normalise_ignores_case_and_spacing() -> None:
    assert normalise("  The\tMATRIX \n") == "the matrix"

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.datasets.duplicates import near_duplicate_groups, note_near_duplicates, similar_pairs, words_of
from r1ranker.errors import InputError

SETS = st.lists(st.frozensets(st.sampled_from("abcdefgh"), min_size=1), max_size=12)


def test_four_of_five_words_are_enough() -> None:
    texts = ["who wrote the book", "Who wrote THE red book?", "who read the book"]
    # 4 of 5 words = 0.8; 3 of 5 = 0.6.
    assert near_duplicate_groups(texts) == ["who wrote the book", "who wrote the book", "who read the book"]
    assert len(set(near_duplicate_groups(texts, 0.81))) == 3
    assert len(set(near_duplicate_groups(texts, 0.6))) == 1


def test_groups_are_connected_by_chains_and_named_by_the_first_in_the_alphabet() -> None:
    texts = ["c d e f g", "z", "b c d e f g", "a b c d e f g"]  # 5 of 6, 6 of 7, and 5 of 7 between the ends
    assert near_duplicate_groups(texts) == ["a b c d e f g", "z", "a b c d e f g", "a b c d e f g"]
    assert near_duplicate_groups([texts[0], texts[3]]) == [texts[0], texts[3]]


def test_equal_texts_are_together_whatever_the_threshold_and_order_of_words_does_not_count() -> None:
    texts = ["A  b", "a b\n", "b, a!", "?!", "?!", "..."]
    assert near_duplicate_groups(texts, 1.0) == ["a b", "a b", "a b", "?!", "?!", "..."]
    assert near_duplicate_groups(texts, None) == ["a b", "a b", "b, a!", "?!", "?!", "..."]
    assert near_duplicate_groups([]) == []


def test_words() -> None:
    assert words_of("Straße, é_1 -- l'été!") == {"strasse", "é_1", "l", "été"}


@given(SETS, st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 1.0]))
def test_the_join_finds_exactly_the_similar_pairs(sets: list[frozenset[str]], threshold: float) -> None:
    expected = [
        (i, j)
        for i, j in itertools.combinations(range(len(sets)), 2)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold - 1e-12
    ]
    assert sorted(similar_pairs(sets, threshold)) == expected


def test_rounding_loses_no_pair() -> None:
    # 14 of 25, although 0.56 * 25 > 14 in floating point.
    assert list(similar_pairs([frozenset(map(str, range(25))), frozenset(map(str, range(14)))], 0.56)) == [(0, 1)]
    assert list(similar_pairs([frozenset(map(str, range(25))), frozenset(map(str, range(13)))], 0.56)) == []


@given(st.lists(st.text("ab ?", max_size=6), max_size=8), st.randoms())
def test_the_order_of_the_texts_does_not_count(texts: list[str], rng: random.Random) -> None:
    groups = dict(zip(texts, near_duplicate_groups(texts, 0.5), strict=True))
    rng.shuffle(texts)
    assert dict(zip(texts, near_duplicate_groups(texts, 0.5), strict=True)) == groups


def test_thousands_of_texts_with_common_words_are_no_trouble() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    weights = [1 / (i + 1) for i in range(3000)]
    texts = [" ".join(rng.choices(words, weights, k=rng.randint(5, 40))) for _ in range(6000)]
    start = time.process_time()
    groups = near_duplicate_groups([*texts, texts[5999] + " novel"])
    assert time.process_time() - start < 10  # about 1 second; all pairs would take minutes
    assert groups[5999] == groups[6000]


def test_near_duplicates_are_counted_and_equal_texts_are_not() -> None:
    texts = ["a b c d", "a b c d e", "A b c d", "x", "X"]
    notes: list[str] = []
    note_near_duplicates(notes, texts, near_duplicate_groups(texts))
    assert notes == ["3 queries have a near-duplicate with other words and were split together with it"]
    note_near_duplicates(notes, texts, near_duplicate_groups(texts, None))
    assert len(notes) == 1


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_must_be_a_part(threshold: float) -> None:
    with pytest.raises(InputError, match="it must be above 0 and at most 1"):
        near_duplicate_groups(["a"], threshold)

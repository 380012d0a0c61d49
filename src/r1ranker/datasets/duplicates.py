"""Texts that share most of their words: an exact set-similarity join, and the groups that it connects.

Source: prefix filtering as in Chaudhuri, Ganti and Kaushik (2006) and Bayardo, Ma and Srikant (2007).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from r1ranker.datasets.base import normalise, note
from r1ranker.errors import InputError
from r1ranker.types import RankingExample

SAME_USER = 5
"""Items in a row, from which on two lists are taken to be of one user; a shorter run may be shared by chance."""
_ROUNDING = 1e-9  # 0.56 * 25 is a little more than 14 in floating point


def near_duplicate_groups(texts: Sequence[str], threshold: float | None = 0.8) -> list[str]:
    """The key of each text's group, in the order of `texts`.

    Two texts belong together where the Jaccard similarity of their sets of words (runs of letters, digits
    and underscores; case aside) is at least `threshold` (above 0, at most 1), and so do texts that a chain
    of such pairs connects. Texts that are equal but for case and spacing always do; with None, only these.
    A group's key is the first in alphabetical order of its texts, normalised: it depends on the set of
    texts alone, not on their order. Raises InputError for another threshold.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"the threshold for near-duplicates is {threshold}; it must be above 0 and at most 1, or None")
    keys = [normalise(text) for text in texts]
    if threshold is None:
        return keys
    by_words: dict[frozenset[str], str] = {}
    groups = _Groups(keys)
    for key in dict.fromkeys(keys):
        # A text without any word is like nothing but itself.
        if words := words_of(key):
            groups.join(key, by_words.setdefault(words, key))
    sets = list(by_words)
    for a, b in similar_pairs(sets, threshold):
        groups.join(by_words[sets[a]], by_words[sets[b]])
    return [groups.find(key) for key in keys]


def connected(keys: Sequence[str], signs: Sequence[Iterable[Hashable]]) -> list[str]:
    """Groups that are one where two of their members share a sign; each is called by its first key in the alphabet."""
    groups = _Groups(keys)
    owner: dict[Hashable, str] = {}
    for key, own in zip(keys, signs, strict=True):
        for sign in own:
            groups.join(key, owner.setdefault(sign, key))
    return [groups.find(key) for key in keys]


class _Groups:
    """Union-find over texts; a group is called by the first of its texts in the alphabet."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._leader = {key: key for key in keys}

    def find(self, key: str) -> str:
        leader = self._leader
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._leader[second] = first


def chosen(example: RankingExample) -> tuple[str, ...]:
    """What a user chose, oldest first: the history, and the positive where it is one; nothing without a history."""
    positives = [c.text for c in example.candidates if example.grade(c.id) > 0]
    return (*example.history, *(positives if len(positives) == 1 else ())) if example.history else ()


def past_of(example: RankingExample) -> str:
    """The history of a list without a query, as it is compared; empty for a list with one."""
    return "" if example.query.strip() else "past: " + normalise(" | ".join(example.history))


def runs_of(items: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """All runs of so many items that stand one after the other, normalised."""
    plain = tuple(map(normalise, items))
    return [plain[start : start + length] for start in range(len(plain) - length + 1)]


def note_near_duplicates(notes: list[str], texts: Sequence[str], groups: Sequence[str]) -> None:
    """Tell how many texts share a group with one that differs in more than case and spacing."""
    members = defaultdict(set)
    for text, group in zip(texts, groups, strict=True):
        members[group].add(normalise(text))
    count = sum(len(members[group]) > 1 for group in groups)
    note(notes, count, "queries have a near-duplicate with other words and were split together with it")


def words_of(text: str) -> frozenset[str]:
    """The set of words by which texts are compared."""
    return frozenset(re.findall(r"\w+", normalise(text)))


def similar_pairs(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """All pairs of places (i < j) whose sets, none empty, have a Jaccard similarity >= threshold.

    Two such sets share at least ceil(threshold * size) members of either, so each has one among its
    size - ceil(threshold * size) + 1 rarest that the other one has among its own: only these are indexed.
    """
    frequency = Counter(word for members in sets for word in members)
    holders: dict[str, list[int]] = defaultdict(list)  # a word -> sets that have it among their rarest, by size
    for place in sorted(range(len(sets)), key=lambda place: len(sets[place])):
        mine = sets[place]
        least = math.ceil(threshold * len(mine) - _ROUNDING)  # what a similar set that is no larger must share
        rarest = sorted(mine, key=lambda word: (frequency[word], word))[: len(mine) - least + 1]
        for other in dict.fromkeys(o for word in rarest for o in holders[word] if len(sets[o]) >= least):
            shared = len(mine & sets[other])
            if shared >= threshold * (len(mine) + len(sets[other]) - shared) - _ROUNDING:
                yield min(place, other), max(place, other)
        for word in rarest:
            holders[word].append(place)

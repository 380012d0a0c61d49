"""What would make a data set's figures better than they should be, looked for rather than assumed away.

A group on both sides of the split is not looked for: `Dataset` refuses it. These checks read the texts, and so
they also find what the groups do not tell.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from r1ranker.datasets.base import Dataset, normalise
from r1ranker.datasets.duplicates import SAME_USER, chosen, near_duplicate_groups, runs_of
from r1ranker.types import RankingExample

_NAMED = 3  # offenders that a finding names
_NOTES = ("contradicting candidates", "repeated candidates")
_RARE = 0.001
_LEAST_EXPECTED = 5.0  # positives expected at each place, below which chi-square is no good approximation

Context = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    severity: "leak": figures measured on these data are too good; "note": worth knowing, and no leak.
    count: how many examples it touches. examples: the first few of them, in words.
    """

    name: str
    severity: Literal["leak", "note"]
    count: int
    examples: tuple[str, ...]


def check(dataset: Dataset, near_duplicates: float | None = 0.8) -> list[Finding]:
    """All that is found, leaks first; an empty list for clean data.

    - shared states: a test example with a train example's query (or history) and the same set of candidates
    - shared queries: with its query or history only
    - near-duplicate queries: with a query that shares `near_duplicates` of its words with a train one (see
      near_duplicate_groups); None leaves this out. A test example counts under the first of these three only.
    - shared users: a test history that stands as a run of 5 items or more in a train user's sequence; where neither
      sequences nor groups tell users apart, any 5 items in a row that a train list has too
    - positives in histories: a relevant candidate that the history names
    - the user's own items as negatives: a train example's negative that stands in that user's sequence. It
      cannot be told for test users, whose sequences a data set does not hold.
    Notes:
    - contradicting candidates: the same text twice in a list, with different grades, so that no ranker can
      get the list right
    - repeated candidates: the same text twice in a list, with the same grade
    - place of the positives: they stand at some places of the lists more often than chance allows
      (p < 0.001 by chi-square); in lists that a first stage has sorted, that is as it should be.
    Texts are compared with case and spacing aside.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name, offender in (
        *_shared(dataset, near_duplicates),
        *_users(dataset),
        *(pair for e in (*dataset.train, *dataset.test) for pair in _inside(e)),
    ):
        found[name].append(offender)
    findings = [
        Finding(name, "note" if name in _NOTES else "leak", len(offenders), tuple(offenders[:_NAMED]))
        for name, offenders in found.items()
    ]
    if (place := _places((*dataset.train, *dataset.test))) is not None:
        findings.append(place)
    return sorted(findings, key=lambda finding: finding.severity)


def _context(example: RankingExample) -> Context:
    return normalise(example.query), tuple(map(normalise, example.history))


def _shared(dataset: Dataset, near_duplicates: float | None) -> Iterator[tuple[str, str]]:
    states: dict[tuple[Context, frozenset[str]], str] = {}
    contexts: dict[Context, str] = {}
    for e in dataset.train:
        contexts.setdefault(_context(e), e.id)
        states.setdefault((_context(e), _texts(e)), e.id)
    similar = _near(dataset, near_duplicates)
    for e in dataset.test:
        context = _context(e)
        if twin := states.get((context, _texts(e))):
            yield "shared states", f"'{e.id}' (test) is '{twin}' (train) over again"
        elif twin := contexts.get(context):
            yield "shared queries", f"'{e.id}' (test) has the {_kind(e)} of '{twin}' (train)"
        elif twin := similar.get(e.query):
            yield "near-duplicate queries", f"'{e.id}' (test) has nearly the query of '{twin}' (train)"


def _near(dataset: Dataset, threshold: float | None) -> Mapping[str, str]:
    """A test query -> the id of a train example with nearly that query, where there is one."""
    train = {e.query: e.id for e in reversed(dataset.train) if e.query and not e.history}
    test = list(dict.fromkeys(e.query for e in dataset.test if e.query and not e.history))
    if threshold is None or not train or not test:
        return {}
    groups = near_duplicate_groups([*train, *test], threshold)
    trained = dict(zip(groups, train.values(), strict=False))
    return {query: trained[group] for query, group in zip(test, groups[len(train) :], strict=True) if group in trained}


def _users(dataset: Dataset) -> Iterator[tuple[str, str]]:
    sequences = [tuple(map(normalise, sequence)) for sequence in dataset.sequences]
    lengths = {len(e.history) for e in (*dataset.train, *dataset.test)}
    owner = {
        sequence[start : start + length]: number
        for length in lengths
        if length >= SAME_USER
        for number, sequence in enumerate(sequences)
        for start in range(len(sequence) - length + 1)
    }
    told = {_context(e) for e in dataset.train}  # as shared queries
    lists = {run: e.id for e in dataset.train if not e.group and not sequences for run in runs_of(chosen(e), SAME_USER)}
    for e in dataset.test:
        runs = () if e.group or _context(e) in told else runs_of(chosen(e), SAME_USER)
        if _context(e)[1] in owner:
            yield "shared users", f"'{e.id}' (test) has a run of items that a train user has"
        elif twin := next((lists[run] for run in runs if run in lists), ""):
            yield "shared users", f"'{e.id}' (test) has {SAME_USER} items in a row that '{twin}' (train) has too"
    for e in dataset.train:
        if (number := owner.get(_context(e)[1])) is not None:
            own = set(sequences[number])
            if mine := [c.text for c in e.candidates if e.grade(c.id) == 0 and normalise(c.text) in own]:
                yield "the user's own items as negatives", f"'{e.id}': '{mine[0]}'"


def _inside(example: RankingExample) -> Iterator[tuple[str, str]]:
    """What is wrong with one list by itself."""
    past = set(map(normalise, example.history))
    if again := [c.text for c in example.candidates if example.grade(c.id) > 0 and normalise(c.text) in past]:
        yield "positives in histories", f"'{example.id}': '{again[0]}'"
    grades: dict[tuple[str, str], set[float]] = defaultdict(set)
    for c in example.candidates:
        grades[normalise(c.text), normalise(c.name or "")].add(example.grade(c.id))
    if any(len(given) > 1 for given in grades.values()):
        yield "contradicting candidates", f"'{example.id}'"
    elif len(grades) < len(example.candidates):
        yield "repeated candidates", f"'{example.id}'"


def _places(examples: Sequence[RankingExample]) -> Finding | None:
    """Chi-square over the places of the positives, lists of each length apart, added up.

    Of k positives among n candidates in random order, each place's count has the variance that k draws
    without replacement have, so the sum of squares over (n / (n - 1)) times that variance is chi-square with
    n - 1 degrees of freedom; with k = 1 this is Pearson's statistic.
    """
    deviation: dict[int, list[float]] = {}
    variance: defaultdict[int, float] = defaultdict(float)
    lists: Counter[int] = Counter()
    for e in examples:
        n, marks = len(e.candidates), [e.grade(i) > 0 for i in e.ids]
        k = sum(marks)
        if 0 < k < n:
            row = deviation.setdefault(n, [0.0] * n)
            deviation[n] = [sum_ + mark - k / n for sum_, mark in zip(row, marks, strict=True)]
            variance[n] += k * (n - k) / (n * (n - 1))
            lists[n] += 1
    lengths = [n for n in deviation if variance[n] >= _LEAST_EXPECTED]
    if not lengths:
        return None
    chi_square = sum(sum(d * d for d in deviation[n]) / variance[n] for n in lengths)
    freedom = sum(n - 1 for n in lengths)
    if (p := _tail(chi_square, freedom)) >= _RARE:
        return None
    n = max(lengths, key=lambda length: lists[length])
    favourite = max(range(n), key=lambda place: deviation[n][place])
    told = (
        f"chi-square {chi_square:.1f} on {freedom} degrees of freedom, p = {p:.1g}",
        f"in lists of {n} most of all at place {favourite + 1}",
    )
    return Finding("place of the positives", "note", sum(lists[n] for n in lengths), told)


def _tail(chi_square: float, freedom: int) -> float:
    """The probability of a larger value. Source: the approximation of Wilson and Hilferty (1931)."""
    step = 2 / (9 * freedom)
    return math.erfc(((chi_square / freedom) ** (1 / 3) - 1 + step) / math.sqrt(2 * step)) / 2


def _texts(example: RankingExample) -> frozenset[str]:
    return frozenset(normalise(c.text) for c in example.candidates)


def _kind(example: RankingExample) -> str:
    return "history" if example.history else "query"

"""MS MARCO v1.1 question answering -> passage examples: which passage answers the query?

Source: R1-Ranker (arXiv 2506.21638): exactly one selected passage, 5 / 7 / 9 candidates, at most 2,600
characters in all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from r1ranker.datasets.base import Dataset, json_lines, normalise, note, split_groups
from r1ranker.datasets.duplicates import near_duplicate_groups, note_near_duplicates
from r1ranker.datasets.hard_negatives import ranked_by_bm25
from r1ranker.datasets.parquet import read_parquet
from r1ranker.errors import InputError
from r1ranker.types import Candidate, RankingExample

Negatives = Literal["given", "random", "hard"]


@dataclass(frozen=True)
class JudgedQuery:
    """A query and its passages in the source's order.

    selected: the places (from 0) of the answers. repeated: places that say what another one says.
    """

    key: str
    query: str
    passages: tuple[str, ...]
    selected: tuple[int, ...]
    repeated: frozenset[int] = frozenset()

    @property
    def places(self) -> list[int]:
        """The places that can be candidates."""
        return [place for place in range(len(self.passages)) if place not in self.repeated]


def read_ms_marco(path: Path) -> list[JudgedQuery]:
    """Read MS MARCO's JSON lines (plain or .gz), or the same fields in parquet (.parquet).

    `passages` is an object of lists (`passage_text`, `is_selected`) or a list of objects with these keys;
    other fields are ignored. Raises InputError with file and line (parquet: row) for a malformed one.
    """
    stem = path.name.split(".")[0]
    rows: Iterator[tuple[int, Any]]
    if path.suffix == ".parquet":
        rows = read_parquet(path, ("query", "passages"), optional=("query_id",))
    else:
        rows = json_lines(path)
    queries = []
    for number, row in rows:
        try:
            queries.append(_query(row, f"{stem}:{number}"))
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}: repair or remove it") from error
    if not queries:
        raise InputError(f"{path} holds no rows: check that the download is complete")
    return queries


def build_passage(
    paths: Sequence[Path],
    *,
    name: str,
    candidates: int = 5,
    exact: bool = False,
    negatives: Negatives = "given",
    max_characters: int | None = 2600,
    near_duplicates: float | None = 0.8,
    test_fraction: float = 0.2,
    test_paths: Sequence[Path] = (),
    seed: int = 0,
) -> Dataset:
    """One example a query with exactly one selected passage: it and `candidates - 1` others, shuffled.

    candidates: how many passages an example has; shorter lists are dropped.
    exact: drop longer lists too, as the paper does.
    negatives: "given" takes the list's first passages in their order, "random" draws them uniformly, "hard"
        takes those with the highest BM25 score for the query, ties in the list's order (the list being the
        collection; needs bm25s). In each case the selected passage is among the candidates. A candidate's id
        tells its place in the source's list ("p1", "p2", ...); it is for looking things up, and not for the
        model to read: an answer far down the list stands out by it.
    max_characters: drop lists whose candidates are longer in all; None keeps them.
    near_duplicates: queries that share this part of their words (Jaccard similarity, see duplicates) stay on
        one side; None: only those with the same text (case and spacing aside), which always do.
    test_fraction: the part of the groups of queries that is held out where there are no `test_paths`.
    test_paths: the files to test on; train lists whose query is (nearly) a test query are dropped.
    seed: decides the split, random negatives, and the order in which each example lists the passages.
    A passage that repeats another one of its list (case and spacing aside) is no candidate, for it would be
    right and wrong at once, or count twice. Lists that do not qualify are dropped and counted. Raises
    InputError for files or numbers that cannot be used, MissingExtraError for "hard" without bm25s or a
    parquet file without pyarrow.
    """
    if candidates < 2:
        raise InputError(f"candidates is {candidates}; it must be at least 2")
    if negatives not in get_args(Negatives):
        raise InputError(f"negatives is '{negatives}'; it must be one of {', '.join(get_args(Negatives))}")
    notes: list[str] = []

    def examples(files: Sequence[Path], side: str) -> list[RankingExample]:
        lists = [_distinct(query) for path in files for query in read_ms_marco(path)]
        note(
            notes, sum(len(q.repeated) for q in lists), f"{side}passages left out that repeat another one of their list"
        )
        kept = _qualifying(lists, candidates, exact, ", ".join(map(str, files)), side, notes)
        built = [_example(query, name, candidates, negatives, seed) for query in kept]
        short = [e for e in built if max_characters is None or _characters(e) <= max_characters]
        note(notes, len(built) - len(short), f"{side}lists dropped: more than {max_characters} characters in all")
        if not short:
            raise InputError(
                f"{', '.join(map(str, files))}: no list of {candidates} passages has at most {max_characters} "
                f"characters, the shortest has {min(map(_characters, built))}: raise max_characters"
            )
        blank = sum(any(not c.text.strip() for c in e.candidates) for e in short)
        note(notes, blank, f"{side}lists kept although a passage is blank")
        return short

    train = examples(paths, "train " if test_paths else "")
    test = examples(test_paths, "test ") if test_paths else []
    both = [*train, *test]
    keys = near_duplicate_groups([e.query for e in both], near_duplicates)
    both = [replace(example, group=key) for example, key in zip(both, keys, strict=True)]
    train, test = both[: len(train)], both[len(train) :]
    if test_paths:
        train = _untested(train, test, notes)
    note_near_duplicates(notes, [e.query for e in (*train, *test)], [e.group for e in (*train, *test)])
    groups: dict[str, list[RankingExample]] = {}
    for example in (*train, *test):
        groups.setdefault(example.group, []).append(example)
    if test_paths:
        rng = random.Random(f"{seed}:split")
        train_keys, _ = split_groups([e.group for e in train], test_size=0, rng=rng)
        _, test_keys = split_groups([e.group for e in test], test_fraction=1.0, rng=rng)
    else:
        train_keys, test_keys = split_groups(groups, test_fraction=test_fraction, rng=random.Random(f"{seed}:split"))
    return Dataset(
        name=name,
        train=tuple(example for key in train_keys for example in groups[key]),
        test=tuple(example for key in test_keys for example in groups[key]),
        notes=tuple(notes),
    )


def _qualifying(
    lists: Sequence[JudgedQuery], candidates: int, exact: bool, where: str, side: str, notes: list[str]
) -> list[JudgedQuery]:
    """The lists with exactly one selected passage and at least (or exactly) `candidates` in all."""
    single = [query for query in lists if len(query.selected) == 1]
    if not single:
        raise InputError(f"{where}: no list has exactly one selected passage: give a file that marks one")
    note(notes, len(lists) - len(single), f"{side}lists dropped: not exactly one passage is selected")
    enough = [query for query in single if len(query.places) >= candidates]
    if not enough:
        longest = max(len(query.places) for query in single)
        raise InputError(f"{where}: no list has {candidates} passages, the longest has {longest}: lower candidates")
    note(notes, len(single) - len(enough), f"{side}lists dropped: fewer than {candidates} passages")
    if not exact:
        return enough
    fitting = [query for query in enough if len(query.places) == candidates]
    if not fitting:
        raise InputError(f"{where}: no list has exactly {candidates} passages: change candidates or drop exact")
    note(notes, len(enough) - len(fitting), f"{side}lists dropped: more than {candidates} passages")
    return fitting


def _distinct(query: JudgedQuery) -> JudgedQuery:
    """The query with the places noted that repeat an answer or, but for case and spacing, an earlier passage."""
    texts = [normalise(passage) for passage in query.passages]
    seen: set[str] = set()
    repeated = set()
    for place in sorted(range(len(texts)), key=lambda place: place not in query.selected):  # answers come first
        if texts[place] in seen and place not in query.selected:
            repeated.add(place)
        seen.add(texts[place])
    return replace(query, repeated=frozenset(repeated))


def _untested(
    train: Sequence[RankingExample], test: Sequence[RankingExample], notes: list[str]
) -> list[RankingExample]:
    """The train examples whose query is neither a test query nor a near-duplicate of one."""
    queries = {normalise(example.query) for example in test}
    new = [example for example in train if normalise(example.query) not in queries]
    note(notes, len(train) - len(new), "train lists dropped: the query is a test query")
    groups = {example.group for example in test}
    kept = [example for example in new if example.group not in groups]
    note(notes, len(new) - len(kept), "train lists dropped: the query is a near-duplicate of a test query")
    return kept


def _example(query: JudgedQuery, name: str, candidates: int, negatives: Negatives, seed: int) -> RankingExample:
    rng = random.Random(f"{seed}:query:{query.key}")
    answer = query.selected[0]
    others = [place for place in query.places if place != answer]
    if negatives == "random":
        taken = rng.sample(others, candidates - 1)
    else:
        if negatives == "hard":
            (ranked,) = ranked_by_bm25([query.query], query.passages)
            others = [place for place in ranked if place in others]
        taken = others[: candidates - 1]
    places = sorted([answer, *taken])
    rng.shuffle(places)
    return RankingExample(
        id=f"{name}:{query.key}",
        scenario="passage",
        candidates=tuple(Candidate(f"p{place + 1}", query.passages[place]) for place in places),
        query=query.query,
        relevance={f"p{answer + 1}": 1.0},
        item_type="passage",
    )


def _characters(example: RankingExample) -> int:
    return sum(len(candidate.text) for candidate in example.candidates)


def _query(row: Any, key: str) -> JudgedQuery:
    passages = row.get("passages") if isinstance(row, dict) else None
    if isinstance(passages, list) and all(isinstance(passage, dict) for passage in passages):
        passages = {k: [passage.get(k) for passage in passages] for k in ("passage_text", "is_selected")}
    if not isinstance(passages, dict) or not isinstance(row.get("query"), str):
        raise InputError("no 'query' (a text) and 'passages' (MS MARCO's layout)")
    texts, marks = passages.get("passage_text"), passages.get("is_selected")
    if not isinstance(texts, list) or not isinstance(marks, list) or len(texts) != len(marks):
        raise InputError("'passage_text' and 'is_selected' must be lists of the same length")
    if not all(isinstance(text, str) for text in texts) or not all(mark in (0, 1) for mark in marks):
        raise InputError("'passage_text' must hold texts, and 'is_selected' 0 or 1")
    # The key is what an example id ends in: the source's own query id, or where the line stands.
    if isinstance(own := row.get("query_id"), (str, int)):
        key = f"{key.split(':')[0]}:{own}"
    selected = tuple(place for place, mark in enumerate(marks) if mark)
    return JudgedQuery(key, row["query"], tuple(texts), selected)

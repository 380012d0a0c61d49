"""MS MARCO v1.1 question answering as JSON lines -> passage examples: which passage answers the query?

Source: R1-Ranker (arXiv 2506.21638): exactly one selected passage, 5 / 7 / 9 candidates, at most 2,600
characters in all.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from r1ranker.datasets.base import Dataset, normalise, note, split_groups
from r1ranker.errors import InputError
from r1ranker.files import open_text
from r1ranker.types import Candidate, RankingExample


@dataclass(frozen=True)
class JudgedQuery:
    """A query and its passages in the source's order; `selected` are the places (from 0) of the answers."""

    key: str
    query: str
    passages: tuple[str, ...]
    selected: tuple[int, ...]


def read_ms_marco(path: Path) -> list[JudgedQuery]:
    """Read MS MARCO's JSON lines (plain or .gz).

    `passages` is an object of lists (`passage_text`, `is_selected`) or a list of objects with these keys;
    other fields are ignored. Raises InputError with file and line for a malformed one.
    """
    stem = path.name.split(".")[0]
    queries = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                queries.append(_query(json.loads(line), f"{stem}:{number}"))
            except (ValueError, RecursionError, InputError) as error:
                raise InputError(f"{path}:{number}: {error}: repair or remove the line") from error
    if not queries:
        raise InputError(f"{path} is empty: check that the download is complete")
    return queries


def build_passage(
    paths: Sequence[Path],
    *,
    name: str,
    candidates: int = 5,
    negatives: Literal["given", "random"] = "given",
    max_characters: int | None = 2600,
    test_fraction: float = 0.2,
    test_path: Path | None = None,
    seed: int = 0,
) -> Dataset:
    """One example a query with exactly one selected passage: it and `candidates - 1` others, shuffled.

    negatives: "given" takes the list's first passages in their order, "random" draws them uniformly. Either
        way the selected passage is among the candidates. A candidate's id tells its place in the source's list
        ("p1", "p2", ...); it is for looking things up, and not for the model to read: an answer far down
        the list stands out by it.
    max_characters: drop lists whose candidates are longer in all; None keeps them.
    test_path: the file to test on; without one, `test_fraction` of the queries of `paths` are held out.
    Queries with the same text (case and spacing aside) stay on one side. Lists that do not qualify are
    dropped and counted. Raises InputError for files or numbers that cannot be used.
    """
    if candidates < 2:
        raise InputError(f"candidates is {candidates}; it must be at least 2")
    if negatives not in ("given", "random"):
        raise InputError(f"negatives is '{negatives}'; it must be given or random")
    lists = [query for path in paths for query in read_ms_marco(path)]
    held_out = read_ms_marco(test_path) if test_path else []
    notes: list[str] = []

    def keep(queries: list[JudgedQuery], side: str) -> dict[str, list[RankingExample]]:
        """Normalised query -> its examples."""
        single = [query for query in queries if len(query.selected) == 1]
        note(notes, len(queries) - len(single), f"{side}lists dropped: not exactly one passage is selected")
        enough = [query for query in single if len(query.passages) >= candidates]
        note(notes, len(single) - len(enough), f"{side}lists dropped: fewer than {candidates} passages")
        examples = [_example(query, name, candidates, negatives, seed) for query in enough]
        short = [e for e in examples if max_characters is None or _characters(e) <= max_characters]
        note(notes, len(examples) - len(short), f"{side}lists dropped: more than {max_characters} characters in all")
        blank = sum(any(not c.text.strip() for c in e.candidates) for e in short)
        note(notes, blank, f"{side}lists kept although a passage is blank")
        groups: dict[str, list[RankingExample]] = {}
        for example in short:
            groups.setdefault(example.group, []).append(example)
        return groups

    groups = keep(lists, "train " if test_path else "")
    if test_path:
        test_groups = keep(held_out, "test ")
        leaked = [group for group in groups if group in test_groups]
        note(
            notes,
            sum(len(groups.pop(group)) for group in leaked),
            "train lists dropped: the query is a test query",
        )
        train_keys, _ = split_groups(groups, test_size=0, rng=random.Random(f"{seed}:split"))
        _, test_keys = split_groups(test_groups, test_fraction=1.0, rng=random.Random(f"{seed}:split"))
    else:
        test_groups = groups
        train_keys, test_keys = split_groups(groups, test_fraction=test_fraction, rng=random.Random(f"{seed}:split"))
    if not train_keys and not test_keys:
        raise InputError(
            f"{', '.join(map(str, paths))}: no list qualifies ({'; '.join(notes)}): "
            "lower candidates or raise max_characters"
        )
    return Dataset(
        name=name,
        train=tuple(example for key in train_keys for example in groups[key]),
        test=tuple(example for key in test_keys for example in test_groups[key]),
        notes=tuple(notes),
    )


def _example(query: JudgedQuery, name: str, candidates: int, negatives: str, seed: int) -> RankingExample:
    rng = random.Random(f"{seed}:query:{query.key}")
    answer = query.selected[0]
    others = [place for place in range(len(query.passages)) if place != answer]
    taken = rng.sample(others, candidates - 1) if negatives == "random" else others[: candidates - 1]
    places = sorted([answer, *taken])
    rng.shuffle(places)
    return RankingExample(
        id=f"{name}:{query.key}",
        scenario="passage",
        candidates=tuple(Candidate(f"p{place + 1}", query.passages[place]) for place in places),
        query=query.query,
        relevance={f"p{answer + 1}": 1.0},
        group=normalise(query.query),
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

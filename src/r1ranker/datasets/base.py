"""What every data set builder returns, and the split that comes before anything is expanded."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1ranker.datasets.jsonl import decode, example_to_dict
from r1ranker.errors import InputError
from r1ranker.files import open_text
from r1ranker.types import RankingExample


@dataclass(frozen=True)
class Dataset:
    """Examples for training and testing.

    popularity: candidate id -> how often it was interacted with (recommendation) or is among the best
        (routing: the label prior, see `label_prior`), counted on the train side only; empty for passages.
    notes: what was dropped, merged or left as it is although it looks odd, each with its count.
    sequences: for each train user the titles of all items they interacted with, oldest first
        (recommendation; empty elsewhere). They are for baselines to learn from, and no part of the fingerprint.
    as_ranked: every list stands in the order of an earlier ranking, whether rankers are told so or not.
    origins: for each training example the data set it is from, where several are mixed; else empty.
    fingerprints: of each data set as it was loaded, where a recipe lists or mixes it anew.

    Raises InputError where an example id stands twice, or a group stands on both sides of the split.
    """

    name: str
    train: tuple[RankingExample, ...]
    test: tuple[RankingExample, ...]
    popularity: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sequences: tuple[tuple[str, ...], ...] = ()
    as_ranked: bool = False
    origins: tuple[str, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for example in (*self.train, *self.test):
            if example.id in seen:
                raise InputError(f"data set '{self.name}': the example id '{example.id}' stands twice; ids must differ")
            seen.add(example.id)
        both = ({e.group for e in self.train} & {e.group for e in self.test}) - {""}
        if both:
            raise InputError(
                f"data set '{self.name}': the group '{min(both)}' is in both train and test: split by group"
            )

    def fingerprint(self) -> str:
        """SHA-256 (hex) over all examples in canonical JSON: the same for the same examples in the same order."""
        digest = hashlib.sha256()
        for side, examples in (("train", self.train), ("test", self.test)):
            for example in examples:
                row = json.dumps([side, example_to_dict(example)], sort_keys=True, ensure_ascii=True)
                digest.update(row.encode("ascii") + b"\n")
        return digest.hexdigest()


def split_groups(
    groups: Iterable[str],
    *,
    test_fraction: float = 0.2,
    test_size: int | None = None,
    rng: random.Random,
) -> tuple[list[str], list[str]]:
    """Split distinct group keys (users, queries) into (train, test), both in random order.

    The split depends on the set of keys and on `rng` alone, not on the order of a file, and the test groups
    of a smaller size are among those of a larger one. `test_size` (a number of groups) overrides
    `test_fraction`. Raises InputError for a fraction outside 0..1 or a size that is not to be had.
    """
    keys = sorted(set(groups))
    if test_size is None:
        if not 0 <= test_fraction <= 1:
            raise InputError(f"test_fraction is {test_fraction}; it must be between 0 and 1")
        test_size = round(test_fraction * len(keys))
    elif not 0 <= test_size <= len(keys):
        raise InputError(f"{test_size} test groups are asked for, but there are {len(keys)}: ask for fewer")
    rng.shuffle(keys)
    return keys[test_size:], keys[:test_size]


def label_prior(labels: Iterable[tuple[Collection[str], Collection[str]]]) -> dict[str, float]:
    """LLM -> on how many queries it is among the best.

    labels: of each query the LLMs that it lists, and the best of these. An LLM that some queries lack counts as if it
    were as good on them as on those that list it: else the prior would say which LLM a log asks most.
    """
    listed: Counter[str] = Counter()
    best: Counter[str] = Counter()
    queries = 0
    for llms, top in labels:
        queries += 1
        listed.update(list(llms))  # of a mapping its values would be added
        best.update(top)
    return {llm: n if listed[llm] == queries else n * queries / listed[llm] for llm, n in best.items()}


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(number of the line from 1, value) of a file of JSON lines (plain or .gz); blank lines are skipped.

    Raises InputError with file and line for a line that is not JSON, or where there is none at all.
    """
    empty = True
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            empty = False
            try:
                value = decode(line)
            except InputError as error:
                raise InputError(f"{path}:{number}: {error}: repair or remove the line") from error
            yield number, value
    if empty:
        raise InputError(f"{path} is empty: check that the download is complete")


def normalise(text: str) -> str:
    """Text as it is compared: case and spacing do not count."""
    return " ".join(text.casefold().split())


def note(notes: list[str], count: int, text: str) -> None:
    """Append "<count> <text>" to the notes unless the count is 0."""
    if count:
        notes.append(f"{count:,} {text}")

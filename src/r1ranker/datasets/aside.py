"""Training lists that are kept out of training, to measure a model by while it trains."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from r1ranker.datasets.catalogue import built_as
from r1ranker.datasets.duplicates import connected, near_duplicate_groups, past_of
from r1ranker.errors import InputError
from r1ranker.types import RankingExample


@dataclass(frozen=True)
class Aside:
    """A training side in two. train, origins: what is left to train on. lists: what is kept out, by data set.

    left_out: how many more lists are not trained on, because they are of the same user or query.
    """

    train: tuple[RankingExample, ...]
    origins: tuple[str, ...]
    lists: dict[str, tuple[RankingExample, ...]]
    left_out: int


def set_aside(
    name: str, train: Sequence[RankingExample], origins: Sequence[str] = (), *, lists: int, seed: int
) -> Aside:
    """Keep so many lists of each data set out of training, and with them every list of the same user or query, also a
    near-duplicate's and in another data set. Of a user or query a data set has one list among those.

    name: of the data set, or of the mix whose examples' data sets are `origins`.
    Raises InputError where a data set has too few lists for that, or nothing would be left to train on.
    """
    of = list(origins) or [name] * len(train)
    order = sorted(range(len(train)), key=lambda k: train[k].id)  # not that of a file
    random.Random(f"{seed}/validation").shuffle(order)
    members: dict[str, list[int]] = {}
    keys = _of_one(train)
    for k in order:
        members.setdefault(keys[k], []).append(k)
    chosen: dict[str, list[int]] = {origin: [] for origin in of}
    gone: set[int] = set()
    for group in members.values():
        first = {of[k]: k for k in reversed(group) if _tells(train[k]) and len(chosen[of[k]]) < lists}
        for origin, k in first.items():
            chosen[origin].append(k)
        if first:
            gone |= set(group)
    kept = [k for k in range(len(train)) if k not in gone]
    left = Counter(of[k] for k in kept)
    for origin, own in chosen.items():
        if len(own) < lists or not left[origin]:
            raise InputError(
                f"validation.lists = {lists} of '{origin}', of different users or queries, leave none of its "
                f"{of.count(origin):,} training lists to learn from: lower it"
            )
    return Aside(
        tuple(train[k] for k in kept),
        tuple(of[k] for k in kept) if origins else (),
        {origin: tuple(train[k] for k in own) for origin, own in chosen.items()},
        len(gone) - sum(map(len, chosen.values())),
    )


def _of_one(examples: Sequence[RankingExample]) -> list[str]:
    """For each example a key that those of one user or query share."""
    asked = iter(near_duplicate_groups([e.query for e in examples if e.query.strip()]))
    signs = []
    for e in examples:
        query = "query: " + next(asked) if e.query.strip() else past_of(e)
        signs.append({query, *(f"{kind}: {own}" for kind, own in (("group", e.group), ("id", built_as(e.id))) if own)})
    return connected([e.id for e in examples], signs)


def _tells(example: RankingExample) -> bool:
    """Whether a ranking of it can be better or worse."""
    return any(example.grade(i) > 0 for i in example.ids) and len({example.grade(i) for i in example.ids}) > 1

"""Data sets by name, built with the paper's settings or others."""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ranker.datasets.base import Dataset, label_prior, normalise, note, split_groups
from r1ranker.datasets.catalogue import DATASETS, options_of
from r1ranker.datasets.duplicates import SAME_USER, chosen, connected, near_duplicate_groups, runs_of
from r1ranker.datasets.jsonl import read_examples
from r1ranker.datasets.trec import build_trec
from r1ranker.errors import ConfigError, InputError
from r1ranker.types import RankingExample

_IR_DATASETS = "ir_datasets:"
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(
        ("history", "candidates", "examples_per_user", "test_users", "neighbours", "depth", "max_characters", "seed"),
        int,
    ),
    **dict.fromkeys(("test_fraction", "effect_weight", "cost_weight", "min_rating", "plain_share"), float),
}
"""What options are that a builder compares with numbers, where a wrong kind would be told in Python's words."""
_TOLD = {int: "a whole number", float: "a number"}


def load_dataset(name: str, *, source: Path | str | None = None, **options: Any) -> Dataset:
    """Build a registered data set, or read a user's own examples.

    name: one of DATASETS; or the path of a .jsonl file (see datasets.jsonl), whose examples are all for
        testing unless `test_fraction` says otherwise (then those of one `group`, or of near-duplicate contexts where
        they name none, stay on one side), each list shuffled by its id and `seed` unless it is presorted, or `shuffle`
        is false; or "ir_datasets:" and an id of that package.
    source: the folder that holds the raw files, or one of them; rec-movie and ranking-bench can fetch their own.
    options: override the paper's settings (see DatasetInfo.options).

    Raises ConfigError for an unknown name or option, or an option's value of the wrong kind, InputError for
    files that cannot be used, AssetError where the raw files cannot be fetched.
    """
    try:
        return _load(name, source, options)
    except (TypeError, ValueError, AttributeError) as error:
        if not options:
            raise
        said = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ConfigError(f"data set '{name}': an option has a value of the wrong kind ({said}): {error}") from error


def _load(name: str, source: Path | str | None, options: Mapping[str, Any]) -> Dataset:
    if name.endswith((".jsonl", ".jsonl.gz")):
        if source is not None:
            raise InputError(f"'{name}' is a file of lists, which needs no source: leave {source} out")
        _check_options(name, options, options_of(_build_own))
        return _build_own(Path(name), name=name, **options)
    if name.startswith(_IR_DATASETS):
        _check_options(name, options, options_of(build_trec))
        return build_trec(name=name, ir_dataset=name.removeprefix(_IR_DATASETS), **options)
    if (info := DATASETS.get(name)) is None:
        raise ConfigError(
            f"unknown data set '{name}'{_nearest(name, DATASETS)}; there are {', '.join(DATASETS)}, "
            "or give the path of a .jsonl file"
        )
    _check_options(name, options, info.options)
    settings = {**info.defaults, **options}
    if source is None and info.fetch is not None:
        return info.build(**info.fetch(), name=name, **settings)
    if source is None:
        raise InputError(f"data set '{name}' needs a source: the folder that holds {info.needs} ({info.source})")
    if not (path := Path(source)).exists():
        raise InputError(f"the source of data set '{name}', {path}, does not exist: check the path")
    return info.build(**info.find(path), name=name, **settings)


def _build_own(
    path: Path,
    *,
    name: str,
    test_fraction: float = 1.0,
    near_duplicates: float | None = 0.8,
    shuffle: bool = True,
    seed: int = 0,
) -> Dataset:
    examples, bad = read_examples(path)
    if not examples:
        reason = f"the first line that is none: {bad[0]}" if bad else "the file is empty"
        raise InputError(f"{path} holds no example ({reason}): see the format in the documentation")
    notes = [f"line dropped: {line}" for line in bad]
    if not isinstance(shuffle, bool):
        raise InputError(f"shuffle is {shuffle!r}; it must be true or false")
    if shuffle:
        # Positives often stand first in files, where whoever keeps the order of ties would be right.
        examples = [e if e.presorted else _shuffled(e, seed) for e in examples]
    if test_fraction == 1:
        return Dataset(name=name, train=(), test=tuple(examples), notes=tuple(notes))
    group = _groups(examples, near_duplicates, notes)
    if len(examples) > 1 and len(set(group.values())) == 1 and 0 < test_fraction < 1:
        raise InputError(
            f"{path}: all {len(examples):,} lists stay together, for they have one group or nearly the same context: "
            "give them other groups, or set near_duplicates = 1"
        )
    _, test = split_groups(group.values(), test_fraction=test_fraction, rng=random.Random(f"{seed}:split"))
    held_out = set(test)
    train = [e for e in examples if group[e.id] not in held_out]
    return Dataset(
        name=name,
        train=tuple(train),
        test=tuple(e for e in examples if group[e.id] in held_out),
        popularity=_popularity(train, examples),
        notes=tuple(notes),
    )


def _shuffled(example: RankingExample, seed: int) -> RankingExample:
    ids = list(example.ids)
    random.Random(f"{seed}:list:{example.id}").shuffle(ids)
    return example.restrict(ids)


def _popularity(train: Sequence[RankingExample], examples: Sequence[RankingExample]) -> dict[str, float]:
    """What `Dataset.popularity` holds; nothing where candidates have no ids, for a place says not what stands there.

    An item counts once for a user, as a positive or in the history, where some list gives it an id.
    """
    if any(set(e.ids) != set(map(str, range(1, len(e.ids) + 1))) for e in examples):
        routed = [e for e in train if e.scenario == "routing"]
        chosen: dict[str, set[str]] = {}
        ids = {normalise(c.called): c.id for e in examples if e.scenario == "recommendation" for c in e.candidates}
        for e in train:
            if e.scenario == "recommendation":
                mine = chosen.setdefault(e.group or f"id:{e.id}", set())
                mine |= {ids[text] for text in map(normalise, e.history) if text in ids} | set(_best(e))
        return {
            **Counter(i for mine in chosen.values() for i in mine),
            **label_prior((e.ids, _best(e)) for e in routed),
        }
    return {}


def _best(example: RankingExample) -> list[str]:
    top = max(map(example.grade, example.ids))
    return [i for i in example.ids if top > 0 and example.grade(i) == top]


def _groups(examples: Sequence[RankingExample], near_duplicates: float | None, notes: list[str]) -> dict[str, str]:
    """Example id -> what stays on one side: its own `group`, or the lists with nearly the same context.

    So do lists that share five items in a row, which are one user's at several times.
    """
    alone = [example for example in examples if not example.group]
    contexts = [" | ".join((example.query, *example.history)) for example in alone]
    leaders: dict[str, str] = {}
    keys = [
        leaders.setdefault(key, f"id:{example.id}")
        for example, key in zip(alone, near_duplicate_groups(contexts, near_duplicates), strict=True)
    ]
    note(notes, len(alone) - len(leaders), "lists stay on the side of an earlier one with nearly the same context")
    users = connected(keys, [runs_of(chosen(example), SAME_USER) for example in alone])
    joined = len(set(keys)) - len(set(users))
    note(
        notes, joined, f"lists, or several, stay on the side of an earlier one with {SAME_USER} of their items in a row"
    )
    return {e.id: e.group for e in examples if e.group} | {e.id: key for e, key in zip(alone, users, strict=True)}


def _check_options(name: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(
                f"data set '{name}' has no option '{key}'{_nearest(key, known)}; it has {', '.join(known)}"
            )
        kind = _KINDS.get(key)
        if kind is not None and given[key] is not None and not _is_of(given[key], kind):
            raise ConfigError(f"data set '{name}': {key} is {given[key]!r}; it must be {_TOLD[kind]}")


def _is_of(value: Any, kind: type) -> bool:
    return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)


def _nearest(word: str, words: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""

"""Whether a model is measured on what it learned from.

The split depends on a data set's options: with others than in training, users or queries of its training side may be
tested. Training and the report after it have the same; this is for models that are measured later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1ranker.datasets import DATASETS, Dataset, built_as, load_dataset
from r1ranker.datasets.base import normalise
from r1ranker.errors import R1RankerError
from r1ranker.modelfolder import MEAN_OF
from r1ranker.types import RankingExample

_TRAIN_SIDE = ("train_target", "examples_per_user", "goal")
"""Options that decide nothing about the split."""


def not_held_out(
    facts: Mapping[str, Any],
    dataset: str,
    options: Mapping[str, Any],
    source: Path | str | None,
    test: Sequence[RankingExample],
    fingerprint: str = "",
) -> str:
    """Why figures on these test lists are not of held-out lists; empty where nothing says so.

    facts: of the model (`read_facts`). dataset, options, source: what `load_dataset` was given. fingerprint: of what it
    gave; with the same options another one than in training means other files, and so another split. Data sets that are
    made of the same files, such as passage-5 and passage-9, count too. On the split of the training nothing is built.
    """
    shared: set[int] = set()
    own: dict[str, Any] = {}
    for learned in _learned_from(facts):
        same = [told for told in learned if _same(told.name, dataset) and _split(told.options) == _split(options)]
        if any(t.fingerprint not in ("", fingerprint) and t.options == options for t in same if fingerprint):
            return (
                f"the model's training had the same options, and other lists of '{dataset}': its files have changed "
                "since, so that it may have learned what is tested"
            )
        if same:
            continue
        built = []
        for name, told, _ in learned:
            try:
                if _same(name, dataset) or _same_files(name, dataset) or _built_from(name, dataset, test):
                    built.append((name, load_dataset(name, source=None if _is_file(name) else source, **told)))
            except R1RankerError:
                continue  # these are other files than it learned from
        if found := _shared(dataset, [data for _, data in built], [name for name, _ in built], test):
            shared |= found
            own = own or next((_split(told) for name, told, _ in learned if _same(name, dataset)), {})
    if not shared:
        return ""
    remedy = " ".join(f"--option {key}={value}" for key, value in own.items())
    return (
        f"the model learned from the users or queries of {len(shared):,} of these {len(test):,} lists: "
        f"its training had another split{f' ({remedy})' if remedy else ''}"
    )


class _Learned(NamedTuple):
    """A data set of a training. fingerprint: empty where it was not kept."""

    name: str
    options: dict[str, Any]
    fingerprint: str


def _learned_from(facts: Mapping[str, Any]) -> list[list[_Learned]]:
    """What each training that made a model learned from, the last training first; of a mean, all of them."""
    options, prints = facts.get("options"), facts.get("fingerprints", {})
    own = []
    if isinstance(options, Mapping) and isinstance(prints, Mapping):
        own = [_Learned(name, dict(told), str(prints.get(name, ""))) for name, told in options.items()]
    others = [facts.get("began_at"), *facts.get(MEAN_OF, ())]
    return [own, *(learned for told in others if isinstance(told, Mapping) for learned in _learned_from(told))]


def _shared(dataset: str, learned: Sequence[Dataset], names: Sequence[str], test: Sequence[RankingExample]) -> set[int]:
    """Which test lists have a query of a training side, a group or an id of the same data set's, or a known user."""
    known: set[str] = set()
    queries: set[str] = set()
    for name, data in zip(names, learned, strict=True):
        queries |= {_context(e) for e in data.train}
        known |= {f"built:{built_as(e.id)}" for e in data.train}
        if _same(name, dataset):
            known |= {key for e in data.train for key in (f"id:{e.id}", f"group:{e.group}")}
    for data in learned:  # what one data set tests was not learned from another
        queries -= {_context(e) for e in data.test}
    known -= {"built:"}
    keys = (({f"id:{e.id}", f"built:{built_as(e.id)}", f"group:{e.group}" if e.group else ""}, e) for e in test)
    return {k for k, (names_of, e) in enumerate(keys) if names_of & known or _context(e) in queries}


def _context(example: RankingExample) -> str:
    """The query, or where there is none the history, as it is compared."""
    return normalise(example.query or " | ".join(example.history))


def _split(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _TRAIN_SIDE}


def _same(name: str, dataset: str) -> bool:
    return name == dataset or (_is_file(name) and _is_file(dataset) and Path(name).resolve() == Path(dataset).resolve())


def _is_file(name: str) -> bool:
    return name.endswith((".jsonl", ".jsonl.gz"))


def _built_from(name: str, dataset: str, test: Sequence[RankingExample]) -> bool:
    """Whether one may be a file that `data build` wrote of the other."""
    if _is_file(dataset):
        return any(built_as(e.id).startswith(f"{name}:") for e in test)
    return _is_file(name)


def _same_files(name: str, dataset: str) -> bool:
    """Whether lists of one may stand in the other: made of the same files, or both a user's own."""
    if _is_file(name) and _is_file(dataset):
        return True
    one, other = DATASETS.get(name), DATASETS.get(dataset)
    return one is not None and other is not None and one.scenario == other.scenario != "recommendation"

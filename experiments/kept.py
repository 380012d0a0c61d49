"""What an experiment's JSON file holds already, so that another run, also on another machine, adds to it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from plan import Plan
from r1ranker.benchmark.config import RowConfig
from r1ranker.datasets import Dataset
from r1ranker.errors import CheckpointError, ConfigError
from r1ranker.evaluation.harness import RANDOM
from training import check_same_recipe

FACTS = ("command", "commit", "date", "machine", "versions")
"""What is told of one benchmark."""
OF_ALL_ROWS = ("seeds", "dtype")
"""Of the benchmark: what decides the rankings of all its rows. Files from before this was kept do not say it."""
_ANEW = "leave --add out to measure everything anew, or write to another --results"
Place = tuple[str, str, int | None]


@dataclass(frozen=True)
class Kept:
    """The values of earlier benchmarks; without a file there are none.

    cells: (row of tables, data set, seed) -> its cell. data: what is told of each data set. trainings: (name, seed) ->
    what is told of it. asked: row -> what decides its rankings. benchmarks: what is told of each, the oldest first;
    a cell's "earlier" says which it is of. notes: what is to be known of values.
    """

    file: Path | None = None
    cells: Mapping[Place, Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trainings: Mapping[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)
    asked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    benchmarks: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()

    def queries(self, row: str, dataset: str, seed: int | None) -> int:
        """How many lists of a data set a row of tables has ranked; 0 without a cell."""
        cell = self.cells.get((row, dataset, seed))
        return len(next(iter(cell["values"].values()))) if cell else 0

    def check_lists(self, datasets: Collection[Dataset]) -> None:
        """Raises ConfigError where a data set at hand has other lists than the file's."""
        for dataset in datasets:
            told = self.data.get(dataset.name, {}).get("fingerprint")
            if told and told != (now := dataset.fingerprint()[:16]):
                raise ConfigError(
                    f"{self.file}: the values are of other lists of '{dataset.name}' than those at hand (fingerprints "
                    f"{told} and {now}): {_ANEW}"
                )

    def check_trainings(self, planned: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
        """Raises ConfigError for a training that the plan has not, or has with other settings.

        planned: (name, seed) -> its settings, as `settings_of` tells them.
        """
        for (name, seed), told in self.trainings.items():
            now = planned.get((name, seed))
            if now is None:
                raise ConfigError(f"{self.file} has the training '{name}', seed {seed}, and the plan has not: {_ANEW}")
            if key := next((key for key in now if key != "config" and told.get(key) != now[key]), None):
                raise ConfigError(
                    f"{self.file}: the training '{name}' had {key} = {told.get(key)!r}, and has {now[key]!r} now: "
                    f"{_ANEW}"
                )
            if "config" not in told:
                continue  # a file from before the whole recipe was kept
            where = f"{self.file}: the training '{name}', seed {seed},"
            try:
                check_same_recipe(told["config"], now["config"], where, now.get("after"))
            except CheckpointError as error:
                raise ConfigError(f"{error}; {_ANEW}") from error
            except ValueError as error:
                raise ConfigError(f"{where} has a 'config' that is no recipe of this version: {_ANEW}") from error

    def check_asked(self, asked: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises ConfigError where a row is asked in another way than for the file's values."""
        for row, now in asked.items():
            told = self.asked.get(row, now)
            comparable = {key: value for key, value in now.items() if key in told or key not in OF_ALL_ROWS}
            if told != comparable:
                raise ConfigError(f"{self.file}: the row '{row}' was another one ({told}, now {now}): {_ANEW}")


NOTHING = Kept()


def check_whole(path: Path, command: str) -> None:
    """Before a part of a plan is measured anew: raises ConfigError where that would replace another result."""
    if not path.exists():
        return
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no experiment's results ({error!r}): write to another --results") from error
    if told != command:
        raise ConfigError(
            f"{path} holds results, which this part of the plan would replace: add to them with --add, or write to "
            "another --results"
        )


def load_kept(path: Path, plan: Plan) -> Kept:
    """The file's values. Raises ConfigError where it cannot be read, or has a row that the plan has not."""
    if not path.exists():
        return NOTHING
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        benchmarks = [*results.get("earlier", ()), {key: results[key] for key in FACTS}]
        cells = {
            (cell["row"], cell["dataset"], cell["seed"]): {"earlier": len(benchmarks) - 1, **cell}
            for cell in results["cells"]
        }
        trainings = {(told["name"], told["seed"]): told for told in results["trainings"]}
        notes = tuple(results.get("notes", ()))
        kept = Kept(path, cells, results["data"], trainings, results.get("asked", {}), benchmarks, notes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no experiment's results ({error!r}): {_ANEW}") from error
    named = [*plan.bench.data.names, *plan.bench.data.variants]
    for name, known in (("row", plan.rows), ("data set", named)):
        if odd := sorted({place[name == "data set"] for place in cells} - set(known)):
            raise ConfigError(f"{path} has the {name} '{odd[0]}', and the plan has not: {_ANEW}")
    return kept


def only_unknown(
    rows: Sequence[RowConfig],
    shown: Mapping[str, tuple[str, int | None]],
    asked_for: Mapping[str, int],
    kept: Kept,
) -> list[RowConfig]:
    """The rows, each on those data sets alone on which the file has fewer lists of it than are asked for.

    shown: a row's name -> the row of tables, and the seed. asked_for: data set -> lists.
    Raises ConfigError where seeds of one row would be means over different lists.
    """
    if not kept.cells:
        return list(rows)
    wanted = []
    counts = {place: kept.queries(*place) for place in kept.cells}
    for row in rows:
        name, seed = shown[row.name or ""]
        todo = []
        for dataset, limit in asked_for.items():
            if any(fnmatchcase(dataset, pattern) for pattern in row.datasets):
                has, lists = kept.queries(name, dataset, seed), min(limit, row.limit or limit)
                counts[name, dataset, seed] = max(has, lists)
                todo += [dataset] * (has < lists)
        if todo:
            wanted.append(row.model_copy(update={"datasets": tuple(todo)}))
    for (name, dataset, _), count in counts.items():
        if different := {n for place, n in counts.items() if place[:2] == (name, dataset)} - {count}:
            raise ConfigError(
                f"{kept.file}: seeds of '{name}' would have ranked {count} and {min(different)} lists of '{dataset}': "
                "give the --limit that the file has, or have all seeds' models at hand"
            )
    return wanted


def known_baselines(baselines: Sequence[str], asked_for: Mapping[str, int], kept: Kept) -> bool:
    """Whether the file has all of the baselines on so many lists of every data set at hand."""
    ran = {row for row, _, _ in kept.cells}
    return set(baselines) <= ran and all(kept.queries(RANDOM, d, None) >= n for d, n in asked_for.items())


def merged(results: dict[str, Any], kept: Kept, plan: Plan) -> dict[str, Any]:
    """Results with what is kept: of a cell on both sides the one with more lists, the kept one where they are equal."""
    benchmarks = [*kept.benchmarks, {key: results[key] for key in FACTS}]
    cells, data = dict(kept.cells), dict(kept.data)
    for cell in results["cells"]:
        place = (cell["row"], cell["dataset"], cell["seed"])
        if len(next(iter(cell["values"].values()))) > kept.queries(*place):
            cells[place] = {"earlier": len(kept.benchmarks), **cell}
            if cell["row"] == RANDOM:
                data[cell["dataset"]] = results["data"][cell["dataset"]]
    datasets = [name for name in (*plan.bench.data.names, *plan.bench.data.variants) if name in data]
    rows, columns = _numbers(plan.rows), _numbers(datasets)
    places = sorted(cells, key=lambda place: (rows[place[0]], columns[place[1]], -1 if place[2] is None else place[2]))
    trainings = {**kept.trainings, **{(told["name"], told["seed"]): told for told in results["trainings"]}}
    trained = _numbers([training.name for training in plan.trainings])
    # What a part of the plan lacked, and others have
    told_before = {f"the row '{row}' suits none of the data sets" for row, _, _ in cells}
    told_before |= {text for text in results["missing"] if text.partition(":")[0] in kept.data}
    told_before |= {
        f"{row}: left out (--row)"
        for row, _, _ in kept.cells
        if all((row, dataset, None) in kept.cells for dataset in data)
    }
    *earlier, last = sorted({cell["earlier"] for cell in cells.values()})
    numbers = _numbers(earlier)
    return {
        **results,
        "datasets": [name for name in plan.bench.data.names if name in data],  # variants count in nothing
        "data": {name: data[name] for name in datasets},
        "missing": [text for text in results["missing"] if text not in told_before],
        "notes": [text for text in dict.fromkeys([*kept.notes, *results.get("notes", ())]) if text not in told_before],
        "trainings": [trainings[key] for key in sorted(trainings, key=lambda key: (trained[key[0]], key[1]))],
        "asked": {**kept.asked, **results["asked"]},
        **benchmarks[last],
        **({"earlier": [benchmarks[k] for k in earlier]} if earlier else {}),
        "cells": [_numbered(cells[place], numbers) for place in places],
    }


def _numbers(items: Sequence[Any]) -> dict[Any, int]:
    return {item: k for k, item in enumerate(items)}


def _numbered(cell: Mapping[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
    """The cell with the place of its benchmark among the earlier ones; without one if it is of the last."""
    number = numbers.get(cell["earlier"])
    plain = {key: value for key, value in cell.items() if key != "earlier"}
    return plain if number is None else {**plain, "earlier": number}

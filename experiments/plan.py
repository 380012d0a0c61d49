"""What an experiment is: trainings, banks of thoughts recorded from them, and a benchmark, in one TOML file."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, model_validator

from r1ranker.benchmark.config import BenchConfig, RowConfig
from r1ranker.errors import ConfigError
from r1ranker.evaluation.harness import RANDOM
from r1ranker.sections import Section, parse_section, read_tables

HERE = Path(__file__).parent
RUN, BANK = "run:", "bank:"
"""What a row's model, and its ranker's thoughts, begin with where they are made by the plan."""
_FILE_NAME = r"^[a-z0-9][a-z0-9-]*$"


class Training(Section):
    """[[trainings]]: a recipe with settings on top, once for each seed."""

    name: str = Field(pattern=_FILE_NAME)
    """Plans that name a training alike share it, so its settings must be the same in all of them."""
    recipe: str
    """The name of one that ships with the package, or a file beside the plan."""
    set: tuple[str, ...] = ()
    """KEY=VALUE settings, as for `r1ranker train --set`."""
    after: str | None = None
    """An earlier training of the plan, whose adapter this one begins at (`model.adapter`), that of the same seed."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)


class Bank(Section):
    """[[banks]]: thoughts that a training's model has on training lists, one bank for each seed."""

    name: str = Field(pattern=_FILE_NAME)
    training: str
    datasets: tuple[str, ...] = Field(min_length=1)
    """Of the benchmark's; their training sides are ranked."""
    limit: int = Field(ge=1)
    """Training lists of each, the first ones."""


class Plan(Section):
    """A whole experiment."""

    name: str = Field(pattern=_FILE_NAME)
    title: str
    question: str
    trainings: tuple[Training, ...] = ()
    banks: tuple[Bank, ...] = ()
    against: dict[str, str] = Field(default_factory=dict)
    """Row -> the row that it is compared with, for rows that have another one than `bench.base`."""
    pairs: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Row -> rows that it is compared with beside that, in a table of their own."""
    joined: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """A row of tables -> the benchmark's rows that it is made of, each for data sets of its own."""
    bench: BenchConfig

    @model_validator(mode="after")
    def _fits_together(self) -> Plan:
        for what, names in (
            ("training", [t.name for t in self.trainings]),
            ("bank", [b.name for b in self.banks]),
            ("row", [*self._own_rows, *self.joined]),
        ):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"two of the plan are called '{twice}': give each {what} a name of its own")
        earlier: dict[str, Training] = {}
        for training in self.trainings:
            if len(set(training.seeds)) < len(training.seeds):
                raise ValueError(f"training '{training.name}' lists a seed twice")
            if (after := training.after) is not None:
                _known(after, earlier, f"training '{training.name}' goes on after another, and before it there is no")
                if missing := set(training.seeds) - set(earlier[after].seeds):
                    raise ValueError(f"training '{after}' has no seed {min(missing)}, and '{training.name}' has")
            earlier[training.name] = training
        if "all" in self.bench.baselines:
            raise ValueError('bench.baselines = ["all"]: name the baselines, so that one that is missing can be told')
        trained = [t.name for t in self.trainings]
        for bank in self.banks:
            _known(bank.training, trained, f"bank '{bank.name}': there is no training")
            for name in bank.datasets:
                _known(name, self.bench.data.names, f"bank '{bank.name}': bench.data.names has no")
        for row in self.bench.rows:
            if row.name is None:
                raise ValueError("a row of a plan needs a 'name'")
            self.needs(row)
        self._check_joined()
        for name in (self.bench.base, *self.against, *self.against.values()):
            _known(name, self.rows, "base and 'against' name rows, and there is no")
        for one, others in self.pairs.items():
            for name in (one, *others):
                _known(name, self.rows, "'pairs' names rows, and there is no")
            if one in others or len(set(others)) < len(others):
                raise ValueError(f"pairs: '{one}' is compared with itself, or with a row twice")
        return self

    def _check_joined(self) -> None:
        """Raises ValueError for parts that are no rows, or whose data sets are not their own."""
        rows = {row.name or "": row for row in self.bench.rows}
        for name, parts in self.joined.items():
            taken: set[str] = set()
            for part in parts:
                _known(part, rows, f"joined '{name}': there is no row")
                own = {
                    d for d in self.bench.data.names if any(fnmatchcase(d, p) for p in rows[part].datasets or ("*",))
                }
                if both := taken & own:
                    raise ValueError(f"joined '{name}': two of its rows are for {min(both)}; set their 'datasets'")
                taken |= own
        every = [part for parts in self.joined.values() for part in parts]
        if twice := next((part for part in every if every.count(part) > 1), None):
            raise ValueError(f"joined: '{twice}' is a part twice")

    @property
    def rows(self) -> list[str]:
        """The rows' names, in the order of tables; a joined row stands where its first part does."""
        return list(dict.fromkeys(map(self.shown_as, self._own_rows)))

    @property
    def _own_rows(self) -> list[str]:
        return [RANDOM, *self.bench.baselines, *(row.name or "" for row in self.bench.rows)]

    def shown_as(self, row: str) -> str:
        """The row of tables that a row of the benchmark belongs to."""
        return next((name for name, parts in self.joined.items() if row in parts), row)

    def base_of(self, row: str) -> str:
        """The row that a row is compared with; its own name for one that all others are compared with."""
        return self.against.get(row, self.bench.base)

    def needs(self, row: RowConfig) -> list[Training]:
        """The trainings that a row's model or thoughts come from, none or up to two. Raises ValueError if unknown."""
        names = []
        if row.model and row.model.startswith(RUN):
            name = row.model.removeprefix(RUN)
            names.append(_known(name, [t.name for t in self.trainings], f"row '{row.name}': there is no training"))
        thoughts = str(row.ranker.get("thoughts", ""))
        if thoughts.startswith(BANK):
            name = thoughts.removeprefix(BANK)
            _known(name, [b.name for b in self.banks], f"row '{row.name}': there is no bank")
            names.append(self.bank(name).training)
        return [training for training in self.trainings if training.name in names]

    def bank(self, name: str) -> Bank:
        """The bank of that name."""
        return next(bank for bank in self.banks if bank.name == name)


def find_plan(name: str) -> Path:
    """A plan's file: an existing path, else a plan beside this file. Raises ConfigError for neither."""
    if Path(name).is_file():
        return Path(name)
    plans = {path.stem: path for path in sorted(HERE.glob("*.toml"))}
    if name.removesuffix(".toml") in plans:
        return plans[name.removesuffix(".toml")]
    raise ConfigError(f"there is no plan '{name}': there are {', '.join(plans)}, or give the path of a file")


def load_plan(path: Path) -> Plan:
    """A plan's file; rows whose model is a folder beside it have its path. Raises ConfigError as recipes do."""
    plan = parse_section(Plan, read_tables(path), str(path))
    rows = tuple(row.model_copy(update={"model": beside(path.parent, row.model)}) for row in plan.bench.rows)
    return plan.model_copy(update={"bench": plan.bench.model_copy(update={"rows": rows})})


def beside(folder: Path, model: str | None) -> str | None:
    """A model's folder beside a plan, such as an adapter that is kept there; else the name as it is."""
    return str(folder / model) if model and (folder / model).is_dir() else model


def _known(name: str, names: Collection[str], problem: str) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, list(names), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names) or 'none'}"
        raise ValueError(f"{problem} '{name}' ({hint})")
    return name

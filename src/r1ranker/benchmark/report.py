"""A benchmark's results: every row on every data set, and how each compares with the base row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from r1ranker.benchmark.order import OrderRow
from r1ranker.errors import InputError
from r1ranker.evaluation import Row, holm, paired_p_value

SHOWN = ("MRR", "nDCG@10", "Hit@1")
"""The measures that have a table of their own; JSON and CSV hold the others too."""
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row against the base row on one data set, query by query.

    difference: mean of (row - base). p: two-sided paired randomization test; p_holm: the same, corrected for all
    comparisons of this measure in the report (Holm 1979). queries: those that both have ranked.
    """

    difference: float
    p: float
    p_holm: float
    queries: int

    @property
    def mark(self) -> str:
        """+ or - where the row differs from the base row after correction, else nothing."""
        return ("+" if self.difference > 0 else "-") if self.p_holm < ALPHA else ""


@dataclass(frozen=True)
class BenchReport:
    """cells: a `Row` for each ranker and data set. scenarios: data set -> its scenario, in the order of columns.

    variants: those of the data sets that judge another one's lists in another way; they have a table of their own,
    and count neither in means nor in costs.
    Raises InputError where a cell stands twice, or names a data set without a scenario.
    """

    cells: tuple[Row, ...]
    base: str
    scenarios: Mapping[str, str]
    order: tuple[OrderRow, ...] = ()
    variants: tuple[str, ...] = ()
    quoted: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        places = [(cell.name, cell.dataset) for cell in self.cells]
        if len(set(places)) < len(places):
            name, dataset = next(place for place in places if places.count(place) > 1)
            raise InputError(f"the row '{name}' stands twice for '{dataset}'")
        if odd := [cell.dataset for cell in self.cells if cell.dataset not in self.scenarios]:
            raise InputError(f"the report does not say what scenario '{odd[0]}' is")

    @property
    def datasets(self) -> tuple[str, ...]:
        """The columns of the main tables."""
        return tuple(dataset for dataset in self.scenarios if dataset not in self.variants)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The rows, in the order of the cells."""
        return tuple(dict.fromkeys(cell.name for cell in self.cells))

    @cached_property
    def _by_place(self) -> dict[tuple[str, str], Row]:
        return {(cell.name, cell.dataset): cell for cell in self.cells}

    def cell(self, name: str, dataset: str) -> Row | None:
        """A row's results on a data set, if it was run there."""
        return self._by_place.get((name, dataset))

    def most(self, dataset: str) -> int:
        """Queries of a data set; a row with a limit of its own has ranked fewer."""
        return max((cell.queries for cell in self.cells if cell.dataset == dataset), default=0)

    def whole(self, cell: Row) -> bool:
        """Whether the cell's row has ranked all queries of its data set."""
        return cell.queries == self.most(cell.dataset)

    def of(self, name: str) -> list[Row]:
        """A row's cells, in the order of the columns."""
        return [cell for dataset in self.datasets if (cell := self.cell(name, dataset)) is not None]

    def mean(self, name: str, measure: str) -> float | None:
        """A row's mean over all data sets (each counts the same); None unless it ran on every one."""
        cells = self.of(name)
        return fmean(cell.measures[measure] for cell in cells) if len(cells) == len(self.datasets) else None

    @cached_property
    def comparisons(self) -> dict[str, dict[tuple[str, str], Comparison]]:
        """measure -> (row, data set) -> comparison, for all but the base row."""
        found: dict[str, dict[tuple[str, str], Comparison]] = {}
        for measure in SHOWN:
            raw: dict[tuple[str, str], tuple[float, float, int]] = {}
            for cell in self.cells:
                base = self.cell(self.base, cell.dataset)
                if base is None or cell.name == self.base:
                    continue
                # Rows with a limit of their own ranked the first queries: those are shared.
                n = min(cell.queries, base.queries)
                ours, theirs = cell.per_query[measure][:n], base.per_query[measure][:n]
                raw[cell.name, cell.dataset] = (fmean(ours) - fmean(theirs), paired_p_value(ours, theirs), n)
            corrected = holm([p for _, p, _ in raw.values()])
            found[measure] = {
                place: Comparison(difference, p, adjusted, n)
                for (place, (difference, p, n)), adjusted in zip(raw.items(), corrected, strict=True)
            }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "base": self.base,
            "scenarios": dict(self.scenarios),
            "cells": [cell.to_dict() for cell in self.cells],
            "comparisons": [
                {"measure": measure, "row": row, "dataset": dataset, **asdict(comparison)}
                for measure, places in self.comparisons.items()
                for (row, dataset), comparison in places.items()
            ],
            "order": [asdict(row) for row in self.order],
            "variants": list(self.variants),
            "quoted": self.quoted,
            "facts": dict(self.facts),
        }

    @classmethod
    def load(cls, path: Path) -> BenchReport:
        """Read what `to_dict` gave from a JSON file; comparisons are computed anew.

        Raises InputError for a file that is none.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                tuple(map(Row.from_dict, data["cells"])),
                data["base"],
                data["scenarios"],
                tuple(OrderRow(**row) for row in data["order"]),
                tuple(data["variants"]),
                data["quoted"],
                data["facts"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"{path} is no benchmark's report ({error}): run the benchmark again") from error

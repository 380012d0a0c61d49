"""The figures of an experiment, from the values per query and seed that its JSON file holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from r1ranker.benchmark.report import Comparison
from r1ranker.benchmark.run import STATISTICS_SEED
from r1ranker.errors import InputError
from r1ranker.evaluation import bootstrap_interval, holm, paired_p_value
from resampling import Part, gain_interval

MEASURE = "MRR"
"""The measure that is tested; the others are shown as means alone."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A row on a data set.

    values: measure -> a value for each query, the mean over seeds. low, high: 95% bootstrap interval of the mean MRR
    over queries. spread: standard deviation of the MRR over seeds, with two or more. seeds: how many there are.
    tokens: computed by a model for a ranking, on average.
    """

    values: Mapping[str, Sequence[float]]
    low: float
    high: float
    spread: float | None
    seeds: int
    tokens: float

    @property
    def queries(self) -> int:
        """How many were ranked."""
        return len(self.values[MEASURE])

    def mean(self, measure: str = MEASURE) -> float:
        """Over queries."""
        return fmean(self.values[measure])


@dataclass(frozen=True, slots=True)
class Gains:
    """A row against its base row, over the data sets that both ranked.

    relative: mean over data sets of (MRR / the base row's MRR - 1), each on the queries that both ranked; None where
    there is no data set, or a base of 0. interval: 95% bootstrap interval of it; a query that stands in several data
    sets is drawn in all at once. above, better, worse: on how many the row is above its base row, and on how many
    significantly better and worse.
    """

    relative: float | None
    interval: tuple[float, float] | None
    datasets: int
    above: int
    better: int
    worse: int


class Figures:
    """All figures of one experiment. Raises InputError where the file is none of run.py's."""

    def __init__(self, results: Mapping[str, Any], where: str = "results") -> None:
        self.results = results
        try:
            self.base_of: dict[str, str] = dict(results["rows"])
            self.datasets: tuple[str, ...] = tuple(results["datasets"])
            self._seeds = _by_place(results["cells"])
            self.cells = {place: _cell(found) for place, found in self._seeds.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{where} is no experiment's results ({error}): run experiments/run.py again") from error

    @classmethod
    def load(cls, path: Path) -> Figures:
        """From a file of run.py."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}): run experiments/run.py again") from error

    @property
    def rows(self) -> list[str]:
        """Those that ran on some data set, in the plan's order."""
        return [row for row in self.base_of if any((row, d) in self.cells for d in self.datasets)]

    @cached_property
    def comparisons(self) -> dict[tuple[str, str], Comparison]:
        """(row, data set) -> against its base row; p-values are corrected for all of the experiment's comparisons."""
        raw = {}
        for (row, dataset), cell in self.cells.items():
            base = self.cells.get((self.base_of[row], dataset))
            if base is None or row == self.base_of[row] or dataset not in self.datasets:
                continue
            ours, theirs = _both(cell, base)
            raw[row, dataset] = (
                fmean(ours) - fmean(theirs),
                paired_p_value(ours, theirs, seed=STATISTICS_SEED),
                len(ours),
            )
        corrected = holm([p for _, p, _ in raw.values()])
        return {
            place: Comparison(difference, p, adjusted, queries)
            for (place, (difference, p, queries)), adjusted in zip(raw.items(), corrected, strict=True)
        }

    def gains(self, row: str) -> Gains:
        """The row against its base row, summed up."""
        found = {dataset: c for (name, dataset), c in self.comparisons.items() if name == row}
        relative = [self.relative_gain(row, dataset) for dataset in found]
        known = [gain for gain in relative if gain is not None]
        marks = [comparison.mark for comparison in found.values()]
        whole = bool(known) and len(known) == len(found)
        parts = [self.part(dataset, self._beside_base(row, dataset)) for dataset in found]
        return Gains(
            fmean(known) if whole else None,
            gain_interval(parts) if whole else None,
            len(found),
            sum(comparison.difference > 0 for comparison in found.values()),
            marks.count("+"),
            marks.count("-"),
        )

    def relative_gain(self, row: str, dataset: str) -> float | None:
        """MRR / the base row's MRR - 1 on a data set; None for a base of 0."""
        ours, theirs = self._beside_base(row, dataset)
        base = fmean(theirs)
        return fmean(ours) / base - 1 if base else None

    def shared(self, row: str, other: str, dataset: str) -> tuple[Sequence[float], Sequence[float]] | None:
        """MRR of two rows on the queries of a data set that both ranked; None where one of them ranked none.

        Of two trained rows each is the mean over the seeds that both have; None where they have no seed in common.
        """
        ours, theirs = self._seeds.get((row, dataset), []), self._seeds.get((other, dataset), [])
        if ours and theirs and None not in (seeds := [cell["seed"] for cell in (*ours, *theirs)]):
            ours, theirs = ([cell for cell in cells if seeds.count(cell["seed"]) > 1] for cells in (ours, theirs))
        return _both(_cell(ours), _cell(theirs)) if ours and theirs else None

    def part(self, dataset: str, values: tuple[Sequence[float], Sequence[float]]) -> Part:
        """Two rows' values on a data set with its queries; files of before these were kept tell none from another."""
        told = self.results.get("data", {}).get(dataset, {}).get("queries")
        n = len(values[0])
        return Part(told[:n] if told else [f"{dataset}/{k}" for k in range(n)], *values)

    def _beside_base(self, row: str, dataset: str) -> tuple[Sequence[float], Sequence[float]]:
        return _both(self.cells[row, dataset], self.cells[self.base_of[row], dataset])

    @cached_property
    def by_seed(self) -> dict[tuple[str, int], dict[str, float]]:
        """(row, seed) -> data set -> its MRR, of rows with two or more trainings' seeds, in the plan's order."""
        found: dict[tuple[str, int], dict[str, float]] = {}
        for cell in self.results["cells"]:
            if cell["seed"] is not None:
                found.setdefault((cell["row"], cell["seed"]), {})[cell["dataset"]] = fmean(cell["values"][MEASURE])
        order = {row: k for k, row in enumerate(self.base_of)}
        several = [place for place in found if sum(row == place[0] for row, _ in found) > 1]
        return {place: found[place] for place in sorted(several, key=lambda place: (order[place[0]], place[1]))}

    def mean(self, row: str, measure: str) -> float | None:
        """Over data sets, each counting the same; None unless the row ran on all of them."""
        cells = [self.cells.get((row, dataset)) for dataset in self.datasets]
        values = [cell.mean(measure) for cell in cells if cell is not None]
        return fmean(values) if values and len(values) == len(cells) else None


def _by_place(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(row, data set) -> its cells, one a seed."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["row"], cell["dataset"]), []).append(cell)
    return found


def _cell(seeds: Sequence[Mapping[str, Any]]) -> Cell:
    """One cell of a row's cells with different seeds, or of one that is a mean over runs itself."""
    values = {
        measure: [fmean(query) for query in zip(*(cell["values"][measure] for cell in seeds), strict=True)]
        for measure in seeds[0]["values"]
    }
    means = [fmean(cell["values"][MEASURE]) for cell in seeds] if len(seeds) > 1 else seeds[0]["run_means"]
    low, high = bootstrap_interval(values[MEASURE], seed=STATISTICS_SEED)
    runs = max(1, len(means))
    rankings = sum(max(1, len(cell["run_means"])) for cell in seeds) * len(values[MEASURE])
    tokens = sum(cell["tokens"] for cell in seeds) / rankings
    return Cell(values, low, high, stdev(means) if runs > 1 else None, runs, tokens)


def _both(cell: Cell, base: Cell) -> tuple[Sequence[float], Sequence[float]]:
    """MRR of both on the queries that both ranked: a row with a limit of its own ranked the first ones."""
    n = min(cell.queries, base.queries)
    return cell.values[MEASURE][:n], base.values[MEASURE][:n]

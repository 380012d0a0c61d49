"""A row that nothing computes: the ranking of another system, from a TREC run file."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from r1ranker.benchmark.cache import Chunk
from r1ranker.benchmark.config import BenchConfig, RowConfig, named
from r1ranker.datasets import Dataset
from r1ranker.datasets.trec_files import read_run
from r1ranker.errors import InputError
from r1ranker.evaluation import Outcome
from r1ranker.files import sha256
from r1ranker.types import RankingExample


class RunRow:
    """A run, read when the benchmark begins; queries are called by the lists' ids, documents by the candidates'.

    Candidates that it does not rank stand last, in a random order that depends on the list alone; a note counts them,
    and the documents that are no candidates. Raises InputError for a file that is no run.
    """

    uses_llm = False
    optional = False
    together: int | None = None

    def __init__(self, row: RowConfig, bench: BenchConfig) -> None:
        assert row.run is not None
        self.config = row
        self.name = row.name or Path(row.run).name.removesuffix(".gz").rsplit(".", 1)[0]
        self._path, self._bench = Path(row.run), bench
        self._run = read_run(self._path)

    def applies(self, dataset: Dataset) -> bool:
        return named(self._bench, dataset.name, self.config.datasets) and any(e.id in self._run for e in dataset.test)

    def check(self, dataset: Dataset, examples: Sequence[RankingExample]) -> None:
        """Raises InputError where the run lacks a list: nothing says how the system would have ranked it."""
        if lacking := [e.id for e in examples if e.id not in self._run]:
            raise InputError(
                f"{self._path} has no ranking of {len(lacking):,} of the {len(examples):,} lists of '{dataset.name}' "
                f"(the first is '{lacking[0]}'): rank them too, or name other 'datasets' for the row"
            )

    def seeds(self) -> tuple[int, ...]:
        return self._bench.seeds[:1]

    def identity(self, dataset: Dataset) -> dict[str, Any]:  # noqa: ARG002 - the Contender protocol
        return {"run": sha256(self._path)}

    def facts(self) -> dict[str, Any]:
        return {}

    def steps(self, examples: Sequence[RankingExample]) -> int:
        return len(examples)

    def rank(
        self,
        dataset: Dataset,
        examples: Sequence[RankingExample],
        seed: int,  # noqa: ARG002
        on_calls: Callable[[int], None],
    ) -> Chunk:
        """The run's order."""
        outcomes, unranked, foreign = [], 0, 0
        for e in examples:
            ranked = [i for i in self._run[e.id] if i in set(e.ids)]
            rest = sorted(set(e.ids) - set(ranked))
            random.Random(f"{e.id}:unranked").shuffle(rest)
            unranked, foreign = unranked + len(rest), foreign + len(self._run[e.id]) - len(ranked)
            outcomes.append(Outcome(e.id, (*ranked, *rest)))
        on_calls(len(examples))
        told = {
            "candidates are not in the run, and stand last": unranked,
            "documents of it are no candidates": foreign,
        }
        notes = tuple(f"{dataset.name}: {count:,} {text}" for text, count in told.items() if count)
        return Chunk(tuple(outcomes), 0.0, notes=notes)

    def close(self) -> None:
        """Nothing is kept."""

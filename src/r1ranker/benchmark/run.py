"""Runs a benchmark: every row on every data set it is for, from the cache where the results are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from r1ranker.benchmark.cache import Chunk, ResultCache
from r1ranker.benchmark.config import BenchConfig
from r1ranker.benchmark.contenders import Contender, contenders, ranked_lists
from r1ranker.benchmark.order import OrderRow, listed_anew, sensitivity
from r1ranker.benchmark.report import BenchReport
from r1ranker.benchmark.runrow import RunRow
from r1ranker.datasets import DATASETS, Dataset, load_dataset
from r1ranker.errors import AssetError, ConfigError, InputError, MissingExtraError, R1RankerError
from r1ranker.evaluation import Outcome, Row, per_query, row_of_outcomes, without_relevant
from r1ranker.evaluation.achieved import references
from r1ranker.evaluation.harness import RANDOM, random_row
from r1ranker.evaluation.held_out import not_held_out
from r1ranker.evaluation.runs import check_file_names, file_name, save_run
from r1ranker.fingerprints import digest
from r1ranker.types import RankingExample

STATISTICS_SEED = 0
"""Of the bootstrap and the randomization tests, so that a report made again says the same."""
_LACKING = (MissingExtraError, AssetError, InputError)


class Watch(Protocol):
    """Who is told how a benchmark goes."""

    def begin(self, label: str, steps: int) -> None:
        """A row begins on a data set; it takes so many steps (LLM calls, or lists)."""

    def step(self, done: int) -> None:
        """So many of its steps are done; those from the cache count."""

    def end(self, text: str) -> None:
        """It is finished."""

    def say(self, text: str) -> None:
        """Something worth knowing."""


def load_datasets(config: BenchConfig) -> list[Dataset]:
    """The benchmark's data sets, in order, and its variants. Raises InputError for one without test examples."""
    data = config.data
    wanted = [(name, name, data.options_of(name)) for name in data.names]
    wanted += [(name, v.of, {**data.options_of(v.of), **v.options}) for name, v in data.variants.items()]
    datasets = []
    for name, of, options in wanted:
        dataset = load_dataset(of, source=data.source(of), **options)
        if not dataset.test:
            raise InputError(f"data set '{name}' has no test examples: raise its test_fraction")
        datasets.append(replace(dataset, name=name))
    check_file_names("data sets", [dataset.name for dataset in datasets])
    return datasets


def run_bench(
    config: BenchConfig,
    folder: Path,
    watch: Watch,
    facts: Mapping[str, Any] | None = None,
    *,
    runs: Path | None = None,
) -> BenchReport:
    """Run what is not known yet; results are kept in `folder`/cache as they come, so a stopped run goes on.

    runs: the folder of the TREC run files, `folder`/runs if None; benchmarks that share a cache have one each.
    facts: what else the report must say (versions, machine, command).
    Raises ConfigError, AssetError or InputError for what cannot be run, before anything long begins where it can
    be told. A baseline that stands for itself ("all") is left out in place of it, with a note. An LLM that fails on
    the way, such as a server that went down, loses its row's other data sets and no other row: facts["failed"].
    """
    rows = contenders(config)
    names = [RANDOM, *(row.name for row in rows)]
    if config.base not in names:
        raise ConfigError(f"base is '{config.base}', which is no row of this benchmark: it has {', '.join(names)}")
    per_query({}, [])  # without ir_measures all of the work would be lost on its last step
    watch.say(f"building {', '.join(config.data.names)}")
    datasets = load_datasets(config)
    for row in rows:
        for dataset in datasets:
            if isinstance(row, RunRow) and row.applies(dataset):
                row.check(dataset, ranked_lists(row.config, config, dataset))
    run = _Run(config, folder, runs or folder / "runs", watch)
    for dataset in datasets:
        run.cells.append(random_row(dataset.name, dataset.test[: config.limit], seed=STATISTICS_SEED))
    for row in rows:
        try:
            run.row(row, datasets)
        finally:
            row.close()
    return BenchReport(
        cells=tuple(run.cells),
        order=tuple(run.order),
        base=config.base,
        scenarios={d.name: d.test[0].scenario for d in datasets},
        variants=tuple(config.data.variants),
        quoted=config.quoted,
        facts={
            **(facts or {}),
            "seeds": list(config.seeds),
            "data": {d.name: _about(d, config) for d in datasets},
            **({"notes": run.notes} if run.notes else {}),
            **({"failed": run.failed} if run.failed else {}),
        },
    )


@dataclass
class _Run:
    """A benchmark under way, and what has come of it so far."""

    config: BenchConfig
    folder: Path
    runs: Path
    watch: Watch
    cells: list[Row] = field(default_factory=list)
    order: list[OrderRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    caches: dict[str, ResultCache] = field(default_factory=dict)

    def row(self, row: Contender, datasets: Sequence[Dataset]) -> None:
        """A row on all data sets that it is for."""
        suited = [dataset for dataset in datasets if row.applies(dataset)]
        if not suited and not row.optional:
            self.note(f"the row '{row.name}' suits none of the data sets")
        left_out: dict[str, list[str]] = {}
        for dataset in suited:
            try:
                self.cell(row, dataset)
            except R1RankerError as error:
                if row.uses_llm:
                    self.fail(f"'{row.name}' failed on {dataset.name}: {error}")
                    break  # a server that is down would be waited for on every other data set
                if not row.optional or not isinstance(error, _LACKING):
                    raise
                left_out.setdefault(str(error), []).append(dataset.name)
        for reason, names in left_out.items():
            self.note(f"'{row.name}' is left out of {', '.join(names)}: {reason}")

    def cell(self, row: Contender, dataset: Dataset) -> None:
        """A row on one data set, and its order test if it asks an LLM."""
        examples = ranked_lists(row.config, self.config, dataset)
        if problem := self.not_held_out(row, dataset, examples):
            self.note(f"'{row.name}' on {dataset.name}: {problem}")
        cache, seeds, steps = self.cache(row, dataset), row.seeds(), row.steps(examples)
        self.watch.begin(f"{dataset.name}: {row.name}", steps * len(seeds))
        runs = [list(self.chunks(row, dataset, cache, examples, seed, k * steps)) for k, seed in enumerate(seeds)]
        chunks = [chunk for run in runs for chunk in run]
        cell = row_of_outcomes(
            row.name,
            dataset.name,
            examples,
            [_outcomes(run) for run in runs],
            seconds=sum(chunk.seconds for chunk in chunks),
            flops=sum(chunk.flops for chunk in chunks),
            seed=STATISTICS_SEED,
        )
        self.cells.append(cell)
        rankings = {outcome.example_id: outcome.ranking for outcome in _outcomes(runs[0])}
        judged = dataset.test[: self.config.limit]  # a row with a limit of its own must not shrink the others' qrels
        if problem := save_run(self.runs / file_name(dataset.name), row.name, judged, rankings):
            self.note(problem)
        self.watch.end(f"{dataset.name}: {row.name}: MRR {cell.measures['MRR']:.3f}, {cell.seconds:.1f} s")
        for text in dict.fromkeys(text for chunk in chunks for text in chunk.notes):
            self.note(f"'{row.name}': {text}")
        # Lists in the order of a first stage have no other order that is as good: the prompt says what that one means.
        free = [e for e in examples if not e.presorted] if not row.config.first_stage else []
        if row.uses_llm and self.config.order.listings and free:
            self.other_orders(row, dataset, cache, free[: self.config.order.queries])

    def not_held_out(self, row: Contender, dataset: Dataset, examples: Sequence[RankingExample]) -> str:
        """Why a model's figures are not of held-out lists; empty where nothing says so."""
        if not (facts := row.facts()):
            return ""
        data = self.config.data
        variant = data.variants.get(dataset.name)
        name = variant.of if variant else dataset.name
        options = {**data.options_of(name), **(variant.options if variant else {})}
        told = dataset.fingerprint() if not variant else ""
        return not_held_out(facts, name, options, data.source(name), examples, told)

    def other_orders(
        self, row: Contender, dataset: Dataset, cache: ResultCache, examples: Sequence[RankingExample]
    ) -> None:
        """How much the row depends on the order in which candidates are listed."""
        listings = [[listed_anew(e, k) for e in examples] for k in range(self.config.order.listings)]
        steps, seed = row.steps(examples), row.seeds()[0]
        self.watch.begin(f"{dataset.name}: {row.name}, other orders", steps * len(listings))
        rankings = [
            [o.ranking for o in _outcomes(self.chunks(row, dataset, cache, listed, seed, k * steps))]
            for k, listed in enumerate(listings)
        ]
        found = sensitivity(row.name, dataset.name, listings, rankings)
        self.order.append(found)
        self.watch.end(f"{dataset.name}: {row.name}: Kendall's tau between listings {found.tau:.2f}")

    def chunks(
        self,
        row: Contender,
        dataset: Dataset,
        cache: ResultCache,
        examples: Sequence[RankingExample],
        seed: int,
        done: int,
    ) -> Iterator[Chunk]:
        """The results for all examples, chunk by chunk. done: steps that went before."""
        size = row.together or len(examples)
        for start in range(0, len(examples), size):
            part = examples[start : start + size]
            chunk = cache.get(seed, part)
            if chunk is None:
                chunk = row.rank(dataset, part, seed, partial(self.step, done))
                cache.put(seed, part, chunk)
            done += row.steps(part)
            self.watch.step(done)
            yield chunk

    def step(self, before: int, calls: int) -> None:
        """So many calls are made, after other steps."""
        self.watch.step(before + calls)

    def cache(self, row: Contender, dataset: Dataset) -> ResultCache:
        """The row's results; a model's are the same file for all data sets."""
        identity = row.identity(dataset)
        key = digest(identity)
        if key not in self.caches:
            cache = self.caches[key] = ResultCache(self.folder / "cache", identity)
            if cache.broken:
                self.watch.say(f"{cache.path}: broken lines passed over: {cache.broken}; they are computed again")
        return self.caches[key]

    def fail(self, text: str) -> None:
        """Say that a row is not whole; what it had finished stays in the cache."""
        self.failed.append(text)
        self.watch.say(text)

    def note(self, text: str) -> None:
        """Say it, and put it in the report, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.watch.say(text)


def _outcomes(chunks: Sequence[Chunk] | Iterator[Chunk]) -> list[Outcome]:
    return [outcome for chunk in chunks for outcome in chunk.outcomes]


def _about(dataset: Dataset, config: BenchConfig) -> dict[str, Any]:
    used = dataset.test[: config.limit]
    variant = config.data.variants.get(dataset.name)
    name = variant.of if variant else dataset.name
    return {
        "source": config.data.source(name) or ("fetched" if name in DATASETS else "-"),
        "options": config.data.options_of(name) | (variant.options if variant else {}),
        "test queries": f"{len(used):,} of {len(dataset.test):,}",
        "train examples": len(dataset.train),
        "without a relevant candidate": without_relevant(used),
        "fingerprint": dataset.fingerprint()[:16],
        "notes": list(dataset.notes),
        **({"routing": routing} if (routing := references(used)) else {}),
    }

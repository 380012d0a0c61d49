"""Runs a plan's benchmark with what is at hand, and keeps what the page needs as one small JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kept import NOTHING, OF_ALL_ROWS, Kept, known_baselines, only_unknown
from paths import without_absolute_paths
from plan import BANK, RUN, Plan
from r1ranker.benchmark.config import BenchConfig, RowConfig
from r1ranker.benchmark.report import SHOWN, BenchReport
from r1ranker.benchmark.run import Watch, load_datasets, run_bench
from r1ranker.datasets import Dataset
from r1ranker.datasets.base import normalise
from r1ranker.errors import AssetError, ConfigError, InputError
from r1ranker.evaluation.harness import RANDOM
from r1ranker.files import sha256
from r1ranker.fingerprints import model_fingerprint
from r1ranker.llm.servers import without_credentials
from r1ranker.reranker import locate
from r1ranker.types import RankingExample, Scenario
from training import Models, bank_file

DIGITS = 10
"""Of the values that are kept: sums of reciprocal ranks that tie exactly, such as 1/2 + 1/6 and 1 - 1/3, must do so
after rounding too, or a permutation test takes them for less extreme."""


@dataclass
class AtHand:
    """What of a plan can be run now.

    rows: the benchmark's name of a row -> the plan's, and the training's seed (None: no training is part of it).
    missing: sentences that say what cannot. asked: the plan's name of a row -> what decides its rankings.
    """

    bench: BenchConfig
    datasets: list[Dataset]
    rows: dict[str, tuple[str, int | None]]
    missing: list[str] = field(default_factory=list)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)


def data_at_hand(
    plan: Plan,
    sources: Mapping[str, str],
    limit: int | None = None,
    chosen: Collection[str] | None = None,
    kept: Kept = NOTHING,
) -> AtHand:
    """The plan's benchmark on those of its data sets that can be built; its rows are still the plan's.

    chosen: on these alone. Raises ConfigError where none of them can be built.
    """
    bench = plan.bench
    data = bench.data.model_copy(update={"sources": {**bench.data.sources, **sources}})
    found: list[Dataset] = []
    missing = []
    for name in bench.data.names:
        if chosen and name not in chosen:
            missing.append(f"{name}: left out (--data)")
            continue
        try:
            found += load_datasets(bench.model_copy(update={"data": data.model_copy(update=_only(name))}))
        except (AssetError, InputError) as error:
            missing.append(f"{name}: {error}")
    if not found:
        raise ConfigError(f"none of the plan's data sets is at hand ({'; '.join(missing)})")
    missing = [text for text in missing if text.partition(":")[0] not in kept.data]
    names = tuple(dataset.name for dataset in found)
    variants = {name: variant for name, variant in data.variants.items() if variant.of in names}
    changed: dict[str, Any] = {
        "name": plan.name,
        "base": RANDOM,  # the page compares, after the mean over seeds
        "data": data.model_copy(update={"names": names, "variants": variants}),
        **({} if limit is None else {"limit": limit}),
    }
    return AtHand(bench.model_copy(update=changed), found, {}, missing)


def _only(name: str) -> dict[str, Any]:
    return {"names": (name,), "variants": {}}


def resolve_rows(
    plan: Plan, hand: AtHand, models: Models, kept: Kept = NOTHING, chosen: Collection[str] | None = None
) -> None:
    """Put the rows that can be run in place of the plan's: one for each seed where a training is part of it.

    chosen: these rows of the plan alone, beside the baselines. Of what is kept there is nothing to run.
    Raises ConfigError where what is kept was of other lists, or of rows that were asked in another way.
    """
    kept.check_lists(hand.datasets)
    rows: list[RowConfig] = []
    for row in plan.bench.rows:
        name = row.name or ""
        needed = plan.needs(row)
        left_out = bool(chosen) and name not in (chosen or ())
        if left_out and not needed:
            if not all(kept.queries(plan.shown_as(name), d, None) for d in _of_row(row, hand)):
                hand.missing.append(f"{name}: left out (--row)")
            continue
        if not needed:
            if problem := _cannot_be_had(row):
                hand.missing.append(f"{name}: {problem}")
                continue
            rows.append(row)
            continue
        lacking = []
        for seed in needed[0].seeds:
            if not left_out and all(models.of(training.name, seed) for training in needed):
                rows.append(_with_seed(row, seed, models))
                hand.rows[rows[-1].name or ""] = (name, seed)
            elif (its := _of_row(row, hand)) and all(kept.queries(plan.shown_as(name), d, seed) for d in its):
                continue
            elif all(models.trained(training.name, seed) for training in needed):
                lacking.append(seed)  # its model is not at hand
        if lacking:
            hand.missing.append(f"{name}: of {told_seeds(lacking)}")
    ran = {hand.rows.get(row.name or "", (row.name, None))[0] for row in rows}
    of_all = hand.bench.model_dump(mode="json", include=set(OF_ALL_ROWS))
    hand.asked = {row.name or "": of_all | asked_of(row) for row in plan.bench.rows if row.name in ran}
    kept.check_asked(hand.asked)
    shown = {row.name or "": _place(plan, hand, row.name or "") for row in rows}
    asked_for = {d.name: min(len(d.test), hand.bench.limit or len(d.test)) for d in hand.datasets}
    changed: dict[str, Any] = {"rows": tuple(only_unknown(rows, shown, asked_for, kept))}
    if known_baselines(hand.bench.baselines, asked_for, kept):
        changed["baselines"] = ()
    hand.bench = hand.bench.model_copy(update=changed)


def _of_row(row: RowConfig, hand: AtHand) -> list[str]:
    """The data sets at hand that a row is for."""
    return [d.name for d in hand.datasets if any(fnmatchcase(d.name, pattern) for pattern in row.datasets)]


def _place(plan: Plan, hand: AtHand, name: str) -> tuple[str, int | None]:
    """The row of tables that a row of the benchmark is of, and its training's seed."""
    row, seed = hand.rows.get(name, (name, None))
    return plan.shown_as(row), seed


def asked_of(row: RowConfig) -> dict[str, Any]:
    """What decides a row's rankings but its lists and its training: the settings, and the model's fingerprint."""
    told: dict[str, Any] = row.model_dump(mode="json", exclude={"name", "datasets", "limit"}, exclude_defaults=True)
    if row.model is not None and not row.model.startswith(RUN):
        place, _ = locate(row.model)
        if isinstance(place, Path):
            told["model"] = (sha256(place) if place.is_file() else model_fingerprint(place))[:16]
        else:
            told["model"] = without_credentials(place)
    plain: dict[str, Any] = without_absolute_paths(told)
    return plain


def told_seeds(seeds: Sequence[int]) -> str:
    """Seeds as a text: "seed 0", "seeds 1, 2"."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _with_seed(row: RowConfig, seed: int, models: Models) -> RowConfig:
    changed: dict[str, Any] = {"name": f"{row.name} (seed {seed})"}
    if row.model and row.model.startswith(RUN):
        changed["model"] = str(models.of(row.model.removeprefix(RUN), seed))
    thoughts = str(row.ranker.get("thoughts", ""))
    if thoughts.startswith(BANK):
        changed["ranker"] = {**row.ranker, "thoughts": str(bank_file(models.out, thoughts.removeprefix(BANK), seed))}
    return row.model_copy(update=changed)


def _cannot_be_had(row: RowConfig) -> str:
    try:
        if row.model is not None:
            locate(row.model)
    except AssetError as error:
        return str(error)
    return ""


def run(plan: Plan, hand: AtHand, out: Path, watch: Watch) -> BenchReport:
    """The benchmark; all plans share its cache, so that what two of them ask is asked once."""
    return run_bench(hand.bench, out / "bench", watch, runs=out / "bench" / "runs" / plan.name)


def results_of(
    plan: Plan, hand: AtHand, report: BenchReport, trainings: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page needs, as JSON values; what is told of data, settings and trainings has no absolute paths.

    tokens: those that a model computed for the cell, in all of its runs; what it reused does not count.
    """
    cells = []
    for cell in report.cells:
        row, seed = _place(plan, hand, cell.name)
        cells.append(
            {
                "row": row,
                "dataset": cell.dataset,
                "seed": seed,
                "values": {m: [round(value, DIGITS) for value in cell.per_query[m]] for m in SHOWN},
                "run_means": [round(mean, 4) for mean in cell.run_means],
                "tokens": cell.prompt_tokens - cell.cached_tokens + cell.completion_tokens,
            }
        )
    scenarios: dict[str, Scenario] = {d.name: d.test[0].scenario for d in hand.datasets}
    asked = {d.name: [_key(example) for example in d.test[: hand.bench.limit]] for d in hand.datasets}
    data = {
        name: {"scenario": scenarios.get(name, ""), **told, **({"queries": asked[name]} if name in asked else {})}
        for name, told in report.facts["data"].items()
    }
    # Names of rows and data sets stay as the plan has them, also where one is a path: they are looked up by it.
    return {
        "name": plan.name,
        "title": plan.title,
        "question": plan.question,
        "rows": {row: plan.base_of(row) for row in plan.rows},
        "pairs": plan.pairs,
        "datasets": list(report.datasets),
        "data": {name: without_absolute_paths(told) for name, told in data.items()},
        "missing": without_absolute_paths([*hand.missing, *report.facts.get("failed", ())]),
        "notes": without_absolute_paths([*report.facts.get("notes", ())]),
        "quoted": plan.bench.quoted,
        "trainings": without_absolute_paths(trainings),
        "asked": hand.asked,
        **without_absolute_paths(facts),
        "cells": cells,
    }


def _key(example: RankingExample) -> str:
    """What tells a query, or a history, from others, also in another data set."""
    return hashlib.sha256(normalise(" | ".join((example.query, *example.history))).encode()).hexdigest()[:8]


def as_text(results: Mapping[str, Any]) -> str:
    """Results as JSON: a line for each key, and for each cell and training."""
    lines = []
    for key, value in results.items():
        if key in ("cells", "trainings") and value:
            inner = ",\n".join(json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in value)
            lines.append(f"{json.dumps(key)}: [\n{inner}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"

"""Runs baselines and rankers over a data set's test side; the report is saved after every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1ranker.cli.console import Bar, budget_note, say, turns
from r1ranker.cli.errors import on_interrupt, require_writable
from r1ranker.cli.facts import command_line, machine, versions
from r1ranker.datasets import Dataset
from r1ranker.errors import InputError, MissingExtraError
from r1ranker.evaluation import Report, Row, make_row, paired_p_value, without_relevant
from r1ranker.evaluation.achieved import references
from r1ranker.evaluation.harness import RANDOM, baseline_rows, random_row, run_ranker
from r1ranker.evaluation.runs import save_run
from r1ranker.llm.base import CountingLLM, notes_of
from r1ranker.reranker import Reranker
from r1ranker.types import RankingExample


@dataclass(frozen=True)
class Contender:
    """A row that needs an LLM: its name, how it is loaded, and whether it was trained here."""

    name: str
    load: Callable[[], Reranker]
    trained: bool = False


def compare(
    dataset: Dataset,
    contenders: Sequence[Contender],
    out: Path,
    *,
    base: str = RANDOM,
    limit: int | None = None,
    baselines: bool = True,
    seed: int = 0,
    concurrency: int = 32,
    facts: Mapping[str, Any] | None = None,
    done: Mapping[str, Row] | None = None,
) -> Report:
    """A report on the first `limit` test examples, in the folder `out`.

    base: the row that p-values compare with; until it is there, random.
    done: rows by name that need not be computed again.
    """
    examples = dataset.test[:limit]
    if not examples:
        raise InputError(f"'{dataset.name}' has no test examples")
    if without_relevant(examples) == len(examples):
        raise InputError(
            f"none of the {len(examples):,} lists of '{dataset.name}' says which candidate is relevant: nothing can be "
            "measured; give 'relevance', or rank them (r1ranker rank)"
        )
    require_writable(out)
    notes: list[str] = []
    rows = list(_baselines(dataset, examples, baselines, seed, notes))
    there = [*(row.name for row in rows), *(contender.name for contender in contenders)]
    if base not in there:
        raise InputError(f"there is no row '{base}' to compare with on '{dataset.name}': it has {', '.join(there)}")
    known = {**(facts or {}), **_facts(dataset, examples, seed)}
    if trained := [c.name for c in contenders if c.trained]:
        known["trained"] = trained
    if notes:
        known["notes"] = notes
    report = _save(rows, base, known, out, seed)
    with on_interrupt(lambda: f"stopped: the rows that were finished are in {out / 'report.json'}"):
        for contender in contenders:
            row = (done or {}).get(contender.name) or _row(
                contender, dataset.name, examples, seed, concurrency, out, notes
            )
            rows.append(row)
            if notes:
                known["notes"] = notes
            report = _save(rows, base, known, out, seed)
    return _save(rows, base, {**known, "finished": True}, out, seed) if contenders else report


def _row(
    contender: Contender,
    name: str,
    examples: Sequence[RankingExample],
    seed: int,
    concurrency: int,
    out: Path,
    notes: list[str],
) -> Row:
    reranker = contender.load()
    with Bar(contender.name, turns(reranker.ranker, examples)) as bar:
        llm = CountingLLM(reranker.llm, bar.update)
        traces, seconds = run_ranker(
            contender.name, reranker.ranker, examples, llm, reranker.sampling, concurrency=concurrency
        )
    problem = save_run(out / "runs", contender.name, examples, {t.example_id: t.ranking for t in traces})
    said = [*notes_of(reranker.llm), *([problem] if problem else [])]
    if short := sum(trace.cut_short for trace in traces):
        said.append(f"{contender.name}: {budget_note(short)}")
    notes += said
    for text in said:
        say(text)
    return make_row(contender.name, name, examples, traces, seconds=seconds, seed=seed)


def _baselines(
    dataset: Dataset, examples: Sequence[RankingExample], wanted: bool, seed: int, notes: list[str]
) -> Iterator[Row]:
    if not wanted:
        yield random_row(dataset.name, examples, seed=seed)
        return
    try:
        yield from baseline_rows(dataset.name, examples, dataset.popularity, as_ranked=dataset.as_ranked, seed=seed)
    except MissingExtraError as error:
        if "ir_measures" in str(error):  # without it there is no row at all
            raise
        notes.append(f"a baseline is left out: {error}")
        say(notes[-1])


def _save(rows: Sequence[Row], base: str, facts: Mapping[str, Any], out: Path, seed: int) -> Report:
    found = {row.name: row for row in rows}
    against = found.get(base, found[RANDOM])
    compared = tuple(
        replace(
            row,
            p_value=None
            if row is against
            else paired_p_value(row.per_query["MRR"], against.per_query["MRR"], seed=seed),
        )
        for row in rows
    )
    report = Report(compared, against.name, dict(facts))
    try:
        report.save(out)
    except MissingExtraError as error:
        say(f"report.png is left out: {error}")
    return report


def _facts(dataset: Dataset, examples: Sequence[RankingExample], seed: int) -> dict[str, Any]:
    return {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint(),
        "test examples": f"{len(examples):,} of {len(dataset.test):,}",
        "without a relevant candidate": without_relevant(examples),
        **({"data notes": list(dataset.notes)} if dataset.notes else {}),
        **({"routing": routing} if (routing := references(examples)) else {}),
        "seed": seed,
        "versions": versions(),
        "machine": machine(),
        "command": command_line(),
    }

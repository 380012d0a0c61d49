"""`r1ranker demo`: the main job from end to end, on a plain CPU machine: measure, train, measure again, explain."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from r1ranker.cli.compare import Contender, compare
from r1ranker.cli.console import clock, out, say
from r1ranker.cli.facts import versions
from r1ranker.cli.mixing import load_examples
from r1ranker.cli.recipes import find_recipe
from r1ranker.cli.runs import report_notes, run_checkpoints, train_run
from r1ranker.cli.train import contenders_of
from r1ranker.config import RunConfig, dump_config, load_config
from r1ranker.datasets import Dataset
from r1ranker.errors import ConfigError, InputError
from r1ranker.evaluation import Report, Row, rich_table
from r1ranker.records import probabilities
from r1ranker.reranker import RankResult, Reranker
from r1ranker.types import RankingExample


def run_demo(*, out: Path, recipe: str | None, sets: Sequence[str]) -> None:
    """Measure the base model, train it by the recipe, measure again; print the table and explain one ranking.

    out: gets report.json, report.md, report.png, the trained model, and the run's metrics and checkpoints.
    A demo that was stopped goes on where it was: rows and steps already there are not computed again. One
    that was finished, or was made by other settings, is started afresh.
    """
    begin = time.perf_counter()
    config = load_config(find_recipe(recipe or "demo"), sets)
    data = load_examples(config)
    if not data.test:
        raise InputError(f"'{data.name}' has no test examples: the demo compares on them")
    say(f"{data.name}: {len(data.train):,} examples of users to train on, {len(data.test):,} held-out users")
    report_notes(data)
    key = _key(config, data)
    done = _open(out, key)
    base, *others = contenders_of(config, out / "model")
    report = compare(
        data,
        [base, *others[:-1], _trained(others[-1], config, out, data)],
        out,
        base=base.name,
        limit=config.evaluation.limit,
        seed=config.seed,
        concurrency=config.evaluation.concurrency,
        facts={"recipe": config.name, "base model": config.model.path, "key": key},
        done=done,
    )
    _tell(report, base.name, others[-1].name)
    _explain(data.test[0], base.load(), others[-1].load())
    print(
        f"\neverything is in {out} (report.md, report.png, reward.png, model); the demo took "
        f"{clock(time.perf_counter() - begin)}"
    )
    print(
        f'try it: r1ranker rank --model {out / "model"} --history "Toy Story (1995)" --doc "Heat (1995)" '
        '--doc "Babe (1995)" --trace',
        flush=True,
    )


def _trained(after: Contender, config: RunConfig, folder: Path, data: Dataset) -> Contender:
    """The trained row: it is trained when its turn comes, after the base has been measured."""

    def load() -> Reranker:
        resume = bool(run_checkpoints(folder))
        train_run(config, folder, resume=resume, dataset=data)
        return after.load()

    return Contender(after.name, load, trained=True)


def _key(config: RunConfig, data: Dataset) -> str:
    """What a row depends on: the recipe, the data and the software."""
    text = "\n".join([dump_config(config), data.fingerprint(), str(versions())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _open(folder: Path, key: str) -> dict[str, Row]:
    """The rows of a demo that was stopped; a finished one, and one of other settings, are cleared away.

    Raises ConfigError for a folder with the report of something else.
    """
    if not (folder / "report.json").exists():
        return {}
    report = Report.load(folder)
    if "key" not in report.facts:
        raise ConfigError(f"{folder} holds a report that is no demo's, which would be lost: give another --out")
    if report.facts.get("key") == key and "finished" not in report.facts:
        say(f"going on with the demo in {folder}: {', '.join(row.name for row in report.rows)} are there already")
        return {row.name: row for row in report.rows}
    which = "finished" if "finished" in report.facts else "of other settings"
    say(f"the demo in {folder} is {which}: it is made anew, its model too")
    for part in ("report.json", "report.md", "report.png", "reward.png", "metrics.jsonl", "warmup.jsonl", "warmup.png"):
        (folder / part).unlink(missing_ok=True)
    for part in ("checkpoints", "model", "tensorboard"):
        shutil.rmtree(folder / part, ignore_errors=True)
    return {}


def _tell(report: Report, base: str, trained: str) -> None:
    console = out()
    console.print(rich_table(report.rows, report.base, console.width))
    rows = {row.name: row for row in report.rows}
    before, after = rows[base].measures["MRR"], rows[trained].measures["MRR"]
    gain = f"{after / before - 1:+.1%}" if before else "from 0"
    pairs = list(zip(rows[base].per_query["MRR"], rows[trained].per_query["MRR"], strict=True))
    up, down = sum(new > old for old, new in pairs), sum(new < old for old, new in pairs)
    print(
        f"MRR {before:.3f} -> {after:.3f} ({gain}), p = {rows[trained].p_value:.4f}; of {len(pairs)} users "
        f"{up} are served better, {down} worse, {len(pairs) - up - down} as before"
    )


def _explain(example: RankingExample, before: Reranker, after: Reranker) -> None:
    """The first held-out user's ranking, exclusion by exclusion, by both models."""
    texts = {c.id: c.text for c in example.candidates}
    wanted = [i for i in example.ids if example.grade(i) > 0]
    print(f"\nOne user (the first that was held out, {example.id}), who chose, in order:")
    for title in example.history:
        print(f"    {title}")
    print("and then: " + "; ".join(texts[i] for i in wanted))
    for name, reranker in (("before training", before), ("after training", after)):
        result = reranker.rank_batch([example])[0]
        place = 1 + min(result.trace.ranking.index(i) for i in wanted)
        print(f"\n{name}: the film chosen next is in place {place} of {len(texts)}")
        _print_turns(result, texts, reranker.config.sharpness)


def _print_turns(result: RankResult, texts: dict[str, str], sharpness: float) -> None:
    for number, turn in enumerate(result.trace.turns, 1):
        chances = probabilities(turn, sharpness)
        chosen = turn.excluded or ""
        why = f" (probability {chances[chosen]:.2f} of {len(chances)} left)" if chosen in chances else ""
        print(f"  {number}. excludes {texts.get(chosen, 'nothing')}{why}")
        if turn.parsed.thought:
            print(f"     thought: {turn.parsed.thought}")
    print("  ranking: " + " > ".join(texts[i] for i in result.trace.ranking))

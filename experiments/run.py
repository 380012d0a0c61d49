"""Run an experiment: train what is missing, then the benchmark, then write what the page needs.

    python experiments/run.py main --source "rec-music=data/cds" --source "router-*=data/nq"
    python experiments/run.py ablations --only three-grpo --seeds 0 --data rec-movie --limit 20 --results part

Run the same command again after a stop: trainings and the benchmark go on where they were. What is missing, such as a
seed that was not trained or a data set without its files, is told in the JSON and on the page.

    python experiments/run.py ablations --only three-ppo --seeds 1 --limit 32 --add

adds to the values that the JSON file holds: what it has of as many lists is neither trained nor ranked again, so that
trainings can be made on several machines, or more lists ranked of some data sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kept import NOTHING, check_whole, load_kept, merged
from plan import Plan, Training, find_plan, load_plan
from provenance import provenance
from r1ranker.cli.bench import Watching
from r1ranker.cli.console import loading, quiet, say
from r1ranker.cli.errors import complain, exit_code_of
from r1ranker.config import RunConfig
from r1ranker.errors import AssetError, ConfigError, InputError, R1RankerError
from r1ranker.files import file_lock, write_atomic
from results import AtHand, as_text, data_at_hand, resolve_rows, results_of, run, told_seeds
from training import (
    Models,
    about,
    check_held_out,
    check_settings,
    config_of,
    folder_of,
    model_of,
    progress,
    record_bank,
    settings_of,
    train,
)

OUT = Path("runs/experiments")
RESULTS = Path("docs/results/experiments")
Planned = tuple[Training, RunConfig]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 for an error, which is told in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(arguments)
    quiet()
    try:
        experiment(args, arguments)
    except KeyboardInterrupt as error:
        complain(f"stopped: what is finished is kept in {args.out}; run the same command again to go on")
        return exit_code_of(error)
    except R1RankerError as error:
        complain(f"error: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", help="a plan's name, or its file")
    parser.add_argument("--only", action="append", metavar="TRAINING", help="train this one alone; repeat it for more")
    parser.add_argument("--seeds", type=int, nargs="+", help="train with these seeds of the plan's alone")
    parser.add_argument("--data", action="append", metavar="NAME", help="compare on this one alone; repeat it for more")
    parser.add_argument(
        "--row", action="append", metavar="NAME", help="rank with this row alone, beside the baselines; repeat it too"
    )
    parser.add_argument("--limit", type=int, help="test queries of each data set, in place of the plan's")
    parser.add_argument(
        "--add", action="store_true", help="keep what the JSON file holds, and measure only what it lacks"
    )
    parser.add_argument("--source", action="append", default=[], metavar="NAME=DIR", help="a data set's raw files")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of trainings and caches")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the JSON file")
    return parser


def experiment(args: argparse.Namespace, arguments: Sequence[str]) -> None:
    """All of it. Raises R1RankerError for what cannot be run."""
    path = find_plan(args.plan)
    plan = load_plan(path)
    _check_choice("--only", args.only or [], [t.name for t in plan.trainings])
    _check_choice("--seeds", args.seeds or [], sorted({seed for t in plan.trainings for seed in t.seeds}))
    _check_choice("--data", args.data or [], plan.bench.data.names)
    _check_choice("--row", args.row or [], [row.name or "" for row in plan.bench.rows])
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit {args.limit}: give at least one query, or leave it out")
    file, facts = args.results / f"{plan.name}.json", provenance(arguments)
    kept = load_kept(file, plan) if args.add else NOTHING
    _check_whole(args, file, facts)
    sources = _sources(args.source)
    configs = [(t, config_of(t, seed, path.parent, sources, args.out)) for t in plan.trainings for seed in t.seeds]
    _check_sources(sources, {*plan.bench.data.names, *(name for _, config in configs for name in config.data.names)})
    kept.check_trainings({(t.name, config.seed): settings_of(t, config) for t, config in configs})
    for training, config in configs:
        check_settings(config, folder_of(args.out, training.name, config.seed))
    models = Models(args.out, path.parent / "adapters", kept.trainings)
    with loading():
        hand = data_at_hand(plan, sources, args.limit, args.data, kept)
    wanted = [
        (training, config)
        for training, config in configs
        if (not args.only or training.name in args.only)
        and (not args.seeds or config.seed in args.seeds)
        and (training.name, config.seed) not in kept.trainings
    ]
    _check_held_out(configs, wanted, hand, models)
    for training, config in wanted:
        train(config, folder_of(args.out, training.name, config.seed), facts)
    for bank in plan.banks:
        for training, config in configs:
            if training.name == bank.training and (model := models.of(training.name, config.seed)):
                record_bank(plan, bank, model, config.seed, args.out, sources)
    trainings = []
    unfinished: dict[str, dict[str, list[int]]] = {}
    for training, config in configs:
        folder = folder_of(args.out, training.name, config.seed)
        if model_of(args.out, training.name, config.seed):
            trainings.append(about(training, config, folder))
        elif not models.trained(training.name, config.seed):
            of_text = unfinished.setdefault(progress(config, folder), {})
            of_text.setdefault(training.name, []).append(config.seed)
    for text, seeds in unfinished.items():
        hand.missing.append(f"{text}: {', '.join(f'{name} ({told_seeds(which)})' for name, which in seeds.items())}")
    resolve_rows(plan, hand, models, kept, args.row)
    _benchmark(plan, hand, args, trainings, facts)


def _check_whole(args: argparse.Namespace, file: Path, facts: Mapping[str, Any]) -> None:
    if not args.add and (args.only or args.seeds or args.data or args.row or args.limit):
        check_whole(file, facts["command"])


def _check_held_out(configs: Sequence[Planned], wanted: Sequence[Planned], hand: AtHand, models: Models) -> None:
    """Whether a training of this run, made or to be made, learns from test lists. Seeds have the same data."""
    checked: set[str] = set()
    for training, config in configs:
        finished = models.of(training.name, config.seed) is not None
        if (data := config.data.model_dump_json()) in checked or not (finished or (training, config) in wanted):
            continue
        checked.add(data)
        try:
            check_held_out(config, hand.datasets)
        except (AssetError, InputError) as error:
            if not finished:
                raise
            hand.missing.append(f"training {training.name}: not compared with the test lists, {error}")


def _benchmark(
    plan: Plan,
    hand: AtHand,
    args: argparse.Namespace,
    trainings: list[dict[str, object]],
    facts: dict[str, object],
) -> None:
    watch = Watching()
    with loading():
        try:
            report = run(plan, hand, args.out, watch)
        finally:
            watch.stop()
    file = args.results / f"{plan.name}.json"
    with file_lock(args.out / f"{plan.name}.lock"):  # another command may have written the file by now
        _check_whole(args, file, facts)
        known = load_kept(file, plan) if args.add else NOTHING
        write_atomic(file, as_text(merged(results_of(plan, hand, report, trainings, facts), known, plan)))
    for text in hand.missing:
        say(f"missing: {text}")
    print(file)
    if failed := report.facts.get("failed"):
        raise R1RankerError(f"run the same command again: {'; '.join(failed)}")


def _sources(items: Sequence[str]) -> dict[str, str]:
    sources = {}
    for item in items:
        name, equals, place = item.partition("=")
        if not equals:
            raise ConfigError(f"--source {item}: write it as name=path, such as rec-music=data/cds")
        sources[name] = place
    return sources


def _check_sources(sources: Mapping[str, str], names: Collection[str]) -> None:
    for pattern in sources:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"--source {pattern}: the plan has no such data set, it has {', '.join(sorted(names))}")


def _check_choice(option: str, given: Sequence[object], known: Sequence[object]) -> None:
    for value in given:
        if value not in known:
            raise ConfigError(f"{option} {value}: the plan has {', '.join(map(str, known)) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())

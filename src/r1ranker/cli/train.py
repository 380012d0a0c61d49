"""`r1ranker train`: a recipe in, a trained ranker out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import clock, out, say
from r1ranker.errors import ConfigError

if TYPE_CHECKING:
    from r1ranker.cli.compare import Contender
    from r1ranker.cli.runs import TrainedRun
    from r1ranker.config import RunConfig
    from r1ranker.datasets import Dataset

EPILOG = options.examples(
    "r1ranker train --list",
    "r1ranker train demo",
    "r1ranker train my-recipe.toml --set train.steps=200 --set seed=1 --out runs/mine",
    "r1ranker train demo --resume",
)


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe's file, or the name of one that ships with the package."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; repeat it for more."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The run's folder.", show_default="runs/NAME"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the run's folder.")
    ] = False,
    evaluate: Annotated[
        bool, typer.Option("--eval/--no-eval", help="Compare the trained model with its base on the test side.")
    ] = True,
    listed: Annotated[bool, typer.Option("--list", help="List the recipes that ship with the package.")] = False,
) -> None:
    """Train a ranker by a recipe, save it, and compare it with the model it was before.

    Ctrl-C or SIGTERM keeps a checkpoint; --resume goes on from it as if the run had not stopped, and
    `r1ranker model save` makes a model of it.
    """
    from r1ranker.cli.recipes import about, find_recipe, shipped_recipes

    if listed:
        for path in shipped_recipes():
            print(f"{path.stem:<33} {about(path)}")
        return
    if recipe is None:
        raise ConfigError("give a recipe: 'r1ranker train --list' shows those that ship with the package")

    from r1ranker.cli.mixing import load_datasets, mix
    from r1ranker.cli.runs import report_notes, train_run
    from r1ranker.config import load_config

    config = load_config(find_recipe(recipe), sets or [])
    folder = folder or Path("runs") / config.name
    datasets = load_datasets(config)
    data = mix(datasets)
    say(f"{data.name}: {len(data.train):,} examples to train on, {len(data.test):,} to test")
    report_notes(data)
    run = train_run(config, folder, resume=resume, dataset=data)
    _tell(run)
    if evaluate:
        _compare(run, datasets)


def _tell(run: TrainedRun) -> None:
    last = run.metrics[-1] if run.metrics else {}
    reward = f", last reward {last['reward']:.3f}" if "reward" in last else ""
    if run.config.warmup:
        _tell_warmup(run.folder / "warmup.jsonl")
    print(f"trained {run.config.train.steps} steps in {clock(run.seconds)}{reward}")
    if run.best_step is not None and run.config.validation is not None:
        print(f"the model is that of step {run.best_step}, the best by {run.config.validation.measure} of validation")
    for what, path in (
        ("model", run.model),
        ("warm-up", run.folder / "warmup.jsonl"),
        ("metrics", run.folder / "metrics.jsonl"),
        ("reward curve", run.folder / "reward.png"),
        ("validation", run.folder / "validation.jsonl"),
        ("its curve", run.folder / "validation.png"),
        ("TensorBoard", run.folder / "tensorboard"),
        ("checkpoints", run.folder / "checkpoints"),
    ):
        if path.exists():
            print(f"  {what:<13} {path}")
    print(f'try it: r1ranker rank --model {run.model} --query "…" --doc "…" --doc "…" --trace', flush=True)


def _tell_warmup(path: Path) -> None:
    from r1ranker.rl.metrics import read_metrics

    for row in read_metrics(path):
        loss = f", loss {row['loss']:.3f}" if "loss" in row else ""
        print(
            f"warm-up, round {row['step']}: {row['accepted']:,.0f} of {row['sampled']:,.0f} completions accepted, "
            f"{row['kept']:,.0f} kept{loss}"
        )


def _compare(run: TrainedRun, datasets: list[Dataset]) -> None:
    """One report a data set; without test examples there is nothing to say."""
    from r1ranker.cli.compare import compare
    from r1ranker.cli.errors import on_interrupt
    from r1ranker.evaluation import rich_table

    contenders = contenders_of(run.config, run.model)
    settings = run.config.evaluation
    taken: set[str] = set()
    for dataset in datasets:
        if not dataset.test:
            say(f"{dataset.name} has no test examples: it is not evaluated")
            continue
        short = options.as_folder(dataset.name)
        names = (short, *(f"{short}-{k}" for k in range(2, len(datasets) + 1)))  # files of one name in several folders
        short = next(name for name in names if name not in taken)
        taken.add(short)
        folder = run.folder / "evaluation" / short
        with on_interrupt(lambda: f"stopped the evaluation: the trained model is in {run.model}"):
            report = compare(
                dataset,
                contenders,
                folder,
                base=contenders[0].name,
                limit=settings.limit,
                seed=run.config.seed,
                concurrency=settings.concurrency,
                facts={"model": str(run.model), "base model": run.config.model.path},
            )
        console = out()
        console.print(rich_table(report.rows, report.base, console.width))
        print(f"  report        {folder / 'report.md'}", flush=True)


def contenders_of(config: RunConfig, model: Path) -> list[Contender]:
    """The base model, asked as the trained one is (and for the whole list at once), and the trained one."""
    from r1ranker.cli.compare import Contender
    from r1ranker.cli.rank import load_reranker
    from r1ranker.modelfolder import short_name

    base, device = config.model.path, config.model.device
    asked = config.ranker.model_dump()
    name = short_name(base)
    rows = [Contender(f"{name} ({config.ranker.kind})", lambda: load_reranker(base, asked, device))]
    if config.evaluation.direct and config.ranker.kind == "iterative":
        direct = {**asked, "kind": "direct", "constrained": False}
        rows.append(Contender(f"{name} (direct)", lambda: load_reranker(base, direct, device)))
    rows.append(Contender(f"{config.name} (trained)", lambda: load_reranker(str(model), {}, device), trained=True))
    return rows

"""`r1ranker evaluate`: a model beside the baselines, and beside another model, on a test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from r1ranker.cli import options
from r1ranker.cli.console import loading, out, say

EPILOG = options.examples(
    "r1ranker evaluate --model runs/demo/model --base smollm2-135m-instruct --dataset rec-movie --limit 100",
    "r1ranker evaluate --dataset rec-movie --option test_users=200 --limit 50",
    "r1ranker evaluate --model runs/demo/model --dataset mine.jsonl --out runs/mine",
    "r1ranker evaluate --dataset passage-5 --source data/selqa --first-stage bm25 --limit 50",
)


@options.takes_ranker
def evaluate(
    dataset: Annotated[str, typer.Option("--dataset", "-D", help="A data set's name, or a .jsonl file.")],
    model: options.Model = options.DEFAULT_MODEL,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Another model to compare with, asked as --model is, unless it was trained here in its own way; or a "
            "baseline's row, such as bm25 or 'as listed'.",
            show_default="random",
        ),
    ] = None,
    source: options.Source = None,
    option: options.DataOptions = None,
    *,
    settings: dict[str, Any],
    first_stage: Annotated[
        str | None,
        typer.Option(
            "--first-stage",
            metavar="BASELINE",
            help="Hand lists over as it ranks them; tell the model, or use --fusion.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Test examples, the first ones.", show_default="all"),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The report's folder.", show_default="runs/evaluate/MODEL-DATASET"),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Also popularity (or the label prior) and BM25.")
    ] = True,
    seed: Annotated[int, typer.Option("--seed", help="For sampling, the bootstrap and the tests.")] = 0,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Lists under way at once; fewer take less memory.")
    ] = 32,
    device: options.Device = "auto",
) -> None:
    """Measure a model on a test set, beside baselines that need no model.

    The report is saved after every row: what is measured is not lost if you stop.
    """
    data_options = options.key_values(option or [])
    data = options.load_data(dataset, source, data_options)

    from r1ranker.baselines import fit_baseline, presort
    from r1ranker.cli.compare import Contender, compare
    from r1ranker.evaluation import rich_table
    from r1ranker.evaluation.harness import BASELINE_ROWS, RANDOM
    from r1ranker.evaluation.held_out import not_held_out
    from r1ranker.evaluation.table import rich_routing
    from r1ranker.llm.servers import without_credentials
    from r1ranker.modelfolder import facts_of, short_name
    from r1ranker.reranker import UNTRAINED, Reranker, locate, with_settings

    row = base if base in BASELINE_ROWS else None
    other = None if row is not None else base
    with loading():  # also finds what is missing before anything long begins
        places = {name: locate(name) for name in (model, other) if name is not None}
    asked = with_settings(places[model][1] or UNTRAINED, settings)

    def load(name: str) -> Reranker:
        place, own = places[name]
        config: dict[str, Any] = (asked if own is None else with_settings(own, settings)).model_dump()
        with loading():
            return Reranker.load(place, device=device, seed=seed, **config)

    name = short_name(model)
    contenders = [Contender(name, lambda: load(model), trained=places[model][1] is not None)]
    if other is not None:
        base_name = short_name(other) if short_name(other) != name else f"{short_name(other)} (base)"
        contenders.insert(0, Contender(base_name, lambda: load(other)))
    notes = []
    for known, (place, _) in places.items():
        with loading():
            facts, tested = facts_of(place), data.test[:limit]
            text = not_held_out(facts, dataset, data_options, source, tested, data.fingerprint()) if facts else ""
        if text:
            notes.append(f"{short_name(known)}: {text}")
            say(notes[-1])
    folder = folder or Path("runs/evaluate") / f"{options.as_folder(name)}-{options.as_folder(dataset)}"
    for text in data.notes:
        say(f"  {text}")
    if first_stage is not None:
        handed = data.test[:limit]
        listed = presort(handed, fit_baseline(first_stage, data, handed, seed=seed))
        data = replace(data, test=(*listed, *data.test[len(listed) :]))
    report = compare(
        data,
        contenders,
        folder,
        base=contenders[0].name if other is not None else row or RANDOM,
        limit=limit,
        baselines=baselines,
        seed=seed,
        concurrency=concurrency,
        facts={
            "model": without_credentials(model),
            "base model": without_credentials(other or "none"),
            "ranker": asked.model_dump(mode="json"),
            **({"first stage": first_stage} if first_stage is not None else {}),
            **({"not held out": notes} if notes else {}),
        },
    )
    console = out()
    console.print(rich_table(report.rows, report.base, console.width))
    if (table := rich_routing(report.rows, report.facts.get("routing", {}))) is not None:
        console.print(table)
    for file in ("report.json", "report.md", "report.png"):
        if (folder / file).exists():
            print(f"  {folder / file}")

"""`r1ranker ability`: what a model can do beside ranking, before its training and after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import loading, say

EPILOG = options.examples(
    "r1ranker ability --model runs/demo/model --task hellaswag --task openbookqa --limit 200",
    "r1ranker ability --model runs/demo/model --include-path my-tasks --task my-task",
)


def ability(
    model: Annotated[str, typer.Option("--model", "-m", help="A trained model: a folder or a known name.")],
    base: Annotated[
        str | None,
        typer.Option("--base", help="The model before training.", show_default="what the model was trained from"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            help="A task or group of lm-evaluation-harness, or a YAML file; repeat it for more.",
            show_default="the paper's",
        ),
    ] = None,
    include_path: Annotated[
        Path | None,
        typer.Option("--include-path", metavar="DIR", help="A folder with tasks of your own, whose Python is run."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Questions of each task, the first ones.", show_default="all"),
    ] = None,
    unsafe_code: Annotated[
        bool, typer.Option("--unsafe-code", help="Allow tasks that run code the model writes (mbpp, humaneval).")
    ] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts computed at once.")] = 8,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The results' folder.", show_default="runs/ability/MODEL"),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Measure what training did to a model's other abilities, by lm-evaluation-harness.

    The figures from before training are saved as soon as they are there.
    """
    from importlib.metadata import version

    from r1ranker.assets import fetch_model
    from r1ranker.cli.errors import require_writable
    from r1ranker.cli.facts import command_line, machine, versions
    from r1ranker.evaluation import ability as harness
    from r1ranker.files import write_atomic
    from r1ranker.modelfolder import short_name

    name = short_name(model)
    folder = folder or Path("runs/ability") / re.sub(r"[/:@]", "-", name)
    require_writable(folder)
    if not task and not unsafe_code:
        say(f"left out: {', '.join(harness.CODE_TASKS)}, which run code the model writes; --unsafe-code takes them in")
    names = task or [*harness.SAFE_TASKS, *(harness.CODE_TASKS if unsafe_code else ())]
    with loading():
        after_place = fetch_model(model)
        before_place = harness.base_of(after_place) if base is None else fetch_model(base)
        tasks = harness.load_tasks(names, include=include_path, unsafe_code=unsafe_code)
    facts = {
        "model": model,
        "base model": base or before_place.name,
        "tasks": list(names),
        "limit": limit,
        "chat template": False,
        "versions": {**versions(), "lm_eval": version("lm_eval")},
        "machine": machine(),
        "command": command_line(),
    }

    def run(place: Path) -> harness.Scores:
        say(f"measuring {place}")
        with loading():
            return harness.measure(
                place, tasks, limit=limit, batch_size=batch_size, device=device, unsafe_code=unsafe_code
            )

    before = run(before_place)
    write_atomic(folder / "ability.json", harness.ability_json(before, None, facts))
    after = run(after_place)
    write_atomic(folder / "ability.json", harness.ability_json(before, after, facts))
    table = harness.ability_table(before, after)
    told = f"# {name}, before training and after\n\n{table}\n{harness.LEGEND}\n"
    write_atomic(folder / "ability.md", told + (f"\nThe first {limit:,} questions of each task.\n" if limit else ""))
    print(table)
    for file in ("ability.json", "ability.md"):
        print(f"  {folder / file}")

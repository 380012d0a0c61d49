"""The entry point `r1ranker`: global options, and one command a module."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

import r1ranker
from r1ranker.cli import ability, bench, data, doctor, evaluate, models, options, rank, reports, serve, thoughts, train
from r1ranker.cli.console import quiet
from r1ranker.cli.errors import GuardedGroup

app = typer.Typer(
    name="r1ranker",
    cls=GuardedGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=options.examples(
        "r1ranker doctor",
        'r1ranker rank --model runs/demo/model --history "Heat (1995)" --doc "Babe (1995)" --doc "Casino (1995)"',
        "r1ranker demo",
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"r1ranker {r1ranker.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="R1RANKER_DEBUG", help="Show tracebacks, and what libraries say.")
    ] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Rank with LLMs that reason, and train them to.

    Results go to stdout, everything else to stderr. Fetched models and data are kept in $R1RANKER_CACHE.
    """
    if not debug:
        quiet()


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The demo's folder.")] = Path("runs/demo"),
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Another recipe, by name or file.", show_default="demo"),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting of the recipe; repeat it for more."),
    ] = None,
) -> None:
    """Train a small model to rank films in minutes, and see the difference."""
    from r1ranker.cli.demo import run_demo

    run_demo(out=out, recipe=recipe, sets=sets or [])


app.command(epilog=options.examples("r1ranker demo", "r1ranker demo --out runs/short --set train.steps=10"))(demo)
app.command(epilog=rank.EPILOG)(rank.rank)
app.command(epilog=serve.EPILOG)(serve.serve)
app.command(epilog=train.EPILOG)(train.train)
app.command(epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command(epilog=reports.EPILOG)(reports.compare)
app.command(epilog=bench.EPILOG)(bench.bench)
app.command(epilog=ability.EPILOG)(ability.ability)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="model")
app.add_typer(thoughts.app, name="thoughts")
app.command(epilog=doctor.EPILOG)(doctor.doctor)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "…" is no reason to fail
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has left: what Python still holds would be a complaint at its very end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

"""`r1ranker bench`: rows and data sets from one TOML file, and one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import Bar, loading, out, say
from r1ranker.errors import ConfigError, MissingExtraError, R1RankerError

EPILOG = options.examples(
    "r1ranker bench --list",
    "r1ranker bench baselines --set 'data.names=[\"rec-movie\"]' --set limit=100",
    "r1ranker bench baselines --source rec-music=data/cds --source rec-game=data/games "
    '--source "router-*=data/nq" --source "passage-*=data/selqa"',
    "r1ranker bench my-bench.toml --out runs/mine",
)


class Watching:
    """Shows a benchmark's progress on stderr: a bar a row and data set, and a line when it is done."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def begin(self, label: str, steps: int) -> None:
        """See `benchmark.run.Watch`."""
        self.stop()
        self._bar = Bar(label, steps, transient=True)
        self._bar.__enter__()

    def step(self, done: int) -> None:
        """See `benchmark.run.Watch`."""
        if self._bar is not None:
            self._bar.update(done)

    def end(self, text: str) -> None:
        """See `benchmark.run.Watch`."""
        self.stop()
        say(text)

    def say(self, text: str) -> None:
        """See `benchmark.run.Watch`."""
        self.stop()
        say(text)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def bench(
    config: Annotated[
        str | None, typer.Argument(help="A benchmark's file, or the name of one that ships with the package.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; repeat it for more."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME=PATH",
            help='Where a data set\'s raw files are; NAME may be "router-*". Repeat it.',
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The report's folder.", show_default="runs/bench/NAME")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the benchmarks that ship with the package.")] = False,
) -> None:
    """Run rankers on data sets side by side, and report quality, significance and cost.

    Results are kept as they come: run the same command again after a stop, and it goes on where it was.
    """
    from r1ranker.benchmark.config import load_bench
    from r1ranker.cli.recipes import BENCHMARKS, about, find_recipe, shipped_recipes

    if listed:
        for path in shipped_recipes(BENCHMARKS):
            print(f"{path.stem:<20} {about(path)}")
        return
    if config is None:
        raise ConfigError("give a benchmark: 'r1ranker bench --list' shows those that ship with the package")
    settings = list(sets or [])
    for item in source or []:
        name, equals, place = item.partition("=")
        if not equals:
            raise ConfigError(f"--source {item}: write it as name=path, such as rec-music=data/cds")
        settings.append(f"data.sources.{json.dumps(name, ensure_ascii=False)}={json.dumps(place, ensure_ascii=False)}")
    bench = load_bench(find_recipe(config, BENCHMARKS), settings)
    folder = folder or Path("runs/bench") / bench.name

    from r1ranker.benchmark.export import rich_tables, save
    from r1ranker.benchmark.run import run_bench
    from r1ranker.cli.errors import on_interrupt, require_writable
    from r1ranker.cli.facts import command_line, machine, versions
    from r1ranker.files import write_atomic
    from r1ranker.llm.servers import without_credentials

    require_writable(folder / "cache")
    write_atomic(folder / "bench.json", without_credentials(bench.model_dump_json(indent=2)) + "\n")
    watch = Watching()
    facts = {"name": bench.name, "command": command_line(), "versions": versions(), "machine": machine()}
    kept = f"stopped: what is finished is kept in {folder / 'cache'}; run the same command again to go on"
    with on_interrupt(lambda: kept), loading():
        try:
            report = run_bench(bench, folder, watch, facts)
        finally:
            watch.stop()
    say("testing, and writing the report")
    try:
        written = save(report, folder)
    except MissingExtraError as error:
        say(f"pictures and the page are left out: {error}")
        written = [path for name in ("json", "csv", "md") if (path := folder / f"report.{name}").exists()]
    console = out()
    for table in rich_tables(report, console.width):
        console.print(table)
    for path in written:
        print(f"  {path}")
    if failed := report.facts.get("failed"):
        count = f"{len(failed)} row{'s' * (len(failed) > 1)}"
        raise R1RankerError(f"{count} could not be finished, run the same command again: {'; '.join(failed)}")

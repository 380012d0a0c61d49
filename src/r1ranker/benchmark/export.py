"""A benchmark's report on disk: JSON, CSV, Markdown, pictures, and one self-contained page."""

from __future__ import annotations

import base64
import csv
import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from r1ranker.benchmark.report import BenchReport
from r1ranker.benchmark.tables import Table, seconds_per_query, tables
from r1ranker.errors import MissingExtraError
from r1ranker.evaluation.rows import STATUSES
from r1ranker.evaluation.table import escaped
from r1ranker.files import write_atomic
from r1ranker.plotting import plot_groups, plot_scatter

CSV_COLUMNS = (
    "row", "dataset", "scenario", "queries", "runs", "measure", "value", "low", "high", "difference", "p", "p_holm",
    "calls", "prompt_tokens", "completion_tokens", "cached_tokens", "seconds", "flops", *STATUSES, "truncated",
    "cut_short",
)  # fmt: skip
_NAME_WIDTH = 24  # of a row's name in a terminal; longer ones are folded


def save(report: BenchReport, folder: Path) -> list[Path]:
    """Write report.json, report.csv, report.md, a PNG for each scenario, cost.png and report.html.

    Raises MissingExtraError without matplotlib or jinja2, when all else is written already.
    """
    data, table, text = folder / "report.json", folder / "report.csv", folder / "report.md"
    write_atomic(data, json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(table, csv_text(report))
    pictures: list[Path] = []
    try:
        pictures = plot(report, folder)
    finally:
        write_atomic(text, markdown(report, pictures))
    page = folder / "report.html"
    write_atomic(page, html(report, pictures))
    return [data, table, text, *pictures, page]


def markdown(report: BenchReport, pictures: Sequence[Path] = ()) -> str:
    """The report in Markdown, with links to pictures that lie beside it."""
    parts = [f"# {escaped(report.facts.get('name', 'Benchmark'))}", ""]
    for table in tables(report):
        parts += [f"## {table.title}", "", _markdown_table(table), *([escaped(table.note), ""] if table.note else [])]
    parts += [f"![{path.stem}]({path.name})\n" for path in pictures]
    parts += ["## Facts", ""]
    parts += [f"- {escaped(key)}: {escaped(_plain(value))}" for key, value in _facts(report).items()]
    parts += [f"- {escaped(name)}: {escaped(note)}" for name, notes in _data_notes(report).items() for note in notes]
    return "\n".join(parts) + "\n"


def csv_text(report: BenchReport) -> str:
    """One line for each row, data set and measure; on each stand the costs of all runs of that row and data set."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for cell in report.cells:
        costs = [cell.calls, cell.prompt_tokens, cell.completion_tokens, cell.cached_tokens, cell.seconds, cell.flops]
        for measure, value in cell.measures.items():
            compared = report.comparisons.get(measure, {}).get((cell.name, cell.dataset))
            tested = (compared.difference, compared.p, compared.p_holm) if compared else ("", "", "")
            place = (cell.name, cell.dataset, report.scenarios[cell.dataset], cell.queries, max(1, len(cell.run_means)))
            parse = (cell.parse[status] for status in STATUSES)
            low, high = cell.intervals[measure]
            lost = (cell.truncated, cell.cut_short)
            writer.writerow((*place, measure, value, low, high, *tested, *costs, *parse, *lost))
    return out.getvalue()


def plot(report: BenchReport, folder: Path) -> list[Path]:
    """A picture of grouped bars for each scenario, and one of quality against cost."""
    paths = []
    panels: dict[str, dict[str, tuple[float, float] | None]] = {}
    for scenario in dict.fromkeys(report.scenarios.values()):
        datasets = [d for d in report.datasets if report.scenarios[d] == scenario]
        series: dict[str, list[tuple[float, float, float] | None]] = {}
        points: dict[str, tuple[float, float] | None] = {}
        for name in report.names:
            cells = [report.cell(name, d) for d in datasets]
            series[name] = [(c.measures["MRR"], *c.intervals["MRR"]) if c else None for c in cells]
            rows = [c for c in cells if c is not None]
            points[name] = None
            if len(rows) == len(datasets) and (cost := seconds_per_query(rows)):
                points[name] = (1000 * cost, fmean(row.measures["MRR"] for row in rows))
        panels[f"{scenario}, mean of {len(datasets)}" if len(datasets) > 1 else datasets[0]] = points
        paths.append(folder / f"{scenario}.png")
        plot_groups(datasets, series, paths[-1], title=f"MRR, {scenario}", label="MRR, with 95% intervals")
    paths.append(folder / "cost.png")
    plot_scatter(panels, paths[-1], x_label="milliseconds a query (log)", y_label="MRR")
    return paths


def html(report: BenchReport, pictures: Sequence[Path]) -> str:
    """One page that needs nothing else: tables, and the pictures inside it."""
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise MissingExtraError("The report's page", "jinja2", "eval") from error
    source = (files("r1ranker.benchmark") / "report.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    return template.render(
        title=report.facts.get("name", "Benchmark"),
        tables=tables(report),
        pictures=[(path.stem, base64.b64encode(path.read_bytes()).decode("ascii")) for path in pictures],
        facts={key: _plain(value) for key, value in _facts(report).items()},
        notes=_data_notes(report),
    )


def rich_tables(report: BenchReport, width: int, titles: Sequence[str] = ("MRR", "Cost of a query")) -> list[RichTable]:
    """The tables of these titles for a terminal; one that is wider than `width` goes on below with further columns."""
    return [_rich(part) for table in tables(report) if table.title in titles for part in _fitting(table, width)]


def _fitting(table: Table, width: int) -> list[Table]:
    """The table, in as many parts as it takes to keep every column whole; the last part has the note."""
    room = width - 2 - min(_NAME_WIDTH, max(len(_label(table, name)) for name, _ in table.rows))
    parts: list[list[int]] = [[]]
    left = room
    for k, column in enumerate(table.columns):
        texts = [*_heading(column).splitlines(), *(cells[k].text for _, cells in table.rows)]
        need = 1 + max(map(len, texts))
        if need > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(k)
        left -= need
    return [
        replace(
            table,
            title=table.title if places is parts[0] else f"{table.title}, continued",
            columns=tuple(table.columns[k] for k in places),
            rows=tuple((name, tuple(cells[k] for k in places)) for name, cells in table.rows),
            note=table.note if places is parts[-1] else "",
        )
        for places in parts
    ]


def _rich(table: Table) -> RichTable:
    made = RichTable(title=Text(table.title), caption=Text(table.note), box=box.SIMPLE_HEAD, padding=0)
    made.add_column("", overflow="fold")
    for column in table.columns:
        made.add_column(Text(_heading(column)), justify="right", no_wrap=True)
    for name, cells in table.rows:
        made.add_row(Text(_label(table, name)), *(Text(cell.text, style="bold" if cell.best else "") for cell in cells))
    return made


def _heading(column: str) -> str:
    """A column's name in lines that are about as narrow as its numbers; a file's name may be long."""
    lines = column.replace("-", "-\n", 1).replace(" ", "\n", 1).splitlines()
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 16))


def _label(table: Table, name: str) -> str:
    return f"{name} (base)" if name in table.marked else name


def _markdown_table(table: Table) -> str:
    lines = [("", *table.columns), ("---", *("---:",) * len(table.columns))]
    for name, cells in table.rows:
        lines.append((_label(table, name), *(f"**{cell.text}**" if cell.best else cell.text for cell in cells)))
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines) + "\n"


def _facts(report: BenchReport) -> dict[str, Any]:
    """Facts but those of the data sets, which have a table."""
    return {key: value for key, value in report.facts.items() if key != "data"}


def _data_notes(report: BenchReport) -> dict[str, Sequence[str]]:
    return {name: about.get("notes", ()) for name, about in report.facts.get("data", {}).items()}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

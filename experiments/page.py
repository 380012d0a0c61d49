"""Write the page of all experiments from their JSON files.

    python experiments/page.py

The same files give the same page and pictures, byte for byte.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from figures import MEASURE, Figures, Gains
from pairs import Pair, pairs_of
from r1ranker.benchmark.quoted import SOURCE, quoted_data, quoted_rows
from r1ranker.benchmark.report import ALPHA, SHOWN
from r1ranker.cli.console import clock
from r1ranker.cli.errors import complain
from r1ranker.errors import InputError, R1RankerError
from r1ranker.evaluation.runs import file_name
from r1ranker.files import write_atomic
from r1ranker.plotting import plot_curve, plot_groups

PAGE = Path("docs/experiments.md")
RESULTS = Path("docs/results/experiments")
_WHERE = ("machine", "versions")
INTRODUCTION = f"""# The paper's experiments

Written by `python experiments/page.py` from [JSON files]({{folder}}); `experiments/README.md` says how to run one.

How to read the tables: MRR on held-out queries, the mean over queries and training seeds, with its 95% bootstrap
interval over queries, and ± the standard deviation over seeds where there are two or more. A `+` or `-` marks a row
that is better or worse than the row it is compared with: paired randomization test over queries on means over seeds,
p < {ALPHA:g} after Holm's correction for all comparisons of the experiment. The mean gain is MRR / the other row's
MRR - 1 on the queries that both ranked, averaged over data sets, with its 95% bootstrap interval. Tokens: those that a
model computed for a list; what it reused does not count. `-`: not run.
"""
PAIRS = (
    "Rows beside each other: the row's MRR less the other's, on the queries, and of the training seeds, that both "
    f"have. `*`: p < {ALPHA:g} after Holm's correction for all of these differences. p: of the mean difference, each "
    "data set counting the same, by a test of its own that is corrected for the number of pairs."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 for an error, which is told in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of run.py's JSON files")
    parser.add_argument("--page", type=Path, default=PAGE, help="the Markdown file")
    args = parser.parse_args(arguments)
    try:
        write_page(args.results, args.page)
    except R1RankerError as error:
        complain(f"error: {error}")
        return 1
    print(args.page)
    return 0


def write_page(folder: Path, page: Path) -> None:
    """Write the page, and the pictures beside the JSON files. Raises InputError where there is no JSON file."""
    files = sorted(folder.glob("*.json"), key=lambda path: (path.stem != "main", path.stem))
    if not files:
        raise InputError(f"{folder} holds no experiment's results: run experiments/run.py first")
    place = Path(os.path.relpath(folder, page.parent)).as_posix()
    sections = [INTRODUCTION.format(folder=place)]
    for path in files:
        figures = Figures.load(path)
        pictures = draw(figures, folder)
        sections.append(section(figures, place, pictures))
    write_atomic(page, "\n".join(sections))


def section(figures: Figures, place: str, pictures: Sequence[str]) -> str:
    """An experiment's part of the page. place: the folder of the JSON files and pictures, as the page links to it."""
    results = figures.results
    parts = [f"## {results['title']}", results["question"]]
    parts += [table(*main_table(figures)), table(*gain_table(figures))]
    if pairs := pairs_of(figures):
        parts += [PAIRS, table(*pair_table(figures, pairs))]
    if figures.by_seed:
        parts += ["Of these, seed by seed:", table(*seed_table(figures))]
    if results["quoted"] and (quoted := quoted_table(figures)):
        parts += [
            f"Quoted from the paper ({SOURCE}), not measured here: MRR on the authors' own samples of the data in the "
            "first row, so not to be compared figure by figure. About: read off a chart.",
            table(*quoted),
        ]
    parts += [f"![{name}]({place}/{name})" for name in pictures if name == f"{results['name']}.png"]
    if results["missing"]:
        parts.append("Missing or to be known:\n\n" + "\n".join(f"- {text}" for text in results["missing"]))
    if results["trainings"]:
        parts.append(table(*training_table(figures, place, pictures)))
    parts += [table(*data_table(figures)), repeat(figures, place)]
    return "\n\n".join(parts) + "\n"


Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown lines; a bar inside of a cell would end it."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(columns)}", *lines[1:]])


def main_table(figures: Figures) -> Table:
    """Rows x data sets: the MRR, whether it differs, its interval and its spread over seeds."""

    def shown(row: str, dataset: str) -> str:
        if (cell := figures.cells.get((row, dataset))) is None:
            return "-"
        compared = figures.comparisons.get((row, dataset))
        spread = "" if cell.spread is None else f" ± {cell.spread:.3f}"
        return f"{cell.mean():.3f}{compared.mark if compared else ''} [{cell.low:.3f}, {cell.high:.3f}]{spread}"

    rows = [[row, *(shown(row, dataset) for dataset in figures.datasets)] for row in figures.rows]
    return [MEASURE, *figures.datasets], rows


def gain_table(figures: Figures) -> Table:
    """Each row against the row it is compared with, over data sets; and its means of all measures."""
    rows = []
    for row in figures.rows:
        gains, base = figures.gains(row), figures.base_of[row]
        cells = [cell for dataset in figures.datasets if (cell := figures.cells.get((row, dataset)))]
        compared = (
            [
                _gain(gains),
                *(f"{count} of {gains.datasets}" for count in (gains.above, gains.better, gains.worse)),
            ]
            if gains.datasets
            else ["-"] * 4
        )
        means = [figures.mean(row, measure) for measure in SHOWN]
        told = ["-" if mean is None else f"{mean:.3f}" for mean in means]
        against = "-" if row == base else base
        spans = [_span([cell.seeds for cell in cells]), _span([cell.queries for cell in cells])]
        tokens = fmean(cell.tokens for cell in cells)
        rows.append([row, against, *compared, *spans, f"{tokens:,.0f}" if tokens else "-", *told])
    compared_columns = ("compared with", "mean gain", "above", "significantly better", "significantly worse")
    return ["row", *compared_columns, "seeds", "queries", "tokens", *(f"mean {measure}" for measure in SHOWN)], rows


def pair_table(figures: Figures, pairs: Sequence[Pair]) -> Table:
    """What a row has more than another one: the difference of MRR on each data set, and on average."""

    def shown(pair: Pair) -> list[str]:
        by_dataset = [
            f"{one.difference:+.3f}{'*' if one.mark else ''}" if (one := pair.differences.get(d)) else "-"
            for d in figures.datasets
        ]
        low, high = pair.interval
        overall = f"{pair.overall.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        return [pair.row, pair.other, *by_dataset, overall, _p(pair.overall.p_holm)]

    columns = ["row", "compared with", *figures.datasets, "mean difference", "p"]
    return columns, [shown(pair) for pair in pairs]


def seed_table(figures: Figures) -> Table:
    """The MRR of every seed of rows with several, and its mean over the data sets."""

    def shown(row: str, seed: int, of: Mapping[str, float]) -> list[str]:
        cells = [f"{of[dataset]:.3f}" if dataset in of else "-" for dataset in figures.datasets]
        return [row, str(seed), *cells, f"{fmean(of.values()):.3f}" if "-" not in cells else "-"]

    rows = [shown(row, seed, of) for (row, seed), of in figures.by_seed.items()]
    return [MEASURE, "seed", *figures.datasets, "mean"], rows


def _gain(gains: Gains) -> str:
    if gains.relative is None:
        return "-"
    between = "" if gains.interval is None else " [{:+.1%}, {:+.1%}]".format(*gains.interval)
    return f"{gains.relative:+.1%}{between}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def quoted_table(figures: Figures) -> Table | None:
    """The paper's MRR on the data sets of this experiment; None where it has none."""
    data = quoted_data()
    columns = [dataset for dataset in figures.datasets if dataset in data]
    if not columns:
        return None
    rows = [["measured on", *(data[dataset] for dataset in columns)]]
    for quoted in quoted_rows():
        about = "about " if quoted.approximate else ""
        rows.append([quoted.name, *(f"{about}{quoted.mrr[d]:.3f}" if d in quoted.mrr else "-" for d in columns)])
    return ["quoted", *columns], rows


def training_table(figures: Figures, place: str, pictures: Sequence[str]) -> Table:
    """Every training that is finished."""
    rows = []
    for told in figures.results["trainings"]:
        picture = _curve_name(figures, told["name"])
        curve = f"[curve]({place}/{picture})" if picture in pictures else "-"
        rewards = told["curve"]["reward"]
        last = f"{rewards[-1]:.3f}" if rewards else "-"
        changed = ", ".join(f"`{setting}`" for setting in told["set"])
        changed = ", ".join(filter(None, [f"begins at {told['after']}" if "after" in told else "", changed])) or "-"
        row = [told["name"], str(told["seed"]), told["recipe"], changed, f"{told['steps']:,}", clock(told["seconds"])]
        rows.append([*row, f"{told['tokens']:,}", last, curve, told["commit"]])
    columns = ["training", "seed", "recipe", "changed", "steps", "time", "tokens", "last reward", "curve", "commit"]
    return columns, rows


def data_table(figures: Figures) -> Table:
    """The data sets."""
    keys = ("scenario", "source", "test queries", "train examples", "without a relevant candidate", "fingerprint")
    data = figures.results["data"]
    rows = [[dataset, *(str(data[dataset].get(key, "-")) for key in keys)] for dataset in figures.datasets]
    return ["data set", *keys], rows


def repeat(figures: Figures, place: str) -> str:
    """The commands, and where and when they ran."""
    results = figures.results
    benchmarks = [*results.get("earlier", ()), results]
    last = len(benchmarks) - 1
    commands = dict.fromkeys(told["command"] for told in (*results["trainings"], *benchmarks))
    lines = "\n".join(f"    {command}" for command in commands)
    texts = [f"To repeat it:\n\n{lines}"]
    for k, told in enumerate(benchmarks):
        machine, versions = (", ".join(f"{key} {value}" for key, value in told[what].items()) for what in _WHERE)
        cells = [cell for cell in results["cells"] if cell.get("earlier", last) == k]
        which = "" if last == 0 else f" of {_told_cells(cells, figures)}"
        texts.append(f"Benchmark{which} at commit {told['commit']}, {told['date']}; {machine}; {versions}.")
    return "\n\n".join(texts) + f" [Values of every query]({place}/{results['name']}.json)."


def _told_cells(cells: Sequence[Mapping[str, Any]], figures: Figures) -> str:
    """Which rows and data sets cells are of, as a text: rows that ran on the same data sets stand together."""
    by_row: dict[str, list[str]] = {}
    for cell in cells:
        seed = "" if cell["seed"] is None else f" (seed {cell['seed']})"
        by_row.setdefault(f"`{cell['row']}`{seed}", []).append(cell["dataset"])
    by_datasets: dict[tuple[str, ...], list[str]] = {}
    for row, datasets in by_row.items():
        by_datasets.setdefault(tuple(datasets), []).append(row)
    return "; ".join(
        f"{', '.join(rows)} on {'all data sets' if datasets == figures.datasets else ', '.join(datasets)}"
        for datasets, rows in by_datasets.items()
    )


def draw(figures: Figures, folder: Path) -> list[str]:
    """The MRR of all rows, and a reward curve for each training; returns the pictures' names."""
    name = figures.results["name"]
    series: dict[str, list[tuple[float, float, float] | None]] = {
        row: [
            (cell.mean(), cell.low, cell.high) if (cell := figures.cells.get((row, dataset))) else None
            for dataset in figures.datasets
        ]
        for row in figures.rows
    }
    plot_groups(figures.datasets, series, folder / f"{name}.png", title=figures.results["title"], label=MEASURE)
    pictures = [f"{name}.png"]
    for training in dict.fromkeys(told["name"] for told in figures.results["trainings"]):
        curves = {t["seed"]: t["curve"] for t in figures.results["trainings"] if t["name"] == training}
        if picture := _draw_curves(curves, folder / _curve_name(figures, training), f"{training}: reward by step"):
            pictures.append(picture)
    return pictures


def _draw_curves(curves: dict[int, dict[str, Any]], path: Path, title: str) -> str:
    steps = sorted({step for curve in curves.values() for step in curve["step"]})
    if not steps:
        return ""
    rewards = {seed: dict(zip(curve["step"], curve["reward"], strict=True)) for seed, curve in curves.items()}
    series = {f"seed {seed}": [of.get(step, float("nan")) for step in steps] for seed, of in rewards.items()}
    plot_curve(steps, series, path, title=title)
    return path.name


def _curve_name(figures: Figures, training: str) -> str:
    return file_name(f"{figures.results['name']}-{training}-reward") + ".png"


if __name__ == "__main__":
    sys.exit(main())

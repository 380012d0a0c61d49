"""Write the page of all experiments from their JSON files.

    python experiments/page.py

The same files give the same page and pictures, byte for byte.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from figures import MEASURE, Figures
from page_tables import (
    curve_name,
    data_table,
    gain_table,
    main_table,
    pair_table,
    quoted_table,
    seed_table,
    table,
    training_table,
)
from pairs import pairs_of
from r1ranker.benchmark.quoted import SOURCE
from r1ranker.benchmark.report import ALPHA
from r1ranker.cli.errors import complain
from r1ranker.errors import InputError, R1RankerError
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
MRR - 1 on the queries that both ranked, averaged over data sets, with its 95% interval by the basic bootstrap. A query
that stands in several data sets (the three of routing ask the same ones) counts once in what is said over data sets.
Tokens: those that a model computed for a list; what it reused does not count. `-`: not run.
"""
PAIRS = (
    "Rows beside each other: the row's MRR less the other's, on the queries, and of the training seeds, that both "
    f"have. `*`: p < {ALPHA:g} after Holm's correction for all of these differences. p: of the mean difference, each "
    "data set counting the same, by a test of its own that is corrected for the number of pairs. Lists: of all data "
    "sets, on how many the row is above, level and below."
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
    if told := [*results["missing"], *results.get("notes", ())]:
        parts.append("Missing or to be known:\n\n" + "\n".join(f"- {text}" for text in told))
    if results["trainings"]:
        parts.append(table(*training_table(figures, place, pictures)))
    parts += [table(*data_table(figures)), repeat(figures, place)]
    return "\n\n".join(parts) + "\n"


def repeat(figures: Figures, place: str) -> str:
    """The commands, and where and when they ran; benchmarks at one commit on one machine are told together."""
    results = figures.results
    benchmarks = [*results.get("earlier", ()), results]
    last = len(benchmarks) - 1
    texts = ["To repeat it, each at its commit (plans and recipes change), with `--results` and a folder of its own:"]
    if results["trainings"]:
        texts += ["Trainings:", _commands(results["trainings"])]
    alike: dict[str, list[int]] = {}
    for k, told in enumerate(benchmarks):
        machine, versions = (", ".join(f"{key} {value}" for key, value in told[what].items()) for what in _WHERE)
        alike.setdefault(f"{told['commit']}, {told['date']}; {machine}; {versions}", []).append(k)
    for where, numbers in alike.items():
        cells = [cell for cell in results["cells"] if cell.get("earlier", last) in numbers]
        which = "" if len(alike) == 1 else f" of {_told_cells(cells, figures)}"
        texts += [f"Benchmark{which} at commit {where}:", _commands([benchmarks[k] for k in numbers])]
    return "\n\n".join([*texts, f"[Values of every query]({place}/{results['name']}.json)."])


def _commands(told: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(dict.fromkeys(f"    {one['command']}" for one in told))


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
        if picture := _draw_curves(curves, folder / curve_name(figures, training), f"{training}: reward by step"):
            pictures.append(picture)
    return pictures


def _draw_curves(curves: dict[int, dict[str, Any]], path: Path, title: str) -> str:
    steps = sorted({step for curve in curves.values() for step in curve["step"]})
    if not steps:
        return ""
    # States differ from step to step in how easy they are: less what chance earns in them, a curve is smoother.
    above = all("chance" in curve for curve in curves.values())
    series = {}
    for seed, curve in curves.items():
        chance = curve["chance"] if above else [0.0] * len(curve["step"])
        rewards = [reward - less for reward, less in zip(curve["reward"], chance, strict=True)]
        values = dict(zip(curve["step"], rewards, strict=True))
        series[f"seed {seed}"] = [values.get(step, nan) for step in steps]
    plot_curve(steps, series, path, title=title, label="reward above chance" if above else "reward")
    return path.name


if __name__ == "__main__":
    sys.exit(main())

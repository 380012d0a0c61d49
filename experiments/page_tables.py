"""The tables of an experiment's part of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from figures import MEASURE, Figures, Gains
from pairs import Pair
from r1ranker.benchmark.quoted import quoted_data, quoted_rows
from r1ranker.benchmark.report import SHOWN
from r1ranker.cli.console import clock
from r1ranker.evaluation.runs import file_name
from r1ranker.evaluation.table import escaped

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown lines."""
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in (columns, *rows)]
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
    """What a row has more than another one: the difference of MRR on each data set and on average, and on lists."""

    def shown(pair: Pair) -> list[str]:
        by_dataset = [
            f"{one.difference:+.3f}{'*' if one.mark else ''}" if (one := pair.differences.get(d)) else "-"
            for d in figures.datasets
        ]
        low, high = pair.interval
        overall = f"{pair.overall.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        lists = " / ".join(f"{count:,}" for count in pair.lists)
        return [pair.row, pair.other, *by_dataset, overall, _p(pair.overall.p_holm), lists]

    columns = ["row", "compared with", *figures.datasets, "mean difference", "p", "lists above / level / below"]
    return columns, [shown(pair) for pair in pairs]


def seed_table(figures: Figures) -> Table:
    """The MRR of every seed of rows with several, and its mean over the data sets."""

    def shown(row: str, seed: int, of: Mapping[str, float]) -> list[str]:
        cells = [f"{of[dataset]:.3f}" if dataset in of else "-" for dataset in figures.datasets]
        mean = "-" if "-" in cells else f"{fmean(of[dataset] for dataset in figures.datasets):.3f}"
        return [row, str(seed), *cells, mean]

    rows = [shown(row, seed, of) for (row, seed), of in figures.by_seed.items()]
    return [MEASURE, "seed", *figures.datasets, "mean"], rows


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
        picture = curve_name(figures, told["name"])
        curve = f"[curve]({place}/{picture})" if picture in pictures else "-"
        last = _last_reward(told["curve"])
        changed = ", ".join(f"`{setting}`" for setting in told["set"])
        changed = ", ".join(filter(None, [f"begins at {told['after']}" if "after" in told else "", changed])) or "-"
        row = [told["name"], str(told["seed"]), told["recipe"], changed, f"{told['steps']:,}", clock(told["seconds"])]
        rows.append([*row, f"{told['tokens']:,}", last, curve, told["commit"]])
    measured = ["time", "tokens", "last reward (above chance)", "curve", "commit"]
    return ["training", "seed", "recipe", "changed", "steps", *measured], rows


def _last_reward(curve: dict[str, list[float]]) -> str:
    if not curve["reward"]:
        return "-"
    last = curve["reward"][-1]
    return f"{last:.3f}" + (f" ({last - curve['chance'][-1]:+.3f})" if "chance" in curve else "")


def data_table(figures: Figures) -> Table:
    """The data sets."""
    keys = ("scenario", "source", "test queries", "train examples", "without a relevant candidate", "fingerprint")
    data = figures.results["data"]
    rows = [[dataset, *(str(data[dataset].get(key, "-")) for key in keys)] for dataset in figures.datasets]
    return ["data set", *keys], rows


def curve_name(figures: Figures, training: str) -> str:
    """The picture of a training's rewards."""
    return file_name(f"{figures.results['name']}-{training}-reward") + ".png"


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

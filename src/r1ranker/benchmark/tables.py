"""A benchmark's report as tables of texts, which the terminal, Markdown and the page all show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from r1ranker.benchmark.quoted import SOURCE, quoted_data, quoted_rows
from r1ranker.benchmark.report import ALPHA, SHOWN, BenchReport
from r1ranker.evaluation import Row
from r1ranker.evaluation.rows import STATUSES
from r1ranker.evaluation.table import ROUTING


@dataclass(frozen=True, slots=True)
class Cell:
    """text: what is shown. best: the highest of its column. detail: what a pointer held over it shows."""

    text: str
    best: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """rows: a name and a cell for each further column. note: what the reader must know to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""
    marked: frozenset[str] = field(default_factory=frozenset)


EMPTY = Cell("-")


def tables(report: BenchReport) -> list[Table]:
    """All tables of a report, the most telling first; those without rows are left out."""
    found = [measure_table(report, measure) for measure in SHOWN]
    found += [variant_table(report, measure) for measure in SHOWN if report.variants]
    found += [
        interval_table(report),
        routing_table(report),
        cost_table(report),
        parse_table(report),
        order_table(report),
        seed_table(report),
        data_table(report),
        quoted_table(report),
    ]
    return [table for table in found if table.rows]


def measure_table(report: BenchReport, measure: str) -> Table:
    """One measure: a row for each ranker, a column for each data set, and the mean over all data sets."""
    means = {name: report.mean(name, measure) for name in report.names}
    fewer = {c.name: c.queries for c in report.cells if not report.whole(c)}
    top = max((mean for name, mean in means.items() if mean is not None and name not in fewer), default=None)

    def mean(name: str) -> Cell:
        value = means[name]
        return EMPTY if value is None else Cell(f"{value:.3f}", value == top and name not in fewer)

    limited = "".join(f" '{name}' ranked the first {queries:,} queries alone." for name, queries in fewer.items())
    return Table(
        measure,
        (*report.datasets, "mean"),
        tuple((name, (*cells, mean(name))) for name, cells in _measured(report, measure, report.datasets)),
        f"+ or -: better or worse than '{report.base}' (paired randomization test over queries, p < {ALPHA:g} after "
        f"Holm's correction for all {len(report.comparisons[measure])} comparisons of {measure}). Bold: the highest. "
        "A query without a relevant candidate counts 0. The mean is over data sets, for rows that ran on all."
        + limited,
        frozenset({report.base}),
    )


def variant_table(report: BenchReport, measure: str) -> Table:
    """One measure on the variants: the same lists, judged in another way."""
    options = {name: report.facts.get("data", {}).get(name, {}).get("options", {}) for name in report.variants}
    told = "; ".join(f"{name}: {', '.join(f'{k} = {v}' for k, v in o.items())}" for name, o in options.items() if o)
    ran = [row for row in _measured(report, measure, report.variants) if any(cell is not EMPTY for cell in row[1])]
    return Table(
        f"{measure}, judged in another way",
        report.variants,
        tuple(ran),
        f"Variants of data sets above, not counted in means and costs. {told}".strip(),
        frozenset({report.base}),
    )


def _measured(report: BenchReport, measure: str, datasets: Sequence[str]) -> list[tuple[str, tuple[Cell, ...]]]:
    """A row of cells for each ranker; the best of each column among those that ranked all of it is marked."""
    whole = [c for c in report.cells if report.whole(c)]
    best = {d: max((c.measures[measure] for c in whole if c.dataset == d), default=None) for d in datasets}

    def cell(name: str, dataset: str) -> Cell:
        if (row := report.cell(name, dataset)) is None:
            return EMPTY
        value = row.measures[measure]
        compared = report.comparisons[measure].get((name, dataset))
        low, high = row.intervals[measure]
        detail = f"95% interval {low:.3f} to {high:.3f}; {row.queries:,} queries"
        if compared is not None:
            shared = f" on {compared.queries:,}" if compared.queries < row.queries else ""
            detail += f"; {compared.difference:+.3f} against {report.base}{shared}, p = {compared.p:.4f}, "
            detail += f"corrected {compared.p_holm:.4f}"
        best_one = report.whole(row) and value == best[dataset]
        return Cell(f"{value:.3f}{compared.mark if compared else ''}", best_one, detail)

    return [(name, tuple(cell(name, d) for d in datasets)) for name in report.names]


def interval_table(report: BenchReport) -> Table:
    """The 95% bootstrap intervals of the MRR."""

    def cell(name: str, dataset: str) -> Cell:
        row = report.cell(name, dataset)
        return EMPTY if row is None else Cell("{:.3f} to {:.3f}".format(*row.intervals["MRR"]))

    return Table("MRR, 95% bootstrap intervals", report.datasets, _grid(report, report.names, cell))


def routing_table(report: BenchReport) -> Table:
    """Effect and cost of the LLM that each row ranks first, and of what might be asked instead."""
    told = {(c.name, c.dataset): c.routed for c in report.cells if c.routed and c.dataset in report.datasets}
    datasets = tuple(d for d in report.datasets if any(d == place[1] for place in told))
    known = {d: report.facts.get("data", {}).get(d, {}).get("routing", {}) for d in datasets}
    told |= {(name, d): found for d, names in known.items() for name, found in names.items()}

    def cell(name: str, dataset: str) -> Cell:
        if not (found := told.get((name, dataset))):
            return EMPTY
        return Cell(f"{found['effect']:.3f}" + (f" / {found['cost']:.3g}" if "cost" in found else ""))

    names = list(dict.fromkeys(name for name, _ in told))
    rows = tuple((name, tuple(cell(name, d) for d in datasets)) for name in names)
    return Table("Effect / cost of the LLM that is asked", datasets, rows, ROUTING)


def cost_table(report: BenchReport) -> Table:
    """What a query costs each ranker, averaged over all queries it ranked."""

    def cells(name: str) -> tuple[Cell, ...]:
        rows = report.of(name)
        ranked = sum(map(times, rows))
        calls, prompt, completion, cached, flops = (
            sum(getattr(row, key) for row in rows) / ranked
            for key in ("calls", "prompt_tokens", "completion_tokens", "cached_tokens", "flops")
        )
        tokens = (f"{calls:.1f}", f"{prompt:,.0f}", f"{completion:,.1f}", f"{cached:,.0f}") if calls else ("-",) * 4
        shown = (*tokens, _three(1000 * seconds_per_query(rows)), _three(flops / 1e9) if flops else "-")
        return tuple(map(Cell, shown))

    columns = ("LLM calls", "prompt tokens", "completion tokens", "of the prompt reused", "milliseconds", "GFLOP")
    return Table(
        "Cost of a query",
        columns,
        tuple((name, cells(name)) for name in report.names if name != "random"),
        "Means over the queries that the row ranked. Milliseconds: wall time on this machine, with fitting for "
        "baselines. GFLOP: an estimate, 2 x parameters x tokens computed (what is reused is not counted, attention is "
        "left out); - where there is none. Random is by its exact expectation, and costs nothing."
        + "".join(_short_note(report, name) for name in report.names),
    )


def _short_note(report: BenchReport, name: str) -> str:
    """How many of a row's rankings a budget ended; nothing where none."""
    rows = report.of(name)
    short = sum(row.cut_short for row in rows)
    return f" A budget ended {short:,} of the {sum(map(times, rows)):,} rankings of '{name}'." if short else ""


def times(row: Row) -> int:
    """How many rankings a row made: one a query and run."""
    return row.queries * max(1, len(row.run_means))


def seconds_per_query(rows: Sequence[Row]) -> float:
    """Wall time of one ranking, averaged over rows of one ranker."""
    return sum(row.seconds for row in rows) / sum(map(times, rows))


def _three(value: float) -> str:
    """Three digits that count: 0.0174, 3.22, 145, 10,400."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:.3g}" if rounded < 1000 else f"{rounded:,.0f}"


def parse_table(report: BenchReport) -> Table:
    """How the answers of LLMs could be read."""
    rows = []
    for name in report.names:
        cells = report.of(name)
        turns = sum(sum(cell.parse.values()) for cell in cells)
        if not turns:
            continue
        shares = [f"{100 * sum(cell.parse[s] for cell in cells) / turns:.1f}%" for s in STATUSES]
        cut = sum(cell.truncated for cell in cells)
        rows.append((name, tuple(map(Cell, (f"{turns:,}", *shares, f"{cut:,}")))))
    return Table(
        "How answers were read",
        ("turns", *STATUSES, "texts cut"),
        tuple(rows),
        "exact: letter for letter. repaired: recovered, such as from another case. defaulted: the answer names no "
        "candidate. failed: there is no answer. Texts are cut where a prompt would not fit the model's context, and "
        "where they are longer than a row's document_tokens.",
    )


def order_table(report: BenchReport) -> Table:
    """How much rankings depend on the order in which candidates are listed."""
    return Table(
        "Sensitivity to the listed order",
        (
            "data set",
            "queries",
            "listings",
            "tau between listings",
            "tau with the listing",
            "MRR lowest",
            "MRR highest",
        ),
        tuple(
            (
                row.name,
                tuple(
                    map(
                        Cell,
                        (
                            row.dataset,
                            f"{row.queries:,}",
                            str(row.listings),
                            f"{row.tau:.3f}",
                            f"{row.follows:+.3f}",
                            f"{row.lowest:.3f}",
                            f"{row.highest:.3f}",
                        ),
                    )
                ),
            )
            for row in report.order
        ),
        "Each query's candidates are listed in several random orders. tau between listings: Kendall's tau of the "
        "rankings, 1 for a ranker that does not care, 0 as between random orders. tau with the listing: above 0, what "
        "stands first tends to be ranked first. Where a row samples, the noise of that is part of both.",
    )


def seed_table(report: BenchReport) -> Table:
    """The MRR of the worst and the best seed, for rows that ran with several."""

    def cell(name: str, dataset: str) -> Cell:
        row = report.cell(name, dataset)
        if row is None or len(row.run_means) < 2:
            return EMPTY
        return Cell(f"{min(row.run_means):.3f} to {max(row.run_means):.3f}")

    several = [name for name in report.names if any(len(row.run_means) > 1 for row in report.of(name))]
    return Table("MRR, worst and best seed", report.datasets, _grid(report, several, cell))


def data_table(report: BenchReport) -> Table:
    """The data sets, as far as the facts tell."""
    facts = report.facts.get("data", {})
    keys = ("source", "test queries", "train examples", "without a relevant candidate", "fingerprint")
    return Table(
        "Data",
        ("scenario", *keys),
        tuple(
            (name, tuple(map(Cell, (report.scenarios[name], *(str(facts[name].get(key, "-")) for key in keys)))))
            for name in report.scenarios
            if name in facts
        ),
    )


def quoted_table(report: BenchReport) -> Table:
    """The paper's figures, marked as quoted; no rows unless the report asks for them."""
    data = quoted_data()
    columns = tuple(d for d in report.datasets if d in data)
    rows = []
    for quoted in quoted_rows() if report.quoted and columns else ():
        about = "about " if quoted.approximate else ""
        cells = tuple(Cell(f"{about}{quoted.mrr[d]:.3f}") if d in quoted.mrr else EMPTY for d in columns)
        rows.append((quoted.name, cells))
    if rows:
        rows.insert(0, ("measured on", tuple(Cell(data[d]) for d in columns)))
    return Table(
        "Quoted, not measured here: MRR in the paper",
        columns,
        tuple(rows),
        f"Quoted from {SOURCE}. These were measured on the authors' own samples of the data named in the first row, "
        "not on the data of this report: they show what to expect, and cannot be compared figure by figure. 'about': "
        "read off a chart.",
    )


def _grid(
    report: BenchReport, names: Sequence[str], cell: Callable[[str, str], Cell]
) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    return tuple((name, tuple(cell(name, d) for d in report.datasets)) for name in names)

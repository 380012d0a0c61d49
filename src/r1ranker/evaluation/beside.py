"""Rows of several reports beside each other, by paired tests over the queries that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from r1ranker.errors import InputError
from r1ranker.evaluation.harness import BASELINE_ROWS
from r1ranker.evaluation.measures import MEASURES
from r1ranker.evaluation.report import Report
from r1ranker.evaluation.rows import Row
from r1ranker.evaluation.significance import bootstrap_interval, holm, paired_p_value


@dataclass(frozen=True, slots=True)
class Beside:
    """A row less the first one, over the queries of both.

    mean, difference: of the measure; interval: 95% bootstrap of the difference. p: two-sided paired randomization test;
    p_holm: the same, corrected for all rows (Holm 1979). above, level, below: queries. Of the first row itself only
    `mean` says something.
    """

    name: str
    queries: int
    mean: float
    difference: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    p: float = 1.0
    p_holm: float = 1.0
    above: int = 0
    level: int = 0
    below: int = 0


def beside(rows: Sequence[tuple[str, Row]], measure: str = "MRR", seed: int = 0) -> list[Beside]:
    """Each row (by the name it is to have) compared with the first, on as many queries as the shortest has.

    Reports measure a data set's first queries, so that a shorter one's are among a longer one's.
    Raises InputError for an unknown measure, or no second row.
    """
    if measure not in MEASURES:
        raise InputError(f"there is no measure '{measure}': take one of {', '.join(MEASURES)}")
    if len(rows) < 2:
        raise InputError("there is nothing to compare: name two rows at least")
    shared = min(row.queries for _, row in rows)
    values = [row.per_query[measure][:shared] for _, row in rows]
    first, others = values[0], values[1:]
    p = [paired_p_value(own, first, seed=seed) for own in others]
    found = [Beside(rows[0][0], shared, fmean(first))]
    for (name, _), own, alone, corrected in zip(rows[1:], others, p, holm(p), strict=True):
        less = [a - b for a, b in zip(own, first, strict=True)]
        signs = [sum(x > 0 for x in less), sum(x == 0 for x in less), sum(x < 0 for x in less)]
        interval = bootstrap_interval(less, seed=seed)
        found.append(Beside(name, shared, fmean(own), fmean(less), interval, alone, corrected, *signs))
    return found


def chosen_rows(reports: Sequence[tuple[str, Report]], names: Sequence[str] = ()) -> list[tuple[str, Row]]:
    """The rows called `names` of the reports (by their places), or the last one of each: what it was made for.

    A name that several reports have gets its report's place beside it, but for baselines. Raises InputError where
    reports are of other data (by `facts["fingerprint"]`), or a name is in none.
    """
    place, report = reports[0]
    for other, one in reports[1:]:
        if _data(report) != _data(one):
            raise InputError(
                f"{place} and {other} are of other data ({report.rows[0].dataset} and {one.rows[0].dataset}, or another"
                " split or version of it): only reports of the same lists can be compared query by query"
            )
    found = []
    for place, report in reports:
        wanted = [row for row in report.rows if row.name in names] if names else [report.rows[-1]]
        found += [(row.name, place, row) for row in wanted]
    if missing := [name for name in names if name not in {name for name, _, _ in found}]:
        there = sorted({row.name for _, report in reports for row in report.rows})
        raise InputError(f"no report has a row '{missing[0]}': there are {', '.join(there)}")
    called = [name for name, _, _ in found]
    rows: list[tuple[str, Row]] = []
    for name, place, row in found:
        if name not in BASELINE_ROWS:
            rows.append((f"{name} ({place})" if called.count(name) > 1 else name, row))
        elif name not in {known for known, _ in rows}:  # the same in all reports
            rows.append((name, row))
    return rows


def _data(report: Report) -> str:
    return str(report.facts.get("fingerprint") or report.rows[0].dataset)

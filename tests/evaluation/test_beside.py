"""Rows of several reports beside each other: differences worked out by hand, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1ranker.errors import InputError
from r1ranker.evaluation import Report, Row, holm, paired_p_value, row_of_scores
from r1ranker.evaluation.beside import beside, chosen_rows
from r1ranker.evaluation.measures import MEASURES

FIRST = [1.0, 0.5, 0.5, 0.25, 1.0, 0.2]
OTHER = [1.0, 1.0, 0.25, 1.0, 1.0, 1.0]


def row(name: str, values: Sequence[float], dataset: str = "lists") -> Row:
    return row_of_scores(name, dataset, dict.fromkeys(MEASURES, values))


def report(*rows: Row, **facts: Any) -> Report:
    return Report(rows, rows[0].name, {"fingerprint": "abc", **facts})


def test_rows_are_compared_with_the_first_query_by_query() -> None:
    first, other, same = beside([("a", row("a", FIRST)), ("b", row("b", OTHER)), ("c", row("c", FIRST))])
    assert (first.name, first.mean, first.queries) == ("a", pytest.approx(3.45 / 6), 6)
    assert (other.mean, other.difference) == (pytest.approx(5.25 / 6), pytest.approx(1.8 / 6))
    assert (other.above, other.level, other.below) == (3, 2, 1)
    assert other.p == paired_p_value(OTHER, FIRST)
    assert [other.p_holm, same.p_holm] == holm([other.p, 1.0])
    assert other.interval[0] < 0.3 < other.interval[1]
    assert (same.difference, same.p, same.level) == (0, 1, 6)


def test_a_shorter_report_is_compared_on_the_queries_that_it_has() -> None:
    first, other = beside([("a", row("a", FIRST)), ("b", row("b", OTHER[:3]))])
    assert (first.queries, first.mean) == (3, pytest.approx(2 / 3))
    assert other.difference == pytest.approx(0.25 / 3)


def test_each_reports_last_row_is_what_it_was_made_for() -> None:
    bm25 = row("bm25", FIRST)
    reports = [("x", report(bm25, row("mine", OTHER))), ("y", report(bm25, row("mine", FIRST)))]
    assert [name for name, _ in chosen_rows(reports)] == ["mine (x)", "mine (y)"]
    assert [name for name, _ in chosen_rows(reports, ["bm25", "mine"])] == ["bm25", "mine (x)", "mine (y)"]
    assert [
        name for name, _ in chosen_rows([("x", report(bm25, row("a", OTHER))), ("y", report(row("b", FIRST)))])
    ] == [
        "a",
        "b",
    ]
    with pytest.raises(InputError, match="no report has a row 'mein': there are bm25, mine"):
        chosen_rows(reports, ["mein"])


def test_reports_of_other_lists_are_refused() -> None:
    one = report(row("a", FIRST))
    for other in (report(row("b", FIRST), fingerprint="xyz"), report(row("b", FIRST, "films"), fingerprint="")):
        with pytest.raises(InputError, match="x and y are of other data"):
            chosen_rows([("x", one), ("y", other)])
    with pytest.raises(InputError, match="there is nothing to compare"):
        beside(chosen_rows([("x", one)]))
    with pytest.raises(InputError, match="there is no measure 'mrr': take one of MRR"):
        beside([("a", row("a", FIRST)), ("b", row("b", OTHER))], "mrr")


def test_reports_are_read_from_their_folders(tmp_path: Path) -> None:
    report(row("a", FIRST)).save(tmp_path / "one")
    assert chosen_rows([("one", Report.load(tmp_path / "one"))]) == [("a", row("a", FIRST))]

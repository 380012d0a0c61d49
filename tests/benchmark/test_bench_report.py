"""A benchmark's report and its tables, on cells that are made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ranker.benchmark import report as module
from r1ranker.benchmark.order import OrderRow
from r1ranker.benchmark.report import SHOWN, BenchReport, Comparison
from r1ranker.benchmark.tables import Table, cost_table, measure_table, seconds_per_query, tables
from r1ranker.errors import InputError
from r1ranker.evaluation import MEASURES, Row, row_of_scores

SCENARIOS = {"films": "recommendation", "texts": "passage"}


def cell(name: str, dataset: str, values: Sequence[float], **fields: Any) -> Row:
    return replace(row_of_scores(name, dataset, dict.fromkeys(MEASURES, values)), **fields)


def shown(table: Table) -> dict[str, list[str]]:
    return {name: [c.text for c in cells] for name, cells in table.rows}


def table(report: BenchReport, title: str) -> Table:
    return next(t for t in tables(report) if t.title == title)


ONES, HALVES, ZEROS = [1.0] * 20, [0.5] * 20, [0.0] * 20
REPORT = BenchReport(
    (
        cell("random", "films", HALVES),
        cell("random", "texts", HALVES),
        cell("good", "films", ONES, seconds=2.0),
        cell("good", "texts", [1.0, 0.0] * 10, seconds=4.0),
        cell("bad", "films", ZEROS, seconds=0.2),
    ),
    "random",
    SCENARIOS,
)


def test_comparisons_and_holm_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {(1.0, 1.0): 0.02, (1.0, 0.0): 0.5, (0.0, 0.0): 0.001}
    monkeypatch.setattr(module, "paired_p_value", lambda ours, _: raw[ours[0], ours[1]])
    found = BenchReport(REPORT.cells, "random", SCENARIOS).comparisons["MRR"]
    # Holm: 0.001 x 3, 0.02 x 2, 0.5 x 1.
    assert found == {
        ("good", "films"): Comparison(0.5, 0.02, pytest.approx(0.04), 20),
        ("good", "texts"): Comparison(0.0, 0.5, 0.5, 20),
        ("bad", "films"): Comparison(-0.5, 0.001, pytest.approx(0.003), 20),
    }
    assert [c.mark for c in found.values()] == ["+", "", "-"]


def test_the_mark_needs_the_corrected_p_below_a_twentieth() -> None:
    assert Comparison(0.1, 0.001, 0.0499, 9).mark == "+"
    assert Comparison(-0.1, 0.001, 0.0499, 9).mark == "-"
    assert Comparison(0.1, 0.001, 0.05, 9).mark == ""


def test_the_measure_table_marks_the_best_and_means_over_all() -> None:
    made = measure_table(REPORT, "MRR")
    assert made.columns == ("films", "texts", "mean")
    assert shown(made) == {
        "random": ["0.500", "0.500", "0.500"],
        "good": ["1.000+", "0.500", "0.750"],
        "bad": ["0.000-", "-", "-"],
    }
    best = {(name, k) for name, cells in made.rows for k, c in enumerate(cells) if c.best}
    assert best == {("good", 0), ("random", 1), ("good", 1), ("good", 2)}
    assert made.marked == {"random"}
    assert "all 3 comparisons of MRR" in made.note
    assert made.rows[1][1][0].detail.startswith("95% interval 1.000 to 1.000; 20 queries; +0.500 against random, p = ")


def test_a_row_with_fewer_queries_is_compared_on_those_it_shares() -> None:
    base = cell("random", "films", [1.0] * 5 + [0.0] * 15)
    some = cell("some", "films", [1.0] * 5)
    full = cell("full", "films", [0.5] * 20)
    report = BenchReport((base, some, full), "random", {"films": "recommendation"})
    assert report.comparisons["MRR"]["some", "films"] == Comparison(0.0, 1.0, 1.0, 5)
    made = measure_table(report, "MRR")
    cells = dict(made.rows)
    assert cells["some"][0].text == "1.000"
    assert not cells["some"][0].best  # over other queries than the others
    assert not cells["some"][1].best
    assert cells["full"][0].best
    assert cells["full"][1].best
    assert "'some' ranked the first 5 queries alone" in made.note
    short = BenchReport((base, some, full), "some", {"films": "recommendation"})
    assert short.comparisons["MRR"]["full", "films"].queries == 5
    assert short.comparisons["MRR"]["full", "films"].difference == -0.5
    assert "against some on 5, p =" in dict(measure_table(short, "MRR").rows)["full"][0].detail


def test_where_the_base_row_did_not_run_there_is_no_comparison() -> None:
    report = BenchReport(REPORT.cells, "bad", SCENARIOS)
    assert set(report.comparisons["MRR"]) == {("random", "films"), ("good", "films")}
    made = shown(measure_table(report, "MRR"))
    assert made["good"] == ["1.000+", "0.500", "0.750"]
    assert made["bad"] == ["0.000", "-", "-"]
    detail = dict(measure_table(report, "MRR").rows)["good"][1].detail
    assert "against" not in detail


def test_costs_are_those_of_one_ranking() -> None:
    several = cell(
        "sampled", "films", ONES, calls=180, prompt_tokens=6000, completion_tokens=90, cached_tokens=3000,
        seconds=30.0, flops=6e12, run_means=[0.1, 0.2, 0.3],
    )  # fmt: skip
    report = BenchReport((*REPORT.cells, several), "random", SCENARIOS)
    made = shown(cost_table(report))
    # 20 queries, three times: 3 calls, 100 tokens, 1.5 written, 50 reused, half a second and 100 GFLOP each.
    assert made["sampled"] == ["3.0", "100", "1.5", "50", "500", "100"]
    assert made["good"] == ["-", "-", "-", "-", "150", "-"]  # 6 s over 40 queries
    assert "random" not in made
    assert seconds_per_query([several]) == pytest.approx(0.5)
    assert shown(table(report, "MRR, worst and best seed")) == {"sampled": ["0.100 to 0.300", "-"]}


def test_rankings_that_a_budget_ended_are_told_where_there_are_any() -> None:
    films = cell("llm", "films", ONES, cut_short=7, run_means=[0.1, 0.2])
    report = BenchReport((*REPORT.cells, films, cell("llm", "texts", ONES, cut_short=1)), "random", SCENARIOS)
    # 20 queries twice and 20 once.
    assert cost_table(report).note.endswith("costs nothing. A budget ended 8 of the 60 rankings of 'llm'.")
    assert "budget" not in cost_table(REPORT).note


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.01741, "0.0174"), (3.2249, "3.22"), (145.3, "145"), (999.4, "999"), (999.6, "1,000"), (10_440.0, "10,400")],
)
def test_three_digits_count(milliseconds: float, text: str) -> None:
    row = cell("good", "films", ONES, seconds=milliseconds / 1000 * 20)
    report = BenchReport((cell("random", "films", ONES), row), "random", {"films": "recommendation"})
    assert shown(cost_table(report))["good"][4] == text


def test_parse_outcomes_are_shares_of_turns() -> None:
    parsed = cell("llm", "films", ONES, parse={"exact": 30, "repaired": 6, "defaulted": 3, "failed": 1}, truncated=7)
    more = cell("llm", "texts", ONES, parse={"exact": 40, "repaired": 0, "defaulted": 0, "failed": 0})
    made = table(BenchReport((parsed, more), "llm", SCENARIOS), "How answers were read")
    assert made.columns == ("turns", "exact", "repaired", "defaulted", "failed", "texts cut")
    assert shown(made) == {"llm": ["80", "87.5%", "7.5%", "3.8%", "1.2%", "7"]}


def test_tables_without_rows_are_left_out() -> None:
    titles = [t.title for t in tables(REPORT)]
    assert titles == [*SHOWN, "MRR, 95% bootstrap intervals", "Cost of a query"]
    order = OrderRow("good", "films", 20, 3, 0.5, -0.25, 0.4, 0.6)
    more = replace(REPORT, order=(order,), quoted=True, facts={"data": {"films": {"source": "here"}}})
    made = tables(more)
    assert [t.title for t in made[5:]] == ["Sensitivity to the listed order", "Data"]  # none of its data is the paper's
    assert shown(made[5]) == {"good": ["films", "20", "3", "0.500", "-0.250", "0.400", "0.600"]}
    assert shown(made[6]) == {"films": ["recommendation", "here", "-", "-", "-", "-"]}


def test_all_tables_are_regular() -> None:
    for made in tables(replace(REPORT, order=(OrderRow("good", "films", 20, 3, 0.5, 0.2, 0.4, 0.6),))):
        assert {len(cells) for _, cells in made.rows} == {len(made.columns)}, made.title


def test_json_gives_the_same_report_back(tmp_path: Path) -> None:
    report = replace(REPORT, order=(OrderRow("good", "films", 20, 3, 0.5, 0.2, 0.4, 0.6),), facts={"name": "x"})
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report.to_dict()), encoding="utf-8")
    loaded = BenchReport.load(path)
    assert loaded == report
    assert tables(loaded) == tables(report)
    assert list(loaded.scenarios) == list(SCENARIOS)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"cells": [3]}', '{"cells": [{}]}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"report\.json is no benchmark's report"):
        BenchReport.load(path)
    with pytest.raises(InputError, match="run the benchmark again"):
        BenchReport.load(tmp_path / "nowhere.json")


def test_a_report_is_checked() -> None:
    with pytest.raises(InputError, match="the row 'good' stands twice for 'films'"):
        BenchReport((*REPORT.cells, cell("good", "films", ONES)), "random", SCENARIOS)
    with pytest.raises(InputError, match="what scenario 'other' is"):
        BenchReport((cell("good", "other", ONES),), "random", SCENARIOS)


def test_a_data_set_without_cells_is_shown_empty() -> None:
    report = BenchReport((cell("good", "films", ONES),), "good", SCENARIOS)
    assert shown(measure_table(report, "MRR")) == {"good": ["1.000", "-", "-"]}

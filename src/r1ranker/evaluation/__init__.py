"""Measures per query, their significance, and reports that put rankers side by side."""

from r1ranker.evaluation.measures import MEASURES, per_query, without_relevant
from r1ranker.evaluation.outcomes import Outcome
from r1ranker.evaluation.report import Report
from r1ranker.evaluation.rows import Row, make_row, row_of_outcomes, row_of_scores
from r1ranker.evaluation.significance import bootstrap_interval, bootstrap_intervals, holm, paired_p_value
from r1ranker.evaluation.table import markdown_table, rich_table

__all__ = [
    "MEASURES",
    "Outcome",
    "Report",
    "Row",
    "bootstrap_interval",
    "bootstrap_intervals",
    "holm",
    "make_row",
    "markdown_table",
    "paired_p_value",
    "per_query",
    "rich_table",
    "row_of_outcomes",
    "row_of_scores",
    "without_relevant",
]

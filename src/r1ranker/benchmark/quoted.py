"""The paper's own figures, to be shown beside measured ones and never mixed with them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SOURCE = "R1-Ranker, arXiv 2506.21638v3"


@dataclass(frozen=True)
class QuotedRow:
    """One system's MRR (0 to 1) by data set. approximate: read off a chart rather than a table."""

    name: str
    approximate: bool
    mrr: dict[str, float]


@cache
def quoted_rows() -> tuple[QuotedRow, ...]:
    """The rows of the paper that are quoted."""
    return tuple(
        QuotedRow(row["name"], row["from"] == "chart", {name: value / 100 for name, value in row["MRR"].items()})
        for row in _tables()["rows"]
    )


def quoted_data() -> dict[str, str]:
    """What data each of the paper's columns was measured on."""
    return dict(_tables()["data"])


@cache
def _tables() -> dict[str, Any]:
    text = (files("r1ranker.benchmark") / "quoted.toml").read_text(encoding="utf-8")
    tables: dict[str, Any] = tomllib.loads(text)
    return tables

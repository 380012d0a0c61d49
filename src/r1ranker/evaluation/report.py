"""A comparison of rankers on one data set, and the files it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1ranker.errors import InputError
from r1ranker.evaluation.rows import Row
from r1ranker.evaluation.table import LEGEND, escaped, markdown_table, routing_table
from r1ranker.files import write_atomic
from r1ranker.plotting import plot_bars


@dataclass(frozen=True)
class Report:
    """Rows on one data set, compared with the row named `base`.

    facts: what else a reader must know, as JSON values: model, seed, versions, command, notes.
        `facts["trained"]` (a row's name, or a list of them) marks the trained rows in the plot.

    Raises InputError for no rows, a name that stands twice, rows on different data, or an unknown base.
    """

    rows: tuple[Row, ...]
    base: str
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise InputError(f"two rows of the report are called '{max(names, key=names.count)}'")
        if self.base not in names:
            raise InputError(f"the base row '{self.base}' is not in the report: it has {names}")
        if len({(row.dataset, row.queries) for row in self.rows}) > 1:
            raise InputError("a report's rows must come from the same data set: save one report for each")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"rows": [row.to_dict() for row in self.rows], "base": self.base, "facts": dict(self.facts)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`. Raises InputError for a missing key or an unusable row."""
        if missing := [key for key in ("rows", "base", "facts") if key not in data]:
            raise InputError(f"this is not a report: it has no '{missing[0]}'")
        return cls(tuple(map(Row.from_dict, data["rows"])), data["base"], dict(data["facts"]))

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Reads `report.json` from a folder. Raises InputError where there is none, or it is damaged."""
        path = Path(folder) / "report.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        return cls.from_dict(data)

    def save(self, folder: str | Path) -> None:
        """Writes report.json, report.md and report.png, in this order, each whole or not at all.

        Raises MissingExtraError without matplotlib, when the first two are already written.
        """
        folder = Path(folder)
        write_atomic(folder / "report.json", json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")
        write_atomic(folder / "report.md", self.markdown())
        trained = self.facts.get("trained", ())
        plot_bars(
            [row.name for row in self.rows],
            [row.measures["MRR"] for row in self.rows],
            [row.intervals["MRR"] for row in self.rows],
            folder / "report.png",
            title=f"{self.rows[0].dataset}: {self.rows[0].queries:,} queries",
            label="MRR, with 95% intervals",
            base=self.base,
            marked=(trained,) if isinstance(trained, str) else tuple(trained),
        )

    def markdown(self) -> str:
        """The table, what its columns mean, and the facts."""
        told = {key: value for key, value in self.facts.items() if key != "routing"}
        facts = "".join(f"- {escaped(key)}: {escaped(_plain(value))}\n" for key, value in told.items())
        table = markdown_table(self.rows, self.base)
        title = f"# {escaped(self.rows[0].dataset)}: {self.rows[0].queries:,} queries"
        routing = routing_table(self.rows, self.facts.get("routing", {}))
        return "\n".join([title, "", table, LEGEND, "", *([routing] if routing else []), *([facts] if facts else [])])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

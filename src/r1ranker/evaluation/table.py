"""A report's rows as a table, for the terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from r1ranker.evaluation.measures import MEASURES
from r1ranker.evaluation.rows import STATUSES, Row

HEADERS = (
    "name", "queries", "MRR [interval]", *MEASURES[1:],
    "p vs base", "calls", "prompt tok", "compl. tok", "s", "parse e/r/d/f",
)  # fmt: skip
_FULL_WIDTH = 120
LEGEND = (
    "[interval]: 95% bootstrap. p: two-sided paired randomization test of MRR against the base row, not "
    "corrected for the number of rows. parse: turns exact/repaired/defaulted/failed."
)

ROUTING = (
    "Means over the queries: what the LLM achieves that a row ranks first, and its cost in the data's own unit. Below, "
    "what one would get who knew the best LLM of each query (the cheapest of equals), or always asked the same one."
)


def markdown_table(rows: Sequence[Row], base: str) -> str:
    """A Markdown table with exact counts."""
    lines = [HEADERS, ("---",) + ("---:",) * (len(HEADERS) - 1)]
    lines += [_cells(row, base, lambda count: f"{count:,}") for row in rows]
    return "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines) + "\n"


def routing_table(rows: Sequence[Row], references: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: effect and cost of the LLM that each row ranks first, and of what might be asked; else nothing."""
    told = [*((row.name, row.routed) for row in rows), *references.items()]
    lines = [
        f"| {escaped(name)} | {found['effect']:.3f} | {_cost(found)} |" for name, found in told if "effect" in found
    ]
    if not any(row.routed for row in rows):
        return ""
    head = ["| the LLM that is asked | effect | cost |", "| --- | ---: | ---: |"]
    return "\n".join([*head, *lines, "", ROUTING, ""])


def rich_routing(rows: Sequence[Row], references: Mapping[str, Mapping[str, float]]) -> Table | None:
    """The same for a terminal."""
    if not any(row.routed for row in rows):
        return None
    table = Table(caption=Text(ROUTING), box=box.SIMPLE_HEAD, padding=0)
    table.add_column("the LLM that is asked", min_width=12, overflow="fold")
    for header in ("effect", "cost"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, found in [*((row.name, row.routed) for row in rows), *references.items()]:
        if "effect" in found:
            table.add_row(Text(name), f"{found['effect']:.3f}", _cost(found))
    return table


def _cost(found: Mapping[str, float]) -> str:
    return f"{found['cost']:.3g}" if "cost" in found else "-"


def escaped(text: str) -> str:
    """A text in one line that Markdown takes for neither a tag, nor an entity, nor the end of a cell."""
    for pattern, instead in ((r"&(?=#?\w+;)", "&amp;"), (r"<(?=[A-Za-z/!?])", "&lt;"), (r"\|", r"\\|")):
        text = re.sub(pattern, instead, text)
    return " ".join(text.split())


def rich_table(rows: Sequence[Row], base: str, width: int = 120) -> Table:
    """A table for a terminal of `width` columns; large counts are shortened (12.3k, 4.5M).

    Below 120 columns it leaves the costs out and says so.
    """
    dataset, queries = rows[0].dataset, rows[0].queries
    shown = HEADERS if width >= _FULL_WIDTH else HEADERS[: HEADERS.index("calls")]
    left_out = "" if shown is HEADERS else f" Costs and parse counts: widen the terminal to {_FULL_WIDTH} columns."
    # Text throughout, for rich reads a string's [brackets] as markup.
    title = Text(f"{dataset}: {queries:,} queries")
    table = Table(title=title, caption=Text(LEGEND + left_out), box=box.SIMPLE_HEAD, padding=0)
    table.add_column("name", min_width=12, overflow="fold")
    for header in shown[1:]:
        # Headers break at a space or an @, so that a column is as narrow as its numbers. In a terminal
        # that is narrower still a number ends in an ellipsis: cut without one, it would be another number.
        heading = header.replace("@", "\n@").replace(" ", "\n", 1)
        table.add_column(Text(heading), justify="right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row, base, _short)[: len(shown)]))
    return table


def _cells(row: Row, base: str, count: Callable[[int], str]) -> tuple[str, ...]:
    low, high = row.intervals["MRR"]
    if row.name == base:
        p_value = "base"
    elif row.p_value is None:
        p_value = "-"
    else:
        p_value = "<.001" if row.p_value < 0.001 else f"{row.p_value:.3f}"
    costs = [row.calls, row.prompt_tokens, row.completion_tokens]
    return (
        row.name,
        count(row.queries),
        f"{row.measures['MRR']:.3f} [{low:.3f} {high:.3f}]",
        *(f"{row.measures[m]:.3f}" for m in MEASURES[1:]),
        p_value,
        *(count(cost) if row.calls else "-" for cost in costs),
        f"{row.seconds:,.1f}" if row.seconds < 1000 else f"{row.seconds:,.0f}",
        "/".join(count(row.parse[status]) for status in STATUSES) if row.calls else "-",
    )


def _short(count: int) -> str:
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 1_000_000 else f"{count / 1_000_000:.1f}M"

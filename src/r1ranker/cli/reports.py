"""`r1ranker compare`: finished reports of the same lists, query by query."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import out

EPILOG = options.examples(
    "r1ranker compare runs/evaluate/mine-rec-movie runs/evaluate/other-rec-movie",
    "r1ranker compare runs/a/evaluation/rec-movie runs/b/evaluation/rec-movie --measure nDCG@10 --json",
    "r1ranker compare runs/evaluate/mine-rec-movie --row bm25 --row mine",
)


def compare(
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORT...", help="Folders with a report.json, or the files.")
    ],
    row: Annotated[
        list[str] | None,
        typer.Option(
            "--row", metavar="NAME", help="A row to compare; repeat it for more.", show_default="each report's last one"
        ),
    ] = None,
    measure: Annotated[str, typer.Option("--measure", help="MRR, nDCG@10, Hit@1, …")] = "MRR",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare rankers that were measured before, on the same lists: nothing is ranked again.

    Reports are those of `evaluate` and `train`. Each row is compared with the first, by paired tests over the
    queries that are corrected for their number.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from r1ranker.evaluation import Report
    from r1ranker.evaluation.beside import beside, chosen_rows

    loaded = [(str(path), Report.load(path.parent if path.name == "report.json" else path)) for path in reports]
    found = beside(chosen_rows(loaded, row or []), measure)
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    title = f"{loaded[0][1].rows[0].dataset}: {found[0].queries:,} queries"
    caption = (
        "Less the first: mean difference, with its 95% bootstrap interval. p: paired randomization test, after Holm."
    )
    table = Table(title=Text(title), caption=Text(caption), box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("name", overflow="fold")
    for header in (measure, "less the first", "p", "above / level / below"):
        table.add_column(header, justify="right", no_wrap=True)
    for k, one in enumerate(found):
        low, high = one.interval
        p = "<.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}"
        beside_first = [
            f"{one.difference:+.3f} [{low:+.3f}, {high:+.3f}]",
            p,
            f"{one.above} / {one.level} / {one.below}",
        ]
        table.add_row(Text(one.name), f"{one.mean:.3f}", *(beside_first if k else ["", "", ""]))
    out().print(table)

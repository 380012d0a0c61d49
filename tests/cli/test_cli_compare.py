"""`r1ranker compare`: reports that are finished, beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Invoke = Callable[..., Result]


def test_two_evaluations_are_compared_without_ranking(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    for kind in ("first-step", "pointwise"):
        done = cli("evaluate", "-m", tiny_folder, "-D", tasks_file, "--ranker", kind, "--out", kind)
        assert done.exit_code == 0, done.stderr
    result = cli("compare", "first-step", "pointwise/report.json")
    assert result.exit_code == 0, result.stderr
    assert "tiny (first-step)" in result.stdout
    assert "4 queries" in result.stdout
    rows = json.loads(cli("compare", "first-step", "pointwise", "--row", "tiny", "--row", "bm25", "--json").stdout)
    assert [row["name"] for row in rows] == ["bm25", "tiny (first-step)", "tiny (pointwise)"]
    assert all(row["above"] + row["level"] + row["below"] == 4 for row in rows[1:])


def test_what_cannot_be_compared_is_one_line(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    cli("evaluate", "-m", tiny_folder, "-D", tasks_file, "--ranker", "first-step", "--out", "one")
    cli("evaluate", "-m", tiny_folder, "-D", tasks_file, "--option", "seed=1", "--ranker", "first-step", "--out", "two")
    for arguments, said in [
        (("one", "two"), "one and two are of other data"),
        (("one",), "there is nothing to compare: name two rows at least"),
        (("one", "none"), "cannot read none/report.json"),
        (("one", "one", "--measure", "mAP"), "there is no measure 'mAP'"),
    ]:
        result = cli("compare", *arguments)
        assert result.exit_code == 1
        assert said in result.stderr

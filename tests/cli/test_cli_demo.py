"""What the demo clears away, and what it leaves alone. Its whole way is among the slow tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from r1ranker.cli.demo import _open
from r1ranker.errors import ConfigError
from r1ranker.evaluation import Report


def test_the_report_of_something_else_is_not_cleared_away(
    cli: Callable[..., Result], tiny_folder: Path, tasks_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _open(Path("mine"), "key") == {}
    assert cli("evaluate", "--model", tiny_folder, "-D", tasks_file, "--limit", "2", "--out", "mine").exit_code == 0
    with pytest.raises(ConfigError, match="mine holds a report that is no demo's, which would be lost"):
        _open(Path("mine"), "key")
    report = Report.load(Path("mine"))
    report.facts["key"] = "key"
    report.facts.pop("finished", None)
    report.save(Path("mine"))
    (Path("mine") / "model").mkdir()
    assert list(_open(Path("mine"), "key")) == [row.name for row in report.rows]
    capsys.readouterr()
    assert _open(Path("mine"), "another") == {}
    assert "the demo in mine is of other settings: it is made anew, its model too" in capsys.readouterr().err
    assert not (Path("mine") / "model").exists()

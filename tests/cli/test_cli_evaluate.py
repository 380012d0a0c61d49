"""`r1ranker evaluate`: the report's rows and facts, and that no finished row is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from r1ranker.cli import compare
from r1ranker.evaluation import Report

Invoke = Callable[..., Result]


def test_a_model_stands_beside_the_baselines(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    result = cli("evaluate", "--model", tiny_folder, "--dataset", tasks_file, "--limit", 3)
    assert result.exit_code == 0, result.stderr
    report = Report.load("runs/evaluate/tiny-tasks")
    assert [row.name for row in report.rows] == ["random", "bm25", "tiny"]
    assert report.base == "random"
    assert report.rows[0].p_value is None
    assert report.rows[2].calls == 3 * 2
    assert report.facts["test examples"] == "3 of 4"
    assert report.facts["versions"]["torch"]
    assert len(report.facts["fingerprint"]) == 64
    assert "report.md" in result.stdout


def test_p_values_compare_with_the_base_model(cli: Invoke, tiny_folder: Path, tasks_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    result = cli("evaluate", "-m", other, "-D", tasks_file, "--base", tiny_folder, "--no-baselines", "--out", "out")
    assert result.exit_code == 0, result.stderr
    report = Report.load("out")
    assert [row.name for row in report.rows] == ["random", "tiny", "other"]
    assert report.base == "tiny"
    assert [row.p_value is None for row in report.rows] == [False, True, False]
    assert report.rows[1].measures == report.rows[2].measures


def test_a_model_that_fails_leaves_the_rows_before_it(
    cli: Invoke, tiny_folder: Path, tasks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "run_ranker", stop)
    result = cli("evaluate", "--model", tiny_folder, "--dataset", tasks_file, "--out", "out")
    assert result.exit_code == 130
    assert "stopped: the rows that were finished are in out/report.json" in result.stderr
    assert [row.name for row in Report.load("out").rows] == ["random", "bm25"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "rec-movi"), "did you mean 'rec-movie'?"),
        (("--dataset", "rec-music"), "needs a source"),
        (("--dataset", "rec-music", "--source", "nowhere"), "does not exist"),
        (("--dataset", "rec-movie", "--option", "candidate=3"), "did you mean 'candidates'?"),
        (("--dataset", "rec-movie", "--option", "candidates"), "write it as key=value"),
        (("--dataset", "missing.jsonl"), "missing.jsonl does not exist"),
    ],
)
def test_a_wrong_data_set_or_option_is_named(cli: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = cli("evaluate", "--model", "unused", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_the_report_folder_is_tried_before_anything_long(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    Path("file").write_text("", encoding="utf-8")
    result = cli("evaluate", "--model", tiny_folder, "--dataset", tasks_file, "--out", "file/out")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr

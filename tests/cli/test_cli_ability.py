"""`r1ranker ability` from end to end on a small task of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from abilitytask import harness_of_own_tasks, right_by_hand, write_adapter, write_choices

Invoke = Callable[..., Result]


def test_before_and_after_are_put_side_by_side(
    cli: Invoke,
    tiny_folder: Path,
    tiny_model: Any,
    tiny_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness_of_own_tasks(monkeypatch)
    write_choices(tmp_path)
    adapter = write_adapter(tmp_path / "adapter", tiny_folder)
    result = cli(
        "ability", "--model", adapter, "--task", "tiny-choice", "--include-path", tmp_path, "--limit", 5, "--out", "out"
    )
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "out" / "ability.json").read_text())
    assert told["facts"]["tasks"] == ["tiny-choice"]
    before, after = (told[side]["tiny-choice"]["acc"] for side in ("before", "after"))
    assert before["value"] == pytest.approx(sum(right_by_hand(tiny_model, tiny_tokenizer)["acc"][:5]) / 5, abs=1e-6)
    assert told["before"] != told["after"]
    assert before["questions"] == after["questions"] == 5
    line = next(line for line in result.stdout.splitlines() if line.startswith("| tiny-choice | acc |"))
    assert f"{after['value'] - before['value']:+.4f}" in line
    page = (tmp_path / "out" / "ability.md").read_text()
    assert line in page
    assert "The first 5 questions" in page


def test_what_was_measured_before_is_kept_where_after_fails(
    cli: Invoke, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness_of_own_tasks(monkeypatch)
    write_choices(tmp_path)
    (tmp_path / "broken").mkdir()
    result = cli(
        "ability",
        "-m",
        "broken",
        "--base",
        tiny_folder,
        "-t",
        "tiny-choice",
        "--include-path",
        tmp_path,
        "--out",
        "out",
    )
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: broken holds no model")
    told = json.loads((tmp_path / "out" / "ability.json").read_text())
    assert told["before"]["tiny-choice"]
    assert told["after"] is None


def test_a_model_that_names_no_base_needs_one(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("ability", "--model", tiny_folder, "--task", "tiny-choice")
    assert result.exit_code == 1
    assert "--base" in result.stderr
    assert result.stderr.count("\n") == 1

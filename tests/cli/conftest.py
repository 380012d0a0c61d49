"""What the tests of the command line share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from r1ranker.cli.app import app

Invoke = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, in an empty folder; its output must never hold a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("R1RANKER_DEBUG", raising=False)

    def invoke(*arguments: object, input: str | None = None) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=input)
        assert "Traceback" not in result.output
        return result

    return invoke


def tasks(path: Path, count: int = 4, candidates: int = 3) -> Path:
    """A file of lists on which the first candidate is the relevant one."""
    rows = [
        {
            "id": f"q{k}",
            "query": f"question number {k}",
            "candidates": [{"id": f"d{n}", "text": f"answer {n} to {k}"} for n in range(candidates)],
            "relevance": {"d0": 1},
        }
        for k in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def tasks_file(tmp_path: Path) -> Path:
    """Four lists of three."""
    return tasks(tmp_path / "tasks.jsonl")

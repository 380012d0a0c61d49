"""What the tests of the benchmark share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchruns import Lists


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    """lists(count, candidates, name, history=..., positive=..., words=...) -> a file of lists."""

    def write(
        count: int = 9,
        candidates: int = 3,
        name: str = "lists.jsonl",
        *,
        history: bool = False,
        positive: int = 0,
        words: str = "answer",
    ) -> Path:
        path = tmp_path / name
        rows: list[dict[str, Any]] = []
        for k in range(count):
            context = {"history": [f"item {k}", f"item {k + 1}"]} if history else {"query": f"question number {k}"}
            listed = [{"id": f"d{n}", "text": f"{words} {n} to {k}"} for n in range(candidates)]
            rows.append({"id": f"q{k}", **context, "candidates": listed, "relevance": {f"d{positive}": 1}})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write

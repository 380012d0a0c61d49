"""What the tests of experiments read and change: the JSON file of the plan in conftest.py, and texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results/experiments/tiny.json")


def results() -> dict[str, Any]:
    """The JSON file."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def change(path: Path, old: str, new: str) -> None:
    """Put another text in place of one that must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")

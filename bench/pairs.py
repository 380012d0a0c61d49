"""What the bench scripts share: two sides timed in turn, and the JSON line that a script ends with."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of both sides, pair by pair, after one of each that does not count; who begins changes every time."""
    ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(pairs):
        for side in (0, 1) if k % 2 == 0 else (1, 0):
            times[side].append((ours, theirs)[side]())
    return times


def compare(bench: str, ours: Sequence[float], theirs: Sequence[float], **facts: Any) -> None:
    """Print the line of a comparison: medians in seconds, and how many times faster ours is."""
    a, b = statistics.median(ours), statistics.median(theirs)
    line = {"bench": bench, "ratio": round(b / a, 2), "ours": round(a, 4), "theirs": round(b, 4), "pairs": len(ours)}
    print(json.dumps(line | facts), flush=True)


class Worker:
    """A process in another Python environment that is asked in JSON lines.

    Raises SystemExit with the end of what it wrote if it stops by itself.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Its answer to a line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the other side stopped:\n{self._log.read_text()[-2000:]}")
        return dict(json.loads(answer))

    def close(self) -> None:
        """Let it end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

"""What a run says of itself while it trains: JSON lines, TensorBoard where it is installed, a reward curve.

No line holds NaN or an infinity, which are no JSON: a figure that is none is left out.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ranker.errors import CheckpointError


class Averages:
    """Weighted means and sums that build up over a step."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._weights: dict[str, float] = defaultdict(float)
        self._counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """One value of a mean."""
        self._sums[name] += value * weight
        self._weights[name] += weight

    def count(self, name: str, value: float) -> None:
        """Something that is summed."""
        self._counts[name] += value

    def result(self) -> dict[str, float]:
        """Means and sums by name."""
        return {name: self._sums[name] / self._weights[name] for name in self._sums} | dict(self._counts)


class MetricsLog:
    """`metrics.jsonl` in the run's folder, one line a step, and a TensorBoard log beside it.

    part: of a part of the run, which has a log of its own, PART.jsonl.
    A resumed run drops the lines of steps that it will take again.
    """

    def __init__(self, folder: Path, part: str = "", *, first_step: int = 0) -> None:
        self.path = folder / f"{part or 'metrics'}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = [_finite(row) for row in read_metrics(self.path) if row["step"] < first_step]
        self.path.write_text("".join(map(_line, self.rows)), encoding="utf-8")
        self._board = _tensorboard(folder / "tensorboard" / part, first_step)

    def write(self, row: dict[str, float]) -> None:
        """Append a step's metrics; it is on disk when this returns."""
        row = _finite(row)
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def plot(self, path: Path, title: str, of: str = "reward") -> bool:
        """Draw the reward's curve with its parts, or that of another figure, by data set where it is told so.

        Returns False where matplotlib is not installed or there is nothing to draw.
        """
        from r1ranker.errors import MissingExtraError
        from r1ranker.plotting import plot_curve

        if of == "reward":
            parts = ["reward", "reward_uniform", "return", "answer_reward", "coverage_reward", "format_reward"]
        else:
            parts = [name for name in (self.rows[-1] if self.rows else ()) if name == of or name.startswith(f"{of}/")]
        names = [name for name in parts if any(row.get(name) for row in self.rows)]
        if not names:
            return False
        series = {name: [row.get(name, math.nan) for row in self.rows] for name in names}  # a gap where it is left out
        try:
            plot_curve([row["step"] for row in self.rows], series, path, title=title, label=of)
        except MissingExtraError:
            return False
        return True

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()


class CompletionsLog:
    """`completions.jsonl` in the run's folder: some sampled replies of each step, a line each (see `sampled.told_of`).

    part: of a part of the run, whose file is called PART-completions.jsonl.
    A resumed run drops the lines of steps that it will take again. There is no file until there is a line.
    """

    def __init__(self, folder: Path, part: str = "", *, first_step: int = 0) -> None:
        self.path = folder / f"{part}{'-' if part else ''}completions.jsonl"
        if self.path.exists():
            kept = [row for row in _read_rows(self.path) if row["step"] < first_step]
            self.path.write_text("".join(map(_line, kept)), encoding="utf-8")

    def write(self, step: int, replies: Sequence[Mapping[str, Any]]) -> None:
        """Append a step's replies; they are on disk when this returns."""
        if replies:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(_line({"step": step, **reply}) for reply in replies)


def _finite(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if math.isfinite(value)}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file. A last line that was cut short by a kill is dropped; any other is an error."""
    return _read_rows(path) if path.exists() else []


def _read_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise CheckpointError(f"{path}:{number}: not JSON; move the file away to start a new log") from error
    return rows


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step)

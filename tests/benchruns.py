"""Small benchmarks for tests, and a watch that keeps what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1ranker.benchmark.config import BenchConfig
from r1ranker.benchmark.run import run_bench

Lists = Callable[..., Path]
SCORING = {"kind": "iterative", "thinking": False}
WRITING = {"kind": "iterative", "thinking": True, "max_tokens": 6}


class Listening:
    """Keeps what a benchmark says, and that its steps never go back or too far."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.finished: list[tuple[int, int]] = []
        self._steps = self._done = 0

    def begin(self, label: str, steps: int) -> None:
        self.said.append(label)
        self._steps, self._done = steps, 0

    def step(self, done: int) -> None:
        assert self._done <= done <= self._steps
        self._done = done

    def end(self, text: str) -> None:
        self.said.append(text)
        self.finished.append((self._done, self._steps))

    def say(self, text: str) -> None:
        self.said.append(text)


def bench_of(*names: Path, **settings: Any) -> BenchConfig:
    """A benchmark of files of lists, on the CPU in float32."""
    fixed = {"data": {"names": [str(name) for name in names]}, "device": "cpu", "dtype": "float32", "concurrency": 3}
    return BenchConfig.model_validate({**fixed, **settings})


def figures(config: BenchConfig, folder: Path) -> dict[str, Any]:
    """All that a report of this benchmark says, but for seconds."""
    data = json.loads(json.dumps(run_bench(config, folder, Listening()).to_dict()))
    for cell in data["cells"]:
        del cell["seconds"]
    return data


def row(model: Path, name: str = "tiny", **settings: Any) -> dict[str, Any]:
    """A row of the model in a folder, which scores unless the settings say otherwise."""
    return {"name": name, "model": str(model), "ranker": SCORING, **settings}

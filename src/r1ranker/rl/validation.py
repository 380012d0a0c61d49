"""How good the policy is while it trains, on lists that it does not learn from. Its best step's weights are kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from r1ranker.checkpoint import (
    Checkpoint,
    complete_checkpoints,
    load_checkpoint,
    restore_tensors,
    save_checkpoint,
    trained_tensors,
)
from r1ranker.config import ValidationConfig
from r1ranker.rl.loop import Loop
from r1ranker.rl.metrics import MetricsLog

VALIDATION = "validation"
BEST = "best"
Measure = Callable[[], Mapping[str, float]]
"""Ranks with the policy as it is: each measure's mean, and by data set as "MRR/rec-movie"."""


class Validation:
    """Measures a loop's policy before its first step, every so many steps and after its last.

    What is found is logged in validation.jsonl. With `keep_best` the weights of the best step so far are kept beside
    the checkpoints, in "best"; of equals the earliest is the best. A resumed run measures what it did not get to.
    """

    def __init__(self, loop: Loop, settings: ValidationConfig, measure: Measure) -> None:
        self.loop, self.settings, self._measure = loop, settings, measure
        self.folder = loop.checkpoints / BEST
        for path in complete_checkpoints(self.folder):
            if step_of(path) > loop.step:  # of steps that are taken again
                shutil.rmtree(path)
        self._log = MetricsLog(loop.folder, VALIDATION, first_step=loop.step + 1)

    def after(self, step: int) -> Mapping[str, float]:
        """Measure the policy, if that is due after so many steps; returns the last measure there is, or nothing."""
        due = step % self.settings.every == 0 or step == self.loop.train.steps
        if due and not any(row["step"] == step for row in self._log.rows):
            before = self._kept()
            row = {"step": step, **self._measure()}
            self._log.write(row)
            if self.settings.keep_best and step and (before is None or self._value(row) > self._value(before)):
                self._keep(step)
        return {f"{VALIDATION}/{self.settings.measure}": self._value(self._log.rows[-1])} if self._log.rows else {}

    def _value(self, row: Mapping[str, float]) -> float:
        return row[self.settings.measure]

    def _kept(self) -> dict[str, float] | None:
        """What was measured of the weights that are kept; None if there are none, or nothing is known of them."""
        found = {step_of(path) for path in complete_checkpoints(self.folder)}
        return next((row for row in reversed(self._log.rows) if row["step"] in found), None)

    def _keep(self, step: int) -> None:
        tensors = {"policy": trained_tensors(self.loop.policy.model)}
        save_checkpoint(self.folder, Checkpoint(step, tensors, self.loop.config.model_dump(mode="json")), keep=1)

    def take_best(self) -> int | None:
        """Give the policy the weights of the best step, and return that; None, and as it was, if none are kept."""
        kept = self._kept()
        if not self.settings.keep_best or kept is None:
            return None
        path = complete_checkpoints(self.folder)[-1]
        restore_tensors(self.loop.policy.model, load_checkpoint(path).tensors["policy"], str(path))
        self.loop.policy.llm.weights_changed()
        return int(kept["step"])

    def close(self) -> None:
        """Draw the curve, and flush the log."""
        title = f"{self.loop.config.name}: {self.settings.measure} on lists that are not learned from"
        self._log.plot(self.loop.folder / f"{VALIDATION}.png", title, of=self.settings.measure)
        self._log.close()


def step_of(checkpoint: Path) -> int:
    """Of which step a checkpoint's folder is."""
    return int(checkpoint.name[5:])

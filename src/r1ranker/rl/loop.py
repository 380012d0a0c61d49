"""Steps of one learner: states -> gradients -> optimizer step -> metrics -> checkpoint.

How a step's gradients come about is the learner's affair (`scored.py`, `sampled.py`, `warmup.py`); a loop owns
the optimizer, the schedule, the log and the checkpoints, and knows nothing of rewards.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn

from r1ranker.checkpoint import (
    Checkpoint,
    check_same_run,
    complete_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    restore_tensors,
    save_checkpoint,
    trained_tensors,
)
from r1ranker.config import RunConfig, TrainConfig
from r1ranker.errors import CheckpointError, TrainingError
from r1ranker.rl.metrics import Averages, CompletionsLog, MetricsLog
from r1ranker.rl.policy import Policy
from r1ranker.rl.states import State, States

FREE_TO_CHANGE = (
    "name",
    "evaluation",
    "model.device",
    "train.steps",
    "train.decay_steps",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_completions",
)
"""Settings that a resumed run may change: they leave the steps already taken as they are."""

OnStep = Callable[[int, int, dict[str, float]], None]
"""Told of every step: steps done, steps in all, metrics."""
After = Callable[[int], Mapping[str, float]]
"""Called with the steps that are done; what it returns is told with the next ones."""


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Within, the first Ctrl-C or SIGTERM is kept until the end; the second is not.

    A signal that no handler in Python takes is left alone: Ctrl-C under nohup stays ignored, and SIGTERM ends the
    process at once unless the caller made it an exception, as the command line does.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    usual = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        restore()

    for number in usual:
        signal.signal(number, ask)
    try:
        yield
    finally:
        restore()
    if asked:
        signal.raise_signal(asked[0])


def load_same_run(path: Path, config: RunConfig, *, part: str = "") -> Checkpoint:
    """A checkpoint of a run by this recipe. Raises CheckpointError if it is damaged or of a run with other settings.

    part: see Loop; the learning rate of the training itself falls in none of them.
    """
    checkpoint = load_checkpoint(path)
    try:
        before = RunConfig.model_validate(checkpoint.config)  # settings that came later have their defaults
    except ValueError as error:
        raise CheckpointError(f"{path} was made with a recipe that this version does not read") from error
    check_same_run(before.model_dump(mode="json"), config.model_dump(mode="json"), FREE_TO_CHANGE, path)
    ends = [(train.steps, train.decay_steps) for train in (before.train, config.train)]
    if not part and ends[0] != ends[1] and any(decay and checkpoint.step > steps - decay for steps, decay in ends):
        raise CheckpointError(
            f"{path}: train.steps and train.decay_steps were {ends[0][0]} and {ends[0][1]} and are now {ends[1][0]} "
            f"and {ends[1][1]}, and the learning rate has begun to fall by one of them: resume with what they were, or "
            f"r1ranker model save {path} --out FOLDER makes a model of it as it is"
        )
    if not part and checkpoint.step > config.train.steps:
        raise CheckpointError(
            f"{path} has {checkpoint.step} steps, and train.steps is {config.train.steps}: resume with as many or "
            "more, or train into another folder"
        )
    return checkpoint


class Learner(Protocol):
    """Turns a step's states into gradients.

    replies: what is kept of the step's sampled replies (`train.log_completions`); empty where nothing is sampled.
    """

    replies: Sequence[Mapping[str, Any]]

    def updates(self, states: Sequence[State], averages: Averages, step: int) -> list[list[int]]:
        """Prepare the step; returns its minibatches, one optimizer step each, as indices of what it learns from."""

    def backward(self, states: Sequence[State], part: Sequence[int], averages: Averages) -> None:
        """Accumulate the gradients of one minibatch, and tell its "loss"."""


class Loop:
    """Takes the steps of one learner, in a run's folder.

    config: the run's, which its checkpoints name. train: how many steps there are and how they are taken.
    critic: trained beside the policy, if there is one.
    part: of a part of the run, whose log and checkpoints are kept apart; "" for the training itself.
    """

    def __init__(
        self,
        config: RunConfig,
        train: TrainConfig,
        policy: Policy,
        stream: States,
        learner: Learner,
        folder: Path,
        *,
        critic: nn.Module | None = None,
        part: str = "",
    ) -> None:
        self.config, self.train, self.policy, self.stream = config, train, policy, stream
        self.learner, self.critic, self.folder, self.part = learner, critic, folder, part
        self.checkpoints = folder / "checkpoints" / part
        self.optimizer = torch.optim.AdamW(
            [{"params": policy.parameters, "lr": train.learning_rate}, *self._critic_group()],
            betas=(0.9, 0.95),
            weight_decay=train.weight_decay,
            fused=True,  # one pass over memory: on a CPU several times faster
        )
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0

    def _critic_group(self) -> list[dict[str, object]]:
        if self.critic is None:
            return []
        rate = self.train.critic_learning_rate
        return [{"params": [p for p in self.critic.parameters() if p.requires_grad], "lr": rate}]

    def run(self, on_step: OnStep, after: After = lambda _: {}) -> list[dict[str, float]]:
        """Take the steps that are left; returns the metrics of every step, also of those taken before.

        after: called once before them and then after each one, its checkpoint and all, with the steps that are done;
        `on_step` is told what it returned last beside a step's metrics.

        Ctrl-C waits for the end of the step and keeps a checkpoint; a second one stops at once, and what is kept is
        the last checkpoint. So does SIGTERM where the caller's handler raises a KeyboardInterrupt.
        Raises TrainingError, with nothing of the step written, where a loss or a gradient is not finite.
        """
        first = self.step
        log = MetricsLog(self.folder, self.part, first_step=self.step + 1)  # a row's step counts from 1
        completions = CompletionsLog(self.folder, self.part, first_step=self.step + 1)
        self.policy.model.eval()  # with dropout, what is trained would be another policy than the one that was sampled
        within_step = False
        try:
            more = after(self.step)
            while self.step < self.train.steps:
                within_step = True
                with _interrupt_later():
                    metrics = self.take_step(self.step)
                    self.step += 1
                    log.write({"step": self.step, **metrics})
                    completions.write(self.step, self.learner.replies)
                    within_step = False
                on_step(self.step, self.train.steps, {**metrics, **more})
                if self.step % self.train.checkpoint_every == 0 or self.step == self.train.steps:
                    self.save()
                more = after(self.step)
        except KeyboardInterrupt:
            if self.step > first and not within_step:  # weights from the middle of a step would not resume exactly
                self.save()
            raise
        finally:
            self.policy.llm.weights_changed()
            title = f"{self.config.name}{', ' if self.part else ''}{self.part}: reward by step"
            log.plot(self.folder / f"{self.part or 'reward'}.png", title)
            log.close()
        return log.rows

    def take_step(self, step: int) -> dict[str, float]:
        """One step: all of its minibatches; returns its metrics. Raises TrainingError as `run` does."""
        begin = time.perf_counter()
        averages = Averages()
        states = self.stream.at(step)
        self._set_rates(step)
        for part in self.learner.updates(states, averages, step):
            self.optimizer.zero_grad(set_to_none=True)
            self.learner.backward(states, part, averages)
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters, self.train.grad_clip)
            if self.critic is not None:
                critic_norm = torch.nn.utils.clip_grad_norm_(self.critic.parameters(), self.train.grad_clip)
                averages.add("critic_grad_norm", float(critic_norm))
            averages.add("grad_norm", float(norm))
            self._check_finite(averages.result(), step)
            self.optimizer.step()
            self.policy.llm.weights_changed()
        seconds = time.perf_counter() - begin
        metrics = averages.result()
        rate = self.optimizer.param_groups[0]["lr"]
        return metrics | {
            "learning_rate": rate,
            "seconds": seconds,
            "tokens_per_second": metrics.get("tokens", 0.0) / seconds,
        }

    def _check_finite(self, told: Mapping[str, float], step: int) -> None:
        """Raises TrainingError before weights that are none are made of such a gradient, and kept."""
        odd = [name for name in ("loss", "grad_norm", "critic_grad_norm") if not math.isfinite(told.get(name, 0.0))]
        if not odd:
            return
        what, section = ("round", self.part) if self.part else ("step", "train")
        more = "" if self.part else ", more train.warmup_steps"
        more += " or model.precision = 'fp32'" if self.policy.autocast else ""
        raise TrainingError(
            f"{what} {step + 1} of {self.train.steps} diverged: its {odd[0]} is {told[odd[0]]}. Nothing of it is "
            f"written; {self._last_kept()}. Train into another folder with a lower {section}.learning_rate, a lower "
            f"train.grad_clip{more}"
        )

    def _last_kept(self) -> str:
        found = complete_checkpoints(self.checkpoints)
        if not found:
            return "no checkpoint is kept yet"
        return f"r1ranker model save {found[-1]} --out FOLDER makes a model of the last checkpoint"

    def _set_rates(self, step: int) -> None:
        """Linear warm-up of the learning rate, then constant, and at the end a linear fall (Hu et al., 2024: WSD)."""
        warmup, decay = self.train.warmup_steps, self.train.decay_steps
        factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
        factor *= min(1.0, (self.train.steps - step) / (decay + 1))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def save(self) -> Path:
        """Write a checkpoint of the loop as it stands."""
        tensors = {"policy": trained_tensors(self.policy.model), "optimizer": optimizer_tensors(self.optimizer)}
        if self.critic is not None:
            tensors["critic"] = trained_tensors(self.critic)
        saved = Checkpoint(self.step, tensors, self.config.model_dump(mode="json"))
        return save_checkpoint(self.checkpoints, saved, keep=self.train.keep_checkpoints)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError if it is damaged or of a run with other settings."""
        checkpoint = load_same_run(path, self.config, part=self.part)
        restore_tensors(self.policy.model, checkpoint.tensors["policy"], str(path))
        if self.critic is not None:
            restore_tensors(self.critic, checkpoint.tensors["critic"], str(path))
        restore_optimizer(self.optimizer, checkpoint.tensors["optimizer"])
        self.policy.llm.weights_changed()
        self.step = checkpoint.step

"""The training loop: states -> gradients -> optimizer step -> metrics -> checkpoint.

How a step's gradients come about is the learner's affair (`all_actions.py`, `sampled.py`); this loop owns
the optimizer, the schedule, the log and the checkpoints, and knows nothing of rewards.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

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
from r1ranker.config import RunConfig, dump_config
from r1ranker.errors import CheckpointError, ConfigError
from r1ranker.fit import fit
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rl.all_actions import AllActions
from r1ranker.rl.metrics import Averages, MetricsLog
from r1ranker.rl.policy import Policy
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.states import State, StateStream
from r1ranker.types import RankingExample

FREE_TO_CHANGE = (
    "name",
    "evaluation",
    "model.device",
    "train.steps",
    "train.checkpoint_every",
    "train.keep_checkpoints",
)
"""Settings that a resumed run may change: they leave the steps already taken as they are."""


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Within, the first Ctrl-C is kept until the end; the second is not. Where it is ignored (nohup), it stays so."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, usual)

    usual = signal.signal(signal.SIGINT, ask) or signal.SIG_DFL  # None: a handler that Python did not set
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if asked:
        raise KeyboardInterrupt


class Learner(Protocol):
    """Turns a step's states into gradients."""

    def updates(self, states: Sequence[State], averages: Averages, step: int) -> list[list[int]]:
        """Prepare the step; returns its minibatches as indices of `states`, one optimizer step each."""

    def backward(self, states: Sequence[State], part: Sequence[int], averages: Averages) -> None:
        """Accumulate the gradients of one minibatch."""


class Trainer:
    """Trains a policy by a recipe, in a folder that holds its config, metrics, curve and checkpoints.

    on_step: called after every step with (steps done, steps in all, metrics).
    Texts that are too long for the model are cut as `fit.py` says; `truncated` counts them.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        examples: Sequence[RankingExample],
        folder: Path,
        *,
        on_step: Callable[[int, int, dict[str, float]], None] | None = None,
    ) -> None:
        self.config, self.policy, self.folder = config, policy, folder
        self.ranker = config.ranker.build(policy.llm.parameters)
        examples, self.truncated = self._fit(examples)
        self.stream = StateStream(
            examples,
            per_step=config.train.states_per_step,
            subsets=config.ranker.kind == "iterative",
            seed=config.seed,
            per_example=config.train.states_per_example,
        )
        self.learner, self.critic = self._learner()
        self.optimizer = torch.optim.AdamW(
            [{"params": policy.parameters, "lr": config.train.learning_rate}, *self._critic_group()],
            betas=(0.9, 0.95),
            weight_decay=config.train.weight_decay,
        )
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._on_step = on_step
        self.step = 0

    def _fit(self, examples: Sequence[RankingExample]) -> tuple[Sequence[RankingExample], int]:
        """The examples with texts that fit the model, and how many texts were cut, by the rule that rankings use."""
        llm = self.policy.llm
        if llm.context_tokens is None:
            return examples, 0
        budget = self.ranker.text_budget(llm.context_tokens, self.config.ranker.max_tokens)
        if budget <= 0:
            raise ConfigError(
                f"{llm.name} reads {llm.context_tokens} tokens: ranker.max_tokens = {self.config.ranker.max_tokens} "
                "leaves no room for a prompt"
            )
        fitted = [fit(example, budget, llm.count_tokens) for example in examples]
        return [example for example, _ in fitted], sum(cut for _, cut in fitted)

    def _learner(self) -> tuple[Learner, nn.Module | None]:
        if self.config.train.algorithm == "all_actions":
            if not isinstance(self.ranker, IRanker):
                raise ConfigError("train.algorithm = 'all_actions' needs ranker.kind = 'iterative'")
            return AllActions(self.policy, self.ranker, self.config), None
        if not isinstance(self.ranker, IRanker | DRanker):  # a recipe does not get here with another
            raise ConfigError(f"a {type(self.ranker).__name__} is a way to rank, not to train")
        learner = Sampled(self.policy, self.ranker, self.config)
        return learner, learner.critic

    def _critic_group(self) -> list[dict[str, object]]:
        if self.critic is None:
            return []
        rate = self.config.train.critic_learning_rate
        return [{"params": [p for p in self.critic.parameters() if p.requires_grad], "lr": rate}]

    def run(self, *, resume: bool = False) -> list[dict[str, float]]:
        """Train to the recipe's last step; returns the metrics of every step.

        Raises CheckpointError if the folder already holds a run and `resume` is not set, or holds none to
        resume, or one of other settings. Ctrl-C waits for the end of the step and keeps a checkpoint; a second
        one stops at once, and what is kept is the last checkpoint.
        """
        self._open(resume)
        first = self.step
        log = MetricsLog(self.folder, first_step=self.step + 1)  # a row's step counts from 1
        self.policy.model.train()
        within_step = False
        try:
            while self.step < self.config.train.steps:
                within_step = True
                with _interrupt_later():
                    metrics = self.take_step(self.step)
                    self.step += 1
                    log.write({"step": self.step, **metrics})
                    within_step = False
                if self._on_step is not None:
                    self._on_step(self.step, self.config.train.steps, metrics)
                if self.step % self.config.train.checkpoint_every == 0 or self.step == self.config.train.steps:
                    self.save()
        except KeyboardInterrupt:
            if self.step > first and not within_step:  # weights from the middle of a step would not resume exactly
                self.save()
            raise
        finally:
            self.policy.model.eval()
            self.policy.llm.weights_changed()
            log.plot(self.folder / "reward.png", f"{self.config.name}: reward by step")
            log.close()
        return log.rows

    def take_step(self, step: int) -> dict[str, float]:
        """One step: all of its minibatches; returns its metrics."""
        begin = time.perf_counter()
        averages = Averages()
        states = self.stream.at(step)
        self._set_rates(step)
        for part in self.learner.updates(states, averages, step):
            self.optimizer.zero_grad(set_to_none=True)
            self.learner.backward(states, part, averages)
            norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters, self.config.train.grad_clip)
            if self.critic is not None:
                critic_norm = torch.nn.utils.clip_grad_norm_(self.critic.parameters(), self.config.train.grad_clip)
                averages.add("critic_grad_norm", float(critic_norm))
            averages.add("grad_norm", float(norm))
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

    def _set_rates(self, step: int) -> None:
        """Linear warm-up, then constant."""
        warmup = self.config.train.warmup_steps
        factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def save(self) -> Path:
        """Write a checkpoint of the run as it stands."""
        tensors = {"policy": trained_tensors(self.policy.model), "optimizer": optimizer_tensors(self.optimizer)}
        if self.critic is not None:
            tensors["critic"] = trained_tensors(self.critic)
        saved = Checkpoint(self.step, tensors, self.config.model_dump(mode="json"))
        return save_checkpoint(self.checkpoints, saved, keep=self.config.train.keep_checkpoints)

    def _open(self, resume: bool) -> None:
        found = complete_checkpoints(self.checkpoints)
        if found and not resume:
            raise CheckpointError(
                f"{self.folder} holds a run at step {int(found[-1].name[5:])}: go on with --resume, "
                "or train into another folder"
            )
        if resume:
            if not found:
                raise CheckpointError(f"{self.checkpoints} holds no checkpoint to resume: train without --resume")
            self._restore(found[-1])
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(dump_config(self.config), encoding="utf-8")

    def _restore(self, path: Path) -> None:
        checkpoint = load_checkpoint(path)
        check_same_run(checkpoint.config, self.config.model_dump(mode="json"), FREE_TO_CHANGE, path)
        restore_tensors(self.policy.model, checkpoint.tensors["policy"], str(path))
        if self.critic is not None:
            restore_tensors(self.critic, checkpoint.tensors["critic"], str(path))
        restore_optimizer(self.optimizer, checkpoint.tensors["optimizer"])
        self.policy.llm.weights_changed()
        self.step = checkpoint.step

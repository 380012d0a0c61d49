"""Training by a recipe: a warm-up if it asks for one (`warmup.py`), then RL. Both are loops of steps (`loop.py`)."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from r1ranker.checkpoint import complete_checkpoints
from r1ranker.config import RunConfig, dump_config
from r1ranker.datasets import example_to_dict
from r1ranker.errors import CheckpointError, ConfigError
from r1ranker.files import sha256, write_atomic
from r1ranker.fit import fit
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rl.eliminations import ReachedStates
from r1ranker.rl.loop import Loop, OnStep, load_same_run
from r1ranker.rl.policy import Policy
from r1ranker.rl.replies import RewardFunction
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.scored import Scored
from r1ranker.rl.states import Draw, States, StateStream
from r1ranker.rl.trajectories import Trajectories
from r1ranker.rl.validation import Measure, Validation, step_of
from r1ranker.rl.warmup import WARMUP, check_forced_labels, warmup_learner, warmup_settings
from r1ranker.types import RankingExample

INPUTS = "inputs.json"
"""What a run learns from: digests of its examples and of its wording, and the name of its own reward function."""
_REWARDS = "rewards"
Show = Callable[[str, int], AbstractContextManager[OnStep]]


def _stream_seed(config: RunConfig) -> int:
    """A run that goes on from an adapter draws other states than the run before it, whose seed may be the same."""
    if config.model.adapter is None:
        return config.seed
    return random.Random(f"{config.seed}/goes on").getrandbits(32)


def _draw(config: RunConfig) -> Draw:
    """What states are drawn: with states = "on_policy" also whole lists, of which the model makes its own."""
    if config.ranker.kind == "direct":
        return "lists" if config.ranker.constrained else "whole"
    return "subsets" if config.train.states == "subsets" else "whole"


def _name(reward: RewardFunction | None) -> str:
    """Where a reward function is defined; "" for the paper's rewards. One without a name is told by its type."""
    if reward is None:
        return ""
    named = reward if hasattr(reward, "__qualname__") else type(reward)
    return f"{named.__module__}.{named.__qualname__}"


@contextmanager
def _unshown(what: str, steps: int) -> Iterator[OnStep]:  # noqa: ARG001
    yield lambda done, total, metrics: None  # noqa: ARG005


class Trainer:
    """Trains a policy by a recipe, in a folder that holds its config, metrics, curve and checkpoints.

    origins: the data set that each example is from, where several are mixed (see `StateStream`).
    model: the fingerprint of what the policy was loaded from, which a run that goes on must have had; empty: unchecked.
    reward: judges sampled replies, also those of a warm-up, in place of the paper's rewards (`RewardFunction`). The
    weights of [reward] hold for its parts. A run that goes on must have one of the same name.
    on_step: called after every RL step with (steps done, steps in all, metrics).
    validate: measures the policy as it is on lists that are kept out of `examples`, for a recipe with [validation].
    show: entered around the "warm-up" and around the "training" with its name and number of steps; what it gives is
    called after every step in the same way.
    Texts that are too long for the model are cut as `fit.py` says; `truncated` counts them.
    Raises ConfigError for a `reward` that is never asked (nothing is sampled), a label that a warm-up which forces the
    format has no room for, or one of `validate` and [validation] without the other.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        examples: Sequence[RankingExample],
        folder: Path,
        *,
        origins: Sequence[str] = (),
        model: str = "",
        reward: RewardFunction | None = None,
        on_step: OnStep | None = None,
        validate: Measure | None = None,
        show: Show | None = None,
    ) -> None:
        self.config, self.policy, self.folder = config, policy, folder
        ranker = config.ranker.build(policy.llm.parameters)
        if not isinstance(ranker, IRanker | DRanker):  # a recipe does not get here with another
            raise ConfigError(f"a {type(ranker).__name__} is a way to rank, not to train")
        self.ranker = ranker
        self.examples, self.truncated = self._fit(examples)
        if reward is not None and not config.train.samples:
            raise ConfigError(
                f"an own reward function judges sampled replies, and train.algorithm = '{config.train.algorithm}' "
                "samples none (it goes by the candidates' grades): leave it out, or set train.algorithm = 'grpo' or "
                "'ppo'"
            )
        if (validate is None) != (config.validation is None):
            raise ConfigError(
                "[validation] says when and by what `validate` is called: give both the section and the function, or "
                "none of them"
            )
        self.origins, self.model, self.reward, self._validate = origins, model, reward, validate
        self.best_step: int | None = None
        """After a run with [validation] and keep_best: the step whose weights the policy has."""
        self.warmup = self._warmup()
        self._training = None if self.warmup else self._rl()
        self._on_step, self._show = on_step, show or _unshown

    def _fit(self, examples: Sequence[RankingExample]) -> tuple[Sequence[RankingExample], int]:
        """The examples with texts that fit the model, and how many texts were cut, by the rule that rankings use."""
        llm, ranker, budget = self.policy.llm, self.ranker, None
        if llm.context_tokens is not None:
            budget = ranker.text_budget(llm.context_tokens, self.config.ranker.max_tokens)
        if budget is not None and budget <= 0:
            raise ConfigError(
                f"{llm.name} reads {llm.context_tokens} tokens: ranker.max_tokens = {self.config.ranker.max_tokens} "
                "leaves no room for a prompt"
            )
        fitted = [fit(example, budget, llm.count_tokens, None, ranker.document_tokens) for example in examples]
        return [example for example, _ in fitted], sum(cut for _, cut in fitted)

    def _stream(self, config: RunConfig) -> States:
        train = config.train
        on_policy = train.states == "on_policy"
        stream = StateStream(
            self.examples,
            per_step=train.states_per_step // (train.states_per_example if on_policy else 1),
            draw=_draw(config),
            seed=_stream_seed(config),
            per_example=1 if on_policy else train.states_per_example,
            origins=self.origins,
            balanced=config.data.mix == "balanced",
            weights=config.data.weights,
        )
        reached = train.credit == "turn" or not train.samples
        if on_policy and reached and isinstance(self.ranker, IRanker):
            return ReachedStates(stream, self.ranker, self.policy.llm, config)
        return stream  # replies with another credit take each example's first state, and eliminate by themselves

    def _warmup(self) -> Loop | None:
        warmup = self.config.warmup
        if warmup is None or warmup.rounds == 0:
            return None
        if warmup.force_format and isinstance(self.ranker, IRanker):
            check_forced_labels(self.policy.llm, self.ranker, self.examples, self.config.ranker.max_tokens)
        settings = warmup_settings(self.config, warmup)
        learner = warmup_learner(self.policy, self.ranker, settings, warmup, self.reward)
        return Loop(self.config, settings.train, self.policy, self._stream(settings), learner, self.folder, part=WARMUP)

    def _rl(self) -> Loop:
        """The RL steps, from the model as it is now: of it the critic and the KL term's reference are copies."""
        config = self.config
        learner: Scored | Sampled
        if not config.train.samples:
            learner, critic = Scored(self.policy, self.ranker, config), None
        else:
            if config.train.credit != "turn" and isinstance(self.ranker, IRanker):
                learner = Trajectories(self.policy, self.ranker, config, self.reward)
            else:
                learner = Sampled(self.policy, self.ranker, config, self.reward)
            critic = learner.critic
        return Loop(config, config.train, self.policy, self._stream(config), learner, self.folder, critic=critic)

    @property
    def training(self) -> Loop:
        """The RL steps. Raises ValueError while rounds of a warm-up are left: they begin with what it makes."""
        if self._training is None:
            if self._is_cold():
                raise ValueError("the steps of RL begin after the warm-up: run() takes both")
            self._training = self._rl()
        return self._training

    def _is_cold(self) -> bool:
        """Whether rounds of a warm-up are left."""
        return self.warmup is not None and self.warmup.step < self.warmup.train.steps

    @property
    def step(self) -> int:
        """How many RL steps are done."""
        return self._training.step if self._training else 0

    def take_step(self, step: int) -> dict[str, float]:
        """One RL step by itself (from 0), without log and checkpoints; returns its metrics."""
        return self.training.take_step(step)

    def run(self, *, resume: bool = False) -> list[dict[str, float]]:
        """Train to the recipe's last step; returns the metrics of every RL step.

        Raises CheckpointError if the folder already holds a run and `resume` is not set, or holds none to
        resume, or one of other settings, ConfigError if a warm-up finds nothing to learn from, and TrainingError if
        a step diverges. Ctrl-C waits for the end of the step and keeps a checkpoint; a second one stops at once, and
        what is kept is the last checkpoint.
        """
        self._open(resume)
        if self.warmup is not None and self._is_cold():
            with self._show("warm-up", self.warmup.train.steps) as told:
                self.warmup.run(told)
        if self.warmup is not None:
            self.warmup.optimizer.state.clear()  # of no more use, and as large as what trains, twice
        with self._show("training", self.config.train.steps) as told:

            def both(done: int, steps: int, metrics: dict[str, float]) -> None:
                told(done, steps, metrics)
                if self._on_step is not None:
                    self._on_step(done, steps, metrics)

            if self.config.validation is None or self._validate is None:
                return self.training.run(both)
            validation = Validation(self.training, self.config.validation, self._validate)
            try:
                rows = self.training.run(both, validation.after)
            finally:
                validation.close()
            self.best_step = validation.take_best()
            return rows

    def _open(self, resume: bool) -> None:
        warm, found = (complete_checkpoints(self.folder / "checkpoints" / part) for part in (WARMUP, ""))
        if (warm or found) and not resume:
            where = f"step {step_of(found[-1])}" if found else f"round {step_of(warm[-1])} of its warm-up"
            raise CheckpointError(
                f"{self.folder} holds a run at {where}: go on with --resume, or train into another folder"
            )
        if resume:
            if not (warm or found):
                raise CheckpointError(
                    f"{self.folder / 'checkpoints'} holds no checkpoint to resume: train without --resume"
                )
            self._restore(warm, found)
        self._check_inputs(resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(dump_config(self.config), encoding="utf-8")

    def _check_inputs(self, resume: bool) -> None:
        """Whether the files that the recipe names hold what they held when the run began."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps(example_to_dict(example), sort_keys=True).encode() + b"\n")
        templates = self.config.ranker.templates
        now = {
            "training examples": digest.hexdigest(),
            "templates": sha256(Path(templates)) if templates else "",
            "weights of the untrained model": self.model,
            _REWARDS: _name(self.reward),
        }
        path = self.folder / INPUTS
        if resume and path.exists():
            try:
                # What an earlier version wrote names no reward function: there was none.
                before = {_REWARDS: "", **json.loads(path.read_text(encoding="utf-8"))}
            except (ValueError, TypeError) as error:
                raise CheckpointError(
                    f"{path} cannot be read ({error}): delete it to go on without its check"
                ) from error
            if odd := [what for what, value in now.items() if before.get(what, value) != value]:
                raise CheckpointError(
                    f"{self.folder}: the {odd[0]} are others than when the run began, and a run that goes on must have "
                    "the same: put them back, or train into another folder"
                )
        write_atomic(path, json.dumps(now, indent=1) + "\n")

    def _restore(self, warm: Sequence[Path], found: Sequence[Path]) -> None:
        """The warm-up first, also where it is over: what RL keeps of the model it began with is in no other place."""
        if warm:
            (self.warmup or self.training).restore(warm[-1])  # where the recipe has no warm-up, it is another run's
        if found and self._is_cold():
            load_same_run(found[-1], self.config)  # says so if the recipe was another
            lost = self.folder / "checkpoints" / WARMUP
            raise CheckpointError(f"{lost} has lost the model that RL began with: train into another folder")
        if found:
            self.training.restore(found[-1])

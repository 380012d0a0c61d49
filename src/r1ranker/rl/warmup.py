"""A warm-up before RL: supervised training on the best of the model's own completions, in rounds.

In every round the model as it is then samples completions of new states; the best of each state is kept if it is good
enough, and the model is fine-tuned on what was kept. That is RAFT (Dong et al., 2023, arXiv 2304.06767); ReST-EM
(Singh et al., 2023, arXiv 2312.06585) keeps all that are good enough, and begins every round from the first model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from r1ranker.config import RunConfig, WarmupConfig
from r1ranker.errors import ConfigError
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Policy
from r1ranker.rl.sampled import Group, Rollouts
from r1ranker.rl.states import State

WARMUP = "warmup"
"""What the warm-up's log and checkpoints are called in a run's folder."""


def warmup_settings(config: RunConfig, warmup: WarmupConfig) -> RunConfig:
    """[warmup] in the words of [train], where a step is a round, and a seed of its own.

    A round takes long: a checkpoint is kept of each, and of the last one only.
    """
    train = config.train.model_copy(
        update={
            "steps": warmup.rounds,
            "states_per_step": warmup.states,
            "states_per_example": 1,
            "states": "subsets",
            "credit": "turn",
            "group_size": warmup.samples,
            "epochs": warmup.epochs,
            "minibatch_states": warmup.minibatch_states,
            "temperature": warmup.temperature,
            "learning_rate": warmup.learning_rate,
            "warmup_steps": 0,
            "decay_steps": 0,
            "checkpoint_every": 1,
            "keep_checkpoints": 1,
        }
    )
    seed = random.Random(f"{config.seed}/{WARMUP}").getrandbits(32)
    return config.model_copy(update={"train": train, "seed": seed})


def warmup_learner(policy: Policy, ranker: IRanker | DRanker, settings: RunConfig, warmup: WarmupConfig) -> BestOfN:
    """The learner of a warm-up with these settings (see `warmup_settings`)."""
    if warmup.force_format and isinstance(ranker, IRanker):
        ranker = replace(ranker, constrained=True)
    return BestOfN(policy, ranker, settings, warmup)


class BestOfN(Rollouts):
    """Fine-tunes on the best completion of each state: the cross-entropy of its tokens, a mean over the minibatch's.

    A completion is accepted if it is well formed, names a candidate that is left and earns `warmup.min_reward`.
    """

    def __init__(self, policy: Policy, ranker: IRanker | DRanker, config: RunConfig, warmup: WarmupConfig) -> None:
        super().__init__(policy, ranker, config)
        self.warmup = warmup

    def updates(self, states: Sequence[State], averages: Averages, step: int) -> list[list[int]]:
        """Roll out, judge and choose; returns the minibatches of all epochs over what was kept.

        Raises ConfigError if the first round keeps nothing: the next one would begin with the same model.
        """
        groups = self.roll_out(states, averages, step)
        accepted = [self._accepted(group) for group in groups]
        self._groups = [_best(group, own) for group, own in zip(groups, accepted, strict=True) if own]
        averages.count("sampled", sum(len(group.rewards) for group in groups))
        averages.count("accepted", sum(map(len, accepted)))
        averages.count("kept", len(self._groups))
        for group in self._groups:
            averages.add("kept_reward", group.rewards[0])
        if step == 0 and not self._groups:
            raise ConfigError(self._nothing_kept(groups))
        return self._minibatches(step) if self._groups else []

    def _accepted(self, group: Group) -> list[int]:
        """The places of the completions that may be learned from."""
        least = self.warmup.min_reward
        return [k for k in _sound(group) if least is None or group.rewards[k] >= least]

    def _nothing_kept(self, groups: Sequence[Group]) -> str:
        sampled, sound = sum(len(group.rewards) for group in groups), sum(len(_sound(group)) for group in groups)
        poor = f", and none of these earns warmup.min_reward = {self.warmup.min_reward:g}" if sound else ""
        if self.config.ranker.kind == "direct" or self.warmup.force_format:
            remedy = "raise warmup.samples or warmup.states" + (", or lower warmup.min_reward" if sound else "")
        else:
            remedy = "set warmup.force_format = true"
        return (
            f"the warm-up kept none of the {sampled:,} completions of its first round: {sound:,} are well formed and "
            f"name a candidate{poor}; {remedy}, or train without [warmup]"
        )

    def _micro(self, groups: Sequence[Group], total: int, averages: Averages) -> None:
        with self.policy.compute():
            batch, _, logprobs = self.policy.packed([group.pack for group in groups])
        averages.add("loss", -float(logprobs.detach().mean()), weight=len(logprobs))
        averages.count("tokens", batch.computed_tokens)
        (-logprobs.sum() / total).backward()  # type: ignore[no-untyped-call]


def _sound(group: Group) -> list[int]:
    """The places of the completions that are well formed and name a candidate."""
    return [k for k, answer in enumerate(group.parsed) if answer.well_formed and answer.ids]


def _best(group: Group, places: Sequence[int]) -> Group:
    """The group with one completion: of these the first that earns most."""
    return group.only([max(places, key=group.rewards.__getitem__)])

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
from r1ranker.llm.constrained import OPENING, THOUGHT_END
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Policy
from r1ranker.rl.replies import Group, RewardFunction, Rollouts, told_of
from r1ranker.rl.states import State, has_signal
from r1ranker.types import RankingExample

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


def warmup_learner(
    policy: Policy,
    ranker: IRanker | DRanker,
    settings: RunConfig,
    warmup: WarmupConfig,
    reward: RewardFunction | None = None,
) -> BestOfN:
    """The learner of a warm-up with these settings (see `warmup_settings`). reward: see `Rollouts`."""
    if warmup.force_format and isinstance(ranker, IRanker):
        ranker = replace(ranker, constrained=True)
    return BestOfN(policy, ranker, settings, warmup, reward)


def check_forced_labels(llm: TransformersLLM, ranker: IRanker, examples: Sequence[RankingExample], most: int) -> None:
    """Whether each label fits a reply of `most` tokens after a thought that was cut: any may stand to choice.

    Raises ConfigError naming the first example with one that does not, before any is sampled.
    """
    if not ranker.thinking:  # the answer is all there is then, and has the room that it takes
        return
    encode = llm.chat.encode_wording
    tags = max(len(encode(THOUGHT_END + OPENING)), len(encode(OPENING)))
    for example in filter(has_signal, examples):
        request = replace(ranker, constrained=True).request(example, example.ids)
        need = tags + max(len(llm.chat.encode_text(answer)) for answer in request.answers) + len(encode(request.stop))
        if need > most:
            raise ConfigError(
                f"example '{example.id}': its longest label takes {need} tokens with the tags, and ranker.max_tokens = "
                f"{most} allows fewer, so that warmup.force_format cannot have it written: raise ranker.max_tokens to "
                f"{need} at least, and by what a thought takes, or give that example shorter labels"
            )


class BestOfN(Rollouts):
    """Fine-tunes on the best completion of each state: the cross-entropy of its tokens, a mean over the minibatch's.

    A completion is accepted if it is well formed, names a candidate that is left and earns `warmup.min_reward`.
    """

    def __init__(
        self,
        policy: Policy,
        ranker: IRanker | DRanker,
        config: RunConfig,
        warmup: WarmupConfig,
        reward: RewardFunction | None = None,
    ) -> None:
        super().__init__(policy, ranker, config, reward)
        self.warmup = warmup

    def updates(self, states: Sequence[State], averages: Averages, step: int) -> list[list[int]]:
        """Roll out, judge and choose; returns the minibatches of all epochs over what was kept.

        Raises ConfigError if the first round keeps nothing: the next one would begin with the same model.
        """
        groups = self.roll_out(states, averages, step)
        self.replies = told_of(groups, self.config.train.log_completions)
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

    def _micro(self, groups: Sequence[Group], total: float, averages: Averages) -> None:
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

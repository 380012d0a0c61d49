"""How is learned: [reward], [train] and [warmup]."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from r1ranker.rewards import Reward
from r1ranker.sections import Section

Algorithm = Literal["all_actions", "listwise", "grpo", "ppo"]
Credit = Literal["turn", "trajectory", "ndcg", "gigpo"]
Aggregation = Literal["token_mean", "reply_mean", "reply_sum"]
SAMPLED: tuple[Algorithm, ...] = ("grpo", "ppo")
"""The algorithms that learn from sampled replies; the others score the candidates' labels and sample nothing."""
OF_ALGORITHMS: dict[str, tuple[tuple[Algorithm, ...], str]] = {
    "group_size": (SAMPLED, "how many replies are sampled of each state"),
    "epochs": (SAMPLED, "the passes over a step's sampled replies"),
    "clip_epsilon": (SAMPLED, "how far an update may go from the policy that sampled"),
    "clip_epsilon_high": (SAMPLED, "how far a token's probability may rise in an update"),
    "loss_aggregation": (SAMPLED, "which mean over tokens the loss is"),
    "ratio": (("grpo",), "whose ratio to the policy that sampled is clipped"),
    "drop_cut_off": (SAMPLED, "whether replies that ranker.max_tokens ended are left out of the loss"),
    "log_completions": (SAMPLED, "how many sampled replies of a step are kept"),
    "scale_rewards": (("all_actions", "grpo"), "whether the rewards of a state are divided by their deviation"),
    "entropy_coef": (("all_actions",), "the bonus on the entropy over a state's choices"),
    "critic": (("ppo",), "which critic there is"),
    "critic_learning_rate": (("ppo",), "the critic's"),
    "value_clip": (("ppo",), "how far an update may move the critic's values"),
    "gamma": (("ppo",), "the discount from token to token"),
    "gae_lambda": (("ppo",), "of generalised advantage estimation"),
}
"""Settings of [train] that not every algorithm reads: by which they are read, and what they say."""
_SAVED = frozenset({"algorithm", "scale_rewards", "entropy_coef", "value_clip", "gae_lambda", "keep_checkpoints"})
"""Keys by which a recipe that a run saved is told from one that was written: no algorithm reads all of them."""


class RewardConfig(Section):
    """[reward]: what the parts of a reward (`rewards.py`) weigh; 1 is the paper, 0 leaves a part out."""

    answer: float = Field(1.0, ge=0)
    coverage: float = Field(1.0, ge=0)
    """For direct: how many candidates the list leaves out. An exclusion never earns it."""
    format: float = Field(1.0, ge=0)
    tags: float = Field(1.0, ge=0)

    def total(self, reward: Reward) -> float:
        """What is learned from: the weighted sum of the parts."""
        ranked = self.answer * reward.answer + self.coverage * reward.coverage
        return ranked + self.format * reward.format + self.tags * reward.tags


class TrainConfig(Section):
    """[train]: the algorithm and its constants."""

    algorithm: Algorithm = "ppo"
    steps: int = Field(100, ge=1)
    states_per_step: int = Field(16, ge=1)
    states_per_example: int = Field(1, ge=1)
    """States drawn of an example in a step; where labels are scored what their prompts begin with is computed once."""
    states: Literal["subsets", "whole", "on_policy"] = "subsets"
    """subsets: random subsets of an example's candidates (the paper); of a constrained direct list, what is left after
    the beginning of a random one. whole (for iterative): all candidates, as a first step sees them. on_policy: those
    that are left in the turns of a whole elimination by the model as it is, at most states_per_example of them."""
    credit: Credit = "turn"
    """turn: an exclusion by its own reward. trajectory: by those of the following turns too, which all_actions knows
    without going through them; sampled replies need states = "on_policy". ndcg, for all_actions: by the nDCG that the
    elimination is expected to end with, to which the best places count most, or, of a direct list, by what the lines
    that are still to be written are expected to add to it. gigpo, for sampled replies: compares whole
    eliminations and those of their turns that have the same left."""
    turn_gamma: float = Field(1.0, ge=0, le=1)
    """For trajectory and gigpo with sampled replies: the discount from one turn of an elimination to the next."""
    step_weight: float = Field(1.0, ge=0)
    """For gigpo: what the comparison of turns weighs beside that of whole eliminations."""
    group_size: int = Field(1, ge=1)
    """Completions sampled of each state (grpo, ppo); with another credit than turn, eliminations of each
    example."""
    epochs: int = Field(1, ge=1)
    """Passes over a step's completions."""
    minibatch_states: int | None = Field(None, ge=1)
    """States to an optimizer step; None takes all of them at once."""
    learning_rate: float = Field(1e-6, gt=0)
    critic_learning_rate: float = Field(2e-6, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    decay_steps: int = Field(0, ge=0)
    """Over so many last steps the learning rate falls, linearly, to nothing after the last one."""
    grad_clip: float = Field(1.0, gt=0)
    clip_epsilon: float = Field(0.2, gt=0)
    clip_epsilon_high: float | None = Field(None, gt=0)
    """How far a ratio may rise above 1, where clip_epsilon says how far it may fall ("clip-higher", DAPO, arXiv
    2503.14476); None: as far."""
    loss_aggregation: Aggregation = "token_mean"
    """token_mean: a mean over an update's tokens (DAPO). reply_mean: of the means of its replies (GRPO's paper).
    reply_sum: of their sums, divided by ranker.max_tokens (Dr. GRPO, arXiv 2503.20783)."""
    ratio: Literal["token", "reply"] = "token"
    """reply: a reply has one ratio, the geometric mean of its tokens' (GSPO, arXiv 2507.18071); its clip_epsilon is
    far smaller."""
    drop_cut_off: bool = False
    """Learn nothing from replies that ranker.max_tokens ended; others are compared with them all the same."""
    value_clip: float = Field(0.5, gt=0)
    kl_coef: float = Field(0.001, ge=0)
    scale_rewards: bool | None = None
    """Divide what a state's rewards are above their mean by their standard deviation. None: grpo does, all_actions does
    not. false with grpo: the advantages of Dr. GRPO (arXiv 2503.20783)."""
    entropy_coef: float = Field(0.0, ge=0)
    """Bonus on the policy's entropy over the choices (all_actions)."""
    gamma: float = Field(1.0, ge=0, le=1)
    gae_lambda: float = Field(1.0, ge=0, le=1)
    critic: Literal["separate", "head"] = "separate"
    """separate: a model of the same size (the paper). head: a linear head on the policy's own states."""
    temperature: float = Field(1.0, gt=0)
    """Of sampled completions; with constrained answers that are scored, of the policy that is trained."""
    micro_tokens: int = Field(4096, ge=1)
    """About how many positions stand in one forward and backward pass; bounds the memory."""
    checkpoint_every: int = Field(50, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    log_completions: int = Field(0, ge=0)
    """How many sampled replies of each step, the first ones, are kept in completions.jsonl."""

    @property
    def samples(self) -> bool:
        """Whether replies are sampled, or the candidates' labels scored."""
        return self.algorithm in SAMPLED

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_runs(cls, raw: Any) -> Any:
        """Leave out what an earlier version saved and its run did not read, now that such a setting is refused.

        It saved scale_rewards = false whatever the algorithm, and GRPO divided: that is what None says now. A run saves
        all keys, so one without log_completions, which came with that change, is of an earlier version.
        """
        if not isinstance(raw, dict) or "log_completions" in raw or not raw.keys() >= _SAVED:
            return raw
        unread = {key for key, (algorithms, _) in OF_ALGORITHMS.items() if raw["algorithm"] not in algorithms}
        if not raw["scale_rewards"]:
            unread.add("scale_rewards")
        return {key: value for key, value in raw.items() if key not in unread}

    @field_validator("scale_rewards")
    @classmethod
    def _own_way(cls, scale: bool | None, info: ValidationInfo) -> bool | None:
        """The algorithm's own way is None, also where it is written out: a run saved with the one is the other's."""
        return None if scale is (info.data.get("algorithm") == "grpo") else scale


class WarmupConfig(Section):
    """[warmup]: supervised training on the model's own completions before RL, as `rl/warmup.py` says; off if absent."""

    rounds: int = Field(3, ge=0)
    """Each samples with the model as it is then, and trains on what it keeps; 0: no warm-up."""
    states: int = Field(32, ge=1)
    """States of a round, of each of which one completion is kept at most."""
    samples: int = Field(8, ge=1)
    """Completions sampled of each state."""
    min_reward: float | None = None
    """What a completion must earn to be kept, beside being well formed and naming a candidate."""
    force_format: bool = False
    """For iterative: only the thought is free, so that a model which does not know the format keeps it too."""
    epochs: int = Field(1, ge=1)
    """Passes over what a round kept."""
    minibatch_states: int | None = Field(8, ge=1)
    """Kept completions to an optimizer step; None takes all of them at once."""
    temperature: float = Field(1.0, gt=0)
    learning_rate: float = Field(5e-5, gt=0)

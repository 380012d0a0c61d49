"""A whole recipe, and which of its settings go together."""

from __future__ import annotations

from pydantic import model_validator

from r1ranker.config.data import DataConfig
from r1ranker.config.evaluation import EvaluationConfig, ValidationConfig
from r1ranker.config.model import ModelConfig
from r1ranker.config.ranker import SCORING, RankerConfig
from r1ranker.config.train import OF_ALGORITHMS, RewardConfig, TrainConfig, WarmupConfig
from r1ranker.sections import Section


class RunConfig(Section):
    """A whole recipe."""

    name: str = "run"
    seed: int = 0
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    ranker: RankerConfig = RankerConfig()
    reward: RewardConfig = RewardConfig()
    warmup: WarmupConfig | None = None
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        if self.ranker.kind in SCORING:
            raise ValueError(
                f"ranker.kind = '{self.ranker.kind}' is a way to rank, not to train: train with ranker.kind = "
                f"'iterative' and ranker.thinking = false, then rank with {self.ranker.kind}"
            )
        if changed := self.ranker.schedule:
            raise ValueError(
                f"ranker.{changed[0]} is a way to rank, not to train: leave it out here, and give it when you rank "
                "with the trained model"
            )
        if self.ranker.thoughts:
            raise ValueError(
                "ranker.thoughts is a way to rank, not to train: leave it out here, and give it when you rank with "
                "the trained model"
            )
        if self.ranker.constrained and self.train.samples:
            raise ValueError(
                "ranker.constrained = true is trained by train.algorithm = 'all_actions' or 'listwise', not "
                f"'{self.train.algorithm}': leave it out here, and give it when you rank with the trained model"
            )
        sums = f"train.algorithm = '{self.train.algorithm}' sums over the candidates that can be named"
        if not self.train.samples and self.ranker.thinking:
            raise ValueError(f"{sums}: it needs ranker.thinking = false")
        free_list = self.ranker.kind == "direct" and not self.ranker.constrained
        if not self.train.samples and free_list:
            raise ValueError(f"{sums}: with ranker.kind = 'direct' it needs ranker.constrained = true")
        if self.train.states_per_example > 1 and free_list:
            raise ValueError(
                "train.states_per_example > 1 needs ranker.kind = 'iterative', or ranker.constrained = true: a list "
                "that is written freely has one state"
            )
        if self.train.states_per_example > 1 and self.train.states == "whole":
            raise ValueError(
                "train.states_per_example > 1 needs train.states = 'subsets' or 'on_policy': with 'whole' an example "
                "has one state"
            )
        if self.train.states_per_step % self.train.states_per_example:
            raise ValueError(
                f"train.states_per_step = {self.train.states_per_step} is no multiple of train.states_per_example = "
                f"{self.train.states_per_example}: an example's states belong to one step"
            )
        if self.train.algorithm == "grpo" and self.train.group_size < 2:
            raise ValueError("train.algorithm = 'grpo' compares completions of a state: set train.group_size >= 2")
        return self

    @model_validator(mode="after")
    def _algorithm_reads(self) -> RunConfig:
        """Whether every setting that was changed is read. At its default a setting passes: a run saves them all."""
        train = self.train
        for key, (algorithms, what) in OF_ALGORITHMS.items():
            default = TrainConfig.model_fields[key].default
            if train.algorithm not in algorithms and getattr(train, key) != default:
                raise ValueError(
                    f"train.{key} ({what}) is for train.algorithm = {' or '.join(map(repr, algorithms))}, and "
                    f"'{train.algorithm}' does not read it: leave it out"
                    + (f", or at its default, {default}" if default is not None else "")
                )
        if not train.samples and train.temperature != 1 and not self.ranker.constrained:
            raise ValueError(
                "train.temperature (of what is sampled, and of constrained answers) is not read by train.algorithm = "
                f"'{train.algorithm}' without ranker.constrained = true, where ranker.sharpness is what evens the "
                "scores out: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _credit_fits(self) -> RunConfig:
        train = self.train
        if train.states != "subsets" and self.ranker.kind == "direct":
            raise ValueError(
                f"train.states = '{train.states}' is of eliminations, and ranker.kind = 'direct' has one turn: set "
                "train.states = 'subsets'"
            )
        if train.credit == "turn":
            if train.turn_gamma != 1:
                raise ValueError(
                    "train.turn_gamma discounts the rewards of later turns, and train.credit = 'turn' takes none: "
                    "leave it out, or set train.credit = 'trajectory' or 'gigpo'"
                )
        elif train.algorithm == "listwise":
            raise ValueError(
                f"train.credit = '{train.credit}' is of rewards, and train.algorithm = 'listwise' learns from none: "
                "leave it out, or set train.algorithm = 'all_actions'"
            )
        elif train.algorithm == "all_actions":
            self._expected_credit_fits()
        elif train.credit == "ndcg":
            raise ValueError(
                "train.credit = 'ndcg' is exact, and train.algorithm = "
                f"'{train.algorithm}' samples: set train.credit = 'trajectory', or train.algorithm = 'all_actions'"
            )
        elif train.states != "on_policy":
            raise ValueError(
                f"train.credit = '{train.credit}' needs the turns of whole eliminations: set train.states = "
                "'on_policy', or train.credit = 'turn'"
            )
        elif train.gamma != 1:
            raise ValueError(
                f"train.gamma discounts from token to token, and with train.credit = '{train.credit}' a turn is one "
                "action: set train.gamma = 1, and train.turn_gamma"
            )
        if train.credit == "gigpo" and train.algorithm == "ppo":
            raise ValueError(
                "train.credit = 'gigpo' compares eliminations and needs no critic: set train.algorithm = 'grpo', or "
                "train.credit = 'trajectory'"
            )
        if train.step_weight != 1 and train.credit != "gigpo":
            raise ValueError("train.step_weight is for train.credit = 'gigpo': leave it out, or set that credit")
        return self

    def _expected_credit_fits(self) -> None:
        """Whether all_actions can give the credit that is asked for, which is not that of a turn alone."""
        train = self.train
        if train.credit == "gigpo":
            raise ValueError(
                "train.credit = 'gigpo' is for sampled replies, and train.algorithm = 'all_actions' samples none: set "
                "train.credit = 'turn', 'trajectory' or 'ndcg', or train.algorithm = 'grpo'"
            )
        if train.credit == "trajectory" and self.ranker.kind == "direct":
            raise ValueError(
                "train.credit = 'trajectory' is of eliminations, and ranker.kind = 'direct' has none: set "
                "train.credit = 'turn' or 'ndcg'"
            )
        if train.scale_rewards:
            raise ValueError(
                f"train.scale_rewards divides the rewards of a turn, and with train.credit = '{train.credit}' a list's "
                "return is a share already: leave it out"
            )
        if train.turn_gamma != 1:
            raise ValueError(
                "train.turn_gamma discounts turns that are gone through, and train.algorithm = 'all_actions' goes "
                "through none: leave it out"
            )

    @model_validator(mode="after")
    def _validation_fits(self) -> RunConfig:
        if self.validation and self.validation.first_step and (self.ranker.kind == "direct" or self.ranker.thinking):
            raise ValueError(
                "validation.first_step = true ranks by the scores of an elimination's first turn, which ranker.kind = "
                "'iterative' with ranker.thinking = false has: leave it out, and the recipe's own ranker is measured"
            )
        return self

    @model_validator(mode="after")
    def _reward_fits(self) -> RunConfig:
        earned = list(RewardConfig.model_fields)
        if self.ranker.kind == "iterative":
            earned.remove("coverage")
        if self.train.algorithm == "listwise":
            if self.reward != RewardConfig():
                raise ValueError("[reward] is not read by train.algorithm = 'listwise', which imitates: leave it out")
            return self
        if self.train.algorithm == "all_actions":
            earned = ["answer"]
        for part in RewardConfig.model_fields:
            if getattr(self.reward, part) != 1 and part not in earned:
                raise ValueError(
                    f"reward.{part} is never earned with ranker.kind = '{self.ranker.kind}' and train.algorithm = "
                    f"'{self.train.algorithm}' (only {', '.join(earned)}): leave it out"
                )
        if not any(getattr(self.reward, part) for part in earned):
            raise ValueError(f"nothing is learned with every weight of [reward] 0: give one of {', '.join(earned)}")
        return self

    @model_validator(mode="after")
    def _adapter_fits(self) -> RunConfig:
        if self.model.adapter is not None and self.train.kl_coef:
            raise ValueError(
                "with model.adapter, train.kl_coef would pull to the model without any adapter, away from where this "
                "run begins: set train.kl_coef = 0, or give the adapter as model.path, which merges it"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> RunConfig:
        if self.warmup is None or self.warmup.rounds == 0:
            return self
        if not self.train.samples:
            raise ValueError(
                f"[warmup] is for sampled completions, and train.algorithm = '{self.train.algorithm}' scores: leave it "
                "out"
            )
        if self.warmup.force_format and self.ranker.kind == "direct":
            raise ValueError(
                "warmup.force_format is for ranker.kind = 'iterative', whose answer is one label: leave it out"
            )
        if self.model.lora_rank and self.train.kl_coef:
            raise ValueError(
                "with model.lora_rank, train.kl_coef pulls to the model without its adapter, away from what [warmup] "
                "made: set train.kl_coef = 0, or model.lora_rank = 0"
            )
        return self

"""Recipes: one TOML file a run. Defaults, then the file, then `--set`; a key that does not exist is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from r1ranker.answers import QUOTE_WORDS, AnswerForm
from r1ranker.errors import ConfigError
from r1ranker.prompts import Layout, PromptTemplates
from r1ranker.rankers import AnyRanker, RankerKind, make_ranker
from r1ranker.rewards import Reward
from r1ranker.schedules import Budget, ScheduledRanker, Tournament, Windows
from r1ranker.sections import Section, parse_section, read_tables
from r1ranker.thoughts import ThoughtBank

Algorithm = Literal["all_actions", "grpo", "ppo"]
Credit = Literal["turn", "trajectory", "gigpo"]
Precision = Literal["auto", "fp32", "bf16"]
SCORING = ("first_step", "pointwise")
"""Kinds that only score: they do not think, and are no way to train."""
SCHEDULE = ("exclude_per_turn", "stop_at", "window", "tournament", "budget_calls", "budget_tokens")
"""Keys of [ranker] that change how a list is gone through, and not how the model is asked in a turn."""


class ModelConfig(Section):
    """[model]: which LLM is trained, and which of its weights."""

    path: str = "smollm2-135m-instruct"
    """A known name, a hub id, or a folder."""
    device: str = "auto"
    precision: Precision = "auto"
    """bf16: bfloat16 autocast over float32 weights. auto: bf16 where the hardware multiplies it."""
    frozen_layers: int = Field(0, ge=0)
    """Lower layers (and the embeddings, if any) that stay as they are."""
    lora_rank: int = Field(0, ge=0)
    """0 trains the weights themselves."""
    lora_alpha: int = Field(32, gt=0)


class DataConfig(Section):
    """[data]: the data sets, mixed if there are several."""

    names: tuple[str, ...] = Field(("rec-movie",), min_length=1)
    sources: dict[str, str] = Field(default_factory=dict)
    """By data set: the folder with its raw files, where it is not fetched by itself."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By data set: its builder's options, such as [data.options.rec-movie] history = 5."""
    mix: Literal["balanced", "proportional"] = "balanced"
    """With several data sets: each has the same share of the training states, or one by how many examples it has."""
    weights: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """By data set, in balance: how many shares of the training states it has; 1 where nothing is said."""

    @model_validator(mode="after")
    def _known_names(self) -> DataConfig:
        if self.weights and self.mix != "balanced":
            raise ValueError("data.weights are shares of a balanced mix: leave them out, or set data.mix = 'balanced'")
        for table in ("sources", "options", "weights"):
            if odd := [name for name in getattr(self, table) if name not in self.names]:
                raise ValueError(f"[data.{table}] names '{odd[0]}', which is not among data.names {list(self.names)}")
        return self


class RankerConfig(Section):
    """[ranker]: how the model is asked."""

    kind: RankerKind = "iterative"
    thinking: bool = True
    """For first_step and pointwise always false."""
    answer_form: AnswerForm | None = None
    """None: the form that suits the scenario and the model's size."""
    quote_words: int = Field(QUOTE_WORDS, ge=1)
    layout: Layout = "rebuild"
    templates: str | None = None
    """A TOML file with other wording."""
    thoughts: str | None = None
    """For iterative and first_step: a bank of thoughts (`r1ranker thoughts record`), shown as examples of reasoning."""
    thoughts_shown: int = Field(1, ge=1)
    """How many of the bank's thoughts stand in a prompt at most: the nearest ones."""
    sharpness: float = Field(3.0, gt=0)
    """Without thinking: the policy is the softmax of this times a label's mean token log-prob."""
    max_tokens: int = Field(1024, ge=1)
    """Longest completion."""
    constrained: bool = False
    """For iterative and first_step: only a label that is left can be the answer. Without thinking it is written, or
    where several are compared it counts how probable each is to be written; all_actions trains that probability."""
    exclude_per_turn: float = 1
    """For iterative: a whole number, or a share of those that are left, between 0 and 1."""
    stop_at: int = Field(1, ge=1)
    """For iterative: once so many are left, one more turn orders them all."""
    window: int | None = Field(None, ge=2)
    """Candidates in a prompt; the window slides from the back of the list to its front."""
    stride: int | None = Field(None, ge=1)
    """By how many a window moves on; None: half a window."""
    tournament: int | None = Field(None, ge=2)
    """Candidates in a prompt; groups of so many play rounds."""
    advance: float = Field(0.5, gt=0, lt=1)
    """The share of a tournament's group that goes on."""
    budget_calls: int | None = Field(None, ge=1)
    """LLM calls of one list at most; what is not ranked by then stays as it is."""
    budget_tokens: int | None = Field(None, ge=1)
    """Tokens of one list at most, read and written."""

    @model_validator(mode="before")
    @classmethod
    def _scoring_does_not_think(cls, raw: Any) -> Any:
        """With a kind that only scores thinking is off where nothing is said of it."""
        return {"thinking": False, **raw} if isinstance(raw, Mapping) and raw.get("kind") in SCORING else raw

    @model_validator(mode="after")
    def _fits_together(self) -> RankerConfig:
        if self.window and self.tournament:
            raise ValueError("window and tournament are two ways to rank many candidates: give one of them")
        if self.stride and not self.window:
            raise ValueError("stride is by how many a window moves on: give window too, or leave it out")
        if self.kind != "iterative" and (self.exclude_per_turn, self.stop_at) != (1, 1):
            raise ValueError(
                f"exclude_per_turn and stop_at are for kind = 'iterative', not '{self.kind}': leave them out"
            )
        if self.thoughts and self.kind not in ("iterative", "first_step"):
            raise ValueError(
                f"thoughts are of exclusions, for kind = 'iterative' or 'first_step', not '{self.kind}': leave them out"
            )
        if self.thoughts_shown != 1 and not self.thoughts:
            raise ValueError("thoughts_shown is how many thoughts of a bank are shown: give thoughts too")
        if self.kind == "direct" and self.constrained:
            raise ValueError("constrained answers name one candidate, and kind = 'direct' names all: leave it out")
        try:
            self._build(None, PromptTemplates.default())
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def schedule(self) -> list[str]:
        """Which of the keys of a schedule are set; none where a list is gone through as in the paper."""
        defaults = type(self).model_fields
        return [name for name in SCHEDULE if getattr(self, name) != defaults[name].default]

    def build(self, parameters: int | None) -> ScheduledRanker:
        """The ranker these settings describe. parameters: the model's size, for the answer form."""
        templates = PromptTemplates.load(Path(self.templates)) if self.templates else PromptTemplates.default()
        bank = ThoughtBank.read(Path(self.thoughts)) if self.thoughts else None
        return self._build(parameters, templates, bank)

    def _build(
        self, parameters: int | None, templates: PromptTemplates, bank: ThoughtBank | None = None
    ) -> ScheduledRanker:
        own: dict[str, object] = {}
        # To judge a candidate alone there are two words in any case.
        if self.kind in ("iterative", "first_step"):
            own = {"constrained": self.constrained, "thoughts": bank, "thoughts_shown": self.thoughts_shown}
        if self.kind == "iterative":
            own |= {"exclude_per_turn": self.exclude_per_turn, "stop_at": self.stop_at}
        ranker = make_ranker(
            self.kind,
            thinking=self.thinking,
            answer_form=self.answer_form,
            quote_words=self.quote_words,
            layout=self.layout,
            parameters=parameters,
            templates=templates,
            **own,
        )
        scheduled: AnyRanker | Windows | Tournament = ranker
        if self.window:
            scheduled = Windows(ranker, self.window, self.stride or self.window // 2)
        if self.tournament:
            scheduled = Tournament(ranker, self.tournament, self.advance)
        if self.budget_calls or self.budget_tokens:
            return Budget(scheduled, self.budget_calls, self.budget_tokens, self.max_tokens)
        return scheduled


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
    """States drawn of an example in a step; with all_actions what their prompts begin with is computed once."""
    states: Literal["subsets", "on_policy"] = "subsets"
    """subsets: random subsets of an example's candidates (the paper). on_policy: those that are left in the turns of
    a whole elimination by the model as it is, at most states_per_example of them."""
    credit: Credit = "turn"
    """turn: an exclusion by its own reward. With states = "on_policy" also by the rewards of the following turns:
    trajectory, and gigpo, which compares whole eliminations and those of their turns that have the same left."""
    turn_gamma: float = Field(1.0, ge=0, le=1)
    """For trajectory and gigpo: the discount from one turn of an elimination to the next."""
    step_weight: float = Field(1.0, ge=0)
    """For gigpo: what the comparison of turns weighs beside that of whole eliminations."""
    group_size: int = Field(1, ge=1)
    """Completions sampled of each state (not for all_actions); with another credit than turn, eliminations of each
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
    value_clip: float = Field(0.5, gt=0)
    kl_coef: float = Field(0.001, ge=0)
    scale_rewards: bool = False
    """Divide the rewards of a state's choices by their standard deviation, as GRPO does (all_actions)."""
    entropy_coef: float = Field(0.0, ge=0)
    """Bonus on the policy's entropy over the choices (all_actions)."""
    gamma: float = Field(1.0, ge=0, le=1)
    gae_lambda: float = Field(1.0, ge=0, le=1)
    critic: Literal["separate", "head"] = "separate"
    """separate: a model of the same size (the paper). head: a linear head on the policy's own states."""
    temperature: float = Field(1.0, gt=0)
    """Of sampled completions; with all_actions and constrained answers, of the policy that is trained."""
    micro_tokens: int = Field(4096, ge=1)
    """About how many positions stand in one forward and backward pass; bounds the memory."""
    checkpoint_every: int = Field(50, ge=1)
    keep_checkpoints: int = Field(2, ge=1)


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


class EvaluationConfig(Section):
    """[evaluation]: what is measured after (and before) training."""

    limit: int | None = Field(None, ge=1)
    """Test examples; None takes all."""
    direct: bool = True
    """Whether the base model is also asked for the whole list at once."""
    concurrency: int = Field(32, ge=1)
    """Rankings under way at once."""


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
        if self.ranker.constrained and self.train.algorithm != "all_actions":
            raise ValueError(
                "ranker.constrained = true is trained by train.algorithm = 'all_actions', not "
                f"'{self.train.algorithm}': leave it out here, and give it when you rank with the trained model"
            )
        if self.train.algorithm == "all_actions" and (self.ranker.thinking or self.ranker.kind == "direct"):
            raise ValueError(
                "train.algorithm = 'all_actions' sums over the candidates of one turn: it needs "
                "ranker.kind = 'iterative' and ranker.thinking = false"
            )
        if self.train.states_per_example > 1 and self.ranker.kind == "direct":
            raise ValueError("train.states_per_example > 1 needs ranker.kind = 'iterative': a list has one state")
        if self.train.states_per_step % self.train.states_per_example:
            raise ValueError(
                f"train.states_per_step = {self.train.states_per_step} is no multiple of train.states_per_example = "
                f"{self.train.states_per_example}: an example's states belong to one step"
            )
        if self.train.algorithm == "grpo" and self.train.group_size < 2:
            raise ValueError("train.algorithm = 'grpo' compares completions of a state: set train.group_size >= 2")
        return self

    @model_validator(mode="after")
    def _credit_fits(self) -> RunConfig:
        train = self.train
        if train.states == "on_policy" and self.ranker.kind == "direct":
            raise ValueError(
                "train.states = 'on_policy' is of eliminations, and ranker.kind = 'direct' has one turn: set "
                "train.states = 'subsets'"
            )
        if train.credit == "turn":
            if train.turn_gamma != 1:
                raise ValueError(
                    "train.turn_gamma discounts the rewards of later turns, and train.credit = 'turn' takes none: "
                    "leave it out, or set train.credit = 'trajectory' or 'gigpo'"
                )
        elif train.algorithm == "all_actions":
            raise ValueError(
                f"train.credit = '{train.credit}' is for sampled replies, and train.algorithm = 'all_actions' samples "
                "none: set train.credit = 'turn', or train.algorithm = 'grpo'"
            )
        elif train.states == "subsets":
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

    @model_validator(mode="after")
    def _reward_fits(self) -> RunConfig:
        earned = list(RewardConfig.model_fields)
        if self.ranker.kind == "iterative":
            earned.remove("coverage")
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
    def _warmup_fits(self) -> RunConfig:
        if self.warmup is None or self.warmup.rounds == 0:
            return self
        if self.train.algorithm == "all_actions":
            raise ValueError(
                "[warmup] is for sampled completions, and train.algorithm = 'all_actions' scores: leave it out"
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


def load_config(path: Path | None = None, sets: Sequence[str] = ()) -> RunConfig:
    """A recipe with `key.sub=value` settings on top (values as in TOML; a bare word is a string).

    Raises ConfigError for a file that is missing or not TOML, a key that does not exist (naming the
    nearest), or a value of the wrong kind.
    """
    raw = read_tables(path, sets)
    if any(setting.partition("=")[0].strip() == "data.names" for setting in sets):
        _forget_other_data(raw)
    return parse_config(raw, str(path) if path else "--set")


def parse_config(raw: Mapping[str, Any], where: str) -> RunConfig:
    """A recipe from its tables; `where` is what errors name as its source."""
    return parse_section(RunConfig, raw, where)


def _forget_other_data(raw: dict[str, Any]) -> None:
    """With other data sets by `--set data.names`, what the recipe says of its own ones is moot."""
    data = raw["data"]
    for table in ("sources", "options", "weights"):
        if isinstance(data.get(table), dict) and isinstance(data["names"], list):
            data[table] = {name: value for name, value in data[table].items() if name in data["names"]}


def dump_config(config: RunConfig) -> str:
    """The resolved config as JSON: what a run saves beside its results."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"

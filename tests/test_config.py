from __future__ import annotations

import json
from pathlib import Path

import pytest

import r1ranker
from r1ranker.config import RankerConfig, RewardConfig, RunConfig, dump_config, load_config, parse_config
from r1ranker.errors import ConfigError, InputError
from r1ranker.rankers import DRanker, FirstStep, IRanker
from r1ranker.rewards import Reward
from r1ranker.sections import parse_section
from r1ranker.thoughts import ThoughtBank
from r1ranker.types import Thought

RECIPES = sorted((Path(r1ranker.__file__).parent / "recipes").glob("*.toml"))
NO_THINKING = ("train.algorithm=all_actions", "ranker.thinking=false")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(
        """
name = "small"
[model]
frozen_layers = 3
[data]
names = ["rec-movie"]
[ranker]
thinking = false
[train]
algorithm = "all_actions"
steps = 7
learning_rate = 1e-4
"""
    )
    return path


# Where values come from


def test_defaults_are_the_papers() -> None:
    config = load_config()
    assert config == RunConfig()
    assert (config.name, config.seed) == ("run", 0)
    assert config.train.algorithm == "ppo"
    assert (config.ranker.kind, config.ranker.thinking) == ("iterative", True)
    # Actor 1e-6, critic 2e-6 and separate, KL 0.001, sampling at temperature 1, 1,024 new tokens.
    train = config.train
    assert (train.learning_rate, train.critic_learning_rate, train.critic) == (1e-6, 2e-6, "separate")
    assert (train.kl_coef, train.temperature, config.ranker.max_tokens) == (0.001, 1.0, 1024)


def test_a_file_overrides_defaults_and_leaves_the_rest(recipe: Path) -> None:
    config = load_config(recipe)
    assert (config.name, config.model.frozen_layers, config.train.steps) == ("small", 3, 7)
    assert config.train.learning_rate == 1e-4
    assert config.train.states_per_step == RunConfig().train.states_per_step
    assert config.model.path == RunConfig().model.path


def test_set_overrides_the_file_and_the_last_one_wins(recipe: Path) -> None:
    config = load_config(recipe, ["train.steps=9", "name=other", "train.steps=11", "seed = 5"])
    assert (config.train.steps, config.name, config.seed) == (11, "other", 5)
    assert config.train.learning_rate == 1e-4  # the file's, in the same table
    assert load_config(None, ["train.steps=9"]).train.steps == 9


@pytest.mark.parametrize(
    ("setting", "section", "key", "value"),
    [
        ("train.learning_rate=3e-5", "train", "learning_rate", 3e-5),
        ("train.minibatch_states=4", "train", "minibatch_states", 4),
        ("ranker.thinking=true", "ranker", "thinking", True),
        ("ranker.answer_form=quote", "ranker", "answer_form", "quote"),
        ('ranker.answer_form="id"', "ranker", "answer_form", "id"),
        ("model.path=./models/a=b", "model", "path", "./models/a=b"),
        ("model.path=HuggingFaceTB/SmolLM2-135M", "model", "path", "HuggingFaceTB/SmolLM2-135M"),
        ('data.names=["rec-movie", "passage-5"]', "data", "names", ("rec-movie", "passage-5")),
        ("train.gamma=1", "train", "gamma", 1.0),
    ],
)
def test_set_reads_values_as_toml_and_bare_words_as_text(setting: str, section: str, key: str, value: object) -> None:
    got = getattr(getattr(load_config(None, [setting]), section), key)
    assert got == value
    assert type(got) is type(value)


def test_set_reaches_tables_in_tables() -> None:
    config = load_config(None, ["data.options.rec-movie.history=5", "data.options.rec-movie.target=random"])
    assert config.data.options == {"rec-movie": {"history": 5, "target": "random"}}


def test_the_dumped_config_is_the_config() -> None:
    config = load_config(None, ["train.steps=3", "data.options.rec-movie.history=5", "ranker.answer_form=id"])
    assert RunConfig.model_validate(json.loads(dump_config(config))) == config


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 1  # type: ignore[misc]


# Mistakes


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ("train.step=3", "train.steps"),
        ("train.learning_rat=1", "train.learning_rate"),
        ("ranker.thinkng=true", "ranker.thinking"),
        ("trian.steps=3", "train"),
        ("sed=1", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(setting: str, near: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting])
    message = str(caught.value)
    assert message.startswith(f"--set: there is no key '{key if '.' in near else key.partition('.')[0]}'")
    assert f"did you mean '{near}" in message


def test_an_unknown_key_with_no_neighbour_has_no_hint() -> None:
    with pytest.raises(ConfigError, match=r"there is no key 'qqqqqqqq'$"):
        load_config(None, ["qqqqqqqq=1"])


def test_an_unknown_key_in_a_file_names_the_file(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "batchsize = 4\n")
    with pytest.raises(ConfigError) as caught:
        load_config(recipe)
    assert f"{recipe}: there is no key 'train.batchsize'" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("train.steps=0", "train.steps"),
        ("train.steps=many", "train.steps"),
        ("train.steps=1.5", "train.steps"),
        ("train.learning_rate=-1", "train.learning_rate"),
        ("train.learning_rate=nan", "train.learning_rate"),
        ("train.gamma=1.1", "train.gamma"),
        ("train.algorithm=reinforce", "train.algorithm"),
        ("train.critic=none", "train.critic"),
        ("train.temperature=0", "train.temperature"),
        ("ranker.kind=both", "ranker.kind"),
        ("ranker.thinking=perhaps", "ranker.thinking"),
        ("model.precision=int4", "model.precision"),
        ("data.names=rec-movie", "data.names"),
        ("data.names=[]", "data.names"),
        ("train=3", "train"),
    ],
)
def test_a_bad_value_names_its_key(setting: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [setting])
    assert str(caught.value).startswith(f"--set: {key}: ")
    assert len(str(caught.value)) > len(f"--set: {key}: ") + 5


@pytest.mark.parametrize("setting", ["train.steps", "=3", " =3", ""])
def test_set_needs_a_key_and_a_value(setting: str) -> None:
    with pytest.raises(ConfigError, match="write it as key=value"):
        load_config(None, [setting])


def test_set_cannot_go_into_a_value(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set name\.first=1: 'name' is a value, not a table"):
        load_config(recipe, ["name.first=1"])


@pytest.mark.parametrize("content", [b"name = ", b"[train\nsteps = 1", b"a = 1\na = 2", b"name = '\xff'"])
def test_a_file_that_is_not_toml_is_an_error(recipe: Path, content: bytes) -> None:
    recipe.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(recipe)
    assert str(caught.value).startswith(f"{recipe}: cannot be read as TOML (")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_a_missing_file_names_the_near_one(recipe: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe.with_name("smal.toml"))
    message = str(caught.value)
    assert f"there is no recipe '{recipe.with_name('smal.toml')}'" in message
    assert f"did you mean '{recipe}'?" in message


def test_a_missing_file_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no recipe '.*none\.toml'$"):
        load_config(tmp_path / "nowhere" / "none.toml")


# What does not go together


def test_all_actions_needs_an_iranker_without_thinking() -> None:
    assert load_config(None, NO_THINKING).train.algorithm == "all_actions"
    for setting in ("ranker.thinking=true", "ranker.kind=direct"):
        with pytest.raises(ConfigError, match=r"'all_actions'.* needs ranker\.kind = 'iterative' and ranker\.thinking"):
            load_config(None, [*NO_THINKING, setting])


def test_grpo_needs_a_group() -> None:
    assert load_config(None, ["train.algorithm=grpo", "train.group_size=2"]).train.group_size == 2
    for more in ([], ["train.group_size=1"]):
        with pytest.raises(ConfigError, match=r"set train\.group_size >= 2"):
            load_config(None, ["train.algorithm=grpo", *more])


ON_POLICY = ("train.states=on_policy",)
GRPO = ("train.algorithm=grpo", "train.group_size=4")
GIGPO = (*GRPO, *ON_POLICY, "train.credit=gigpo")


@pytest.mark.parametrize(
    "settings",
    [
        ON_POLICY,
        (*ON_POLICY, *NO_THINKING),
        (*ON_POLICY, "train.credit=trajectory", "train.turn_gamma=0.9", "train.gae_lambda=0.5"),
        (*ON_POLICY, *GRPO, "train.credit=trajectory"),
        (*GIGPO, "train.turn_gamma=0.95", "train.step_weight=0.0"),
    ],
)
def test_ways_to_give_credit_that_go_together(settings: tuple[str, ...]) -> None:
    assert load_config(None, settings).train.states == "on_policy"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("ranker.kind=direct", *ON_POLICY), r"train\.states = 'on_policy' is of eliminations.*'subsets'"),
        (("train.turn_gamma=0.9",), r"train\.turn_gamma discounts.* set train\.credit = 'trajectory'"),
        (("train.step_weight=0.5",), r"train\.step_weight is for train\.credit = 'gigpo'"),
        ((*GIGPO, "train.credit=trajectory", "train.step_weight=0.5"), r"train\.step_weight is for"),
        ((*NO_THINKING, *ON_POLICY, "train.credit=trajectory"), r"is for sampled replies.* train\.algorithm = 'grpo'"),
        ((*GRPO, "train.credit=gigpo"), r"whole eliminations: set train\.states = 'on_policy'"),
        ((*ON_POLICY, "train.credit=gigpo"), r"needs no critic: set train\.algorithm = 'grpo'"),
        ((*ON_POLICY, "train.credit=trajectory", "train.gamma=0.9"), r"set train\.gamma = 1, and train\.turn_gamma"),
    ],
)
def test_ways_to_give_credit_that_do_not(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, settings)


def test_the_papers_reward_is_the_plain_sum() -> None:
    reward = Reward(0.1, -0.7, -1.0, -0.25)
    assert RewardConfig().total(reward) == reward.total
    # 0.2 - 0.35 + 0 - 0.75
    assert RewardConfig(answer=2, coverage=0.5, format=0, tags=3).total(reward) == pytest.approx(-0.9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("reward.coverage=0",), r"reward\.coverage is never earned with ranker\.kind = 'iterative'"),
        ((*NO_THINKING, "reward.format=0"), r"reward\.format is never earned.*'all_actions' \(only answer\)"),
        ((*NO_THINKING, "reward.answer=0"), r"every weight of \[reward\] 0: give one of answer"),
        (("reward.answer=0", "reward.format=0", "reward.tags=0"), r"give one of answer, format, tags"),
        (("reward.tags=-1",), r"reward\.tags"),
    ],
)
def test_a_part_that_is_never_earned_has_no_weight(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, settings)


def test_parts_that_are_earned_can_be_left_out() -> None:
    assert load_config(None, ["reward.answer=0"]).reward == RewardConfig(answer=0)
    assert load_config(None, ["ranker.kind=direct", "reward.coverage=0", "reward.tags=0.5"]).reward.coverage == 0
    assert load_config(None, [*NO_THINKING, "reward.answer=2"]).reward.answer == 2


@pytest.mark.parametrize("more", [(), ("ranker.thinking=false",), NO_THINKING])
def test_the_first_step_is_no_way_to_train(more: tuple[str, ...]) -> None:
    with pytest.raises(
        ConfigError, match=r"^--set: ranker\.kind = 'first_step' .* train with ranker\.kind = 'iterative'"
    ):
        load_config(None, ["ranker.kind=first_step", *more])


def test_the_first_step_never_thinks() -> None:
    assert RankerConfig(kind="first_step").thinking is False
    assert RankerConfig.model_validate(RankerConfig(kind="first_step").model_dump()).thinking is False
    assert RankerConfig(kind="iterative").thinking is RankerConfig(kind="direct").thinking is True
    with pytest.raises(ConfigError, match=r"^row: kind = 'first_step' scores .*: set thinking = false"):
        parse_section(RankerConfig, {"kind": "first_step", "thinking": True}, "row")


@pytest.mark.parametrize(
    "setting",
    [
        "exclude_per_turn=0.5",
        "stop_at=3",
        "window=5",
        "tournament=5",
        "budget_calls=9",
        "budget_tokens=900",
    ],
)
def test_a_schedule_is_no_way_to_train(setting: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^--set: ranker\.{key} is a way to rank, not to train"):
        load_config(None, [f"ranker.{setting}"])
    assert load_config(None, ["ranker.exclude_per_turn=1", "ranker.stop_at=1"]).ranker == RankerConfig()


def test_to_show_thoughts_is_no_way_to_train() -> None:
    with pytest.raises(ConfigError, match=r"^--set: ranker\.thoughts is a way to rank, not to train"):
        load_config(None, ["ranker.thoughts=bank.jsonl"])


def test_constrained_answers_are_trained_by_all_actions_alone() -> None:
    without = ["ranker.thinking=false", "ranker.constrained=true"]
    config = load_config(None, [*without, "train.algorithm=all_actions"])
    assert config.ranker.build(None).constrained  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"ranker.constrained = true is trained by .*'all_actions', not 'ppo'"):
        load_config(None, without)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"exclude_per_turn": 1.5}, "exclude_per_turn is 1.5: give a whole number from 1, or a share between 0 and 1"),
        ({"window": 5, "tournament": 5}, "two ways to rank many candidates: give one of them"),
        ({"stride": 2}, "give window too"),
        ({"window": 4, "stride": 4}, "stride 4 in a window of 4"),
        ({"window": 1}, "window: "),
        ({"advance": 1.0, "tournament": 4}, "advance: "),
        ({"budget_calls": 0}, "budget_calls: "),
        ({"kind": "direct", "stop_at": 3}, "for kind = 'iterative', not 'direct'"),
        ({"kind": "direct", "thoughts": "bank.jsonl"}, "for kind = 'iterative' or 'first_step', not 'direct': leave"),
        ({"kind": "pointwise", "thoughts": "bank.jsonl"}, "not 'pointwise': leave them out"),
        ({"thoughts_shown": 2}, "give thoughts too"),
        ({"thoughts_shown": 0}, "thoughts_shown: "),
        ({"kind": "direct", "constrained": True}, "constrained answers name one candidate, and kind = 'direct' names"),
        ({"constrained": True, "exclude_per_turn": 0.5}, "a constrained answer names one candidate"),
        ({"kind": "first_step", "exclude_per_turn": 2}, "for kind = 'iterative', not 'first_step'"),
    ],
)
def test_schedules_that_do_not_go_together(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_section(RankerConfig, settings, "row")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_of_a_data_set_that_is_used() -> None:
    with pytest.raises(ConfigError, match=r"\[data\.options\] names 'passage-5', which is not among data\.names"):
        load_config(None, ["data.options.passage-5.limit=3"])


# From settings to a ranker


def test_the_ranker_is_built_from_its_settings(tmp_path: Path) -> None:
    ranker = RankerConfig(thinking=False, answer_form="id", layout="append", quote_words=3).build(135_000_000)
    assert isinstance(ranker, IRanker)
    assert (ranker.thinking, ranker.answer_form, ranker.layout, ranker.quote_words) == (False, "id", "append", 3)
    assert ranker.parameters == 135_000_000
    assert isinstance(RankerConfig(kind="direct").build(None), DRanker)
    assert isinstance(RankerConfig(kind="first_step").build(None), FirstStep)
    wording = tmp_path / "wording.toml"
    wording.write_text('[system]\nthinking = "Think hard."\n')
    templates = RankerConfig(templates=str(wording)).build(None).templates
    assert templates.text("system", "thinking") == "Think hard."
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        RankerConfig(templates=str(tmp_path / "none.toml")).build(None)


@pytest.mark.parametrize("kind", ["iterative", "first_step"])
def test_the_ranker_gets_its_thoughts(kind: str, tmp_path: Path) -> None:
    thought = Thought("e", "passage", "a query", "a thought", "x", 1.0, "m")
    ThoughtBank((thought,)).save(tmp_path / "bank.jsonl")
    config = RankerConfig.model_validate({"kind": kind, "thoughts": str(tmp_path / "bank.jsonl"), "thoughts_shown": 2})
    ranker = config.build(None)
    assert isinstance(ranker, IRanker | FirstStep)
    assert (ranker.thoughts and ranker.thoughts.thoughts, ranker.thoughts_shown) == ((thought,), 2)
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        RankerConfig(thoughts=str(tmp_path / "none.jsonl")).build(None)


# The recipes that ship


def test_recipes_ship_with_the_package() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_shipped_recipe_loads(path: Path) -> None:
    config = load_config(path)
    assert config != RunConfig()
    assert config.ranker.build(135_000_000).thinking == config.ranker.thinking
    assert parse_config(json.loads(dump_config(config)), "again") == config

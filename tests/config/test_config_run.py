from __future__ import annotations

from typing import Any

import pytest

from r1ranker.config import RankerConfig, RewardConfig, RunConfig, TrainConfig, load_config, parse_config
from r1ranker.errors import ConfigError

NO_THINKING = ("train.algorithm=all_actions", "ranker.thinking=false")


@pytest.mark.parametrize("algorithm", ["all_actions", "listwise"])
def test_what_is_scored_needs_a_choice_among_candidates(algorithm: str) -> None:
    scored = (f"train.algorithm={algorithm}", "ranker.thinking=false")
    assert load_config(None, scored).train.algorithm == algorithm
    with pytest.raises(ConfigError, match=rf"'{algorithm}'.* needs ranker\.thinking = false"):
        load_config(None, [*scored, "ranker.thinking=true"])
    with pytest.raises(ConfigError, match=rf"'{algorithm}'.* 'direct' it needs ranker\.constrained = true"):
        load_config(None, [*scored, "ranker.kind=direct"])


def test_a_constrained_list_has_several_states() -> None:
    several = ("ranker.kind=direct", "train.states_per_example=2", "train.states_per_step=4")
    held = (*NO_THINKING, *several, "ranker.constrained=true")
    assert load_config(None, held).train.states_per_example == 2
    with pytest.raises(ConfigError, match=r"a list that is written freely has one state"):
        load_config(None, several)


def test_grpo_needs_a_group() -> None:
    assert load_config(None, ["train.algorithm=grpo", "train.group_size=2"]).train.group_size == 2
    for more in ([], ["train.group_size=1"]):
        with pytest.raises(ConfigError, match=r"set train\.group_size >= 2"):
            load_config(None, ["train.algorithm=grpo", *more])


OTHERS = {
    "group_size": 3,
    "epochs": 2,
    "clip_epsilon": 0.1,
    "clip_epsilon_high": 0.3,
    "loss_aggregation": "reply_mean",
    "ratio": "reply",
    "drop_cut_off": True,
    "log_completions": 5,
    "scale_rewards": True,
    "entropy_coef": 0.01,
    "critic": "head",
    "critic_learning_rate": 1e-3,
    "value_clip": 0.1,
    "gamma": 0.9,
    "gae_lambda": 0.9,
}
"""Another value than the default of each setting that not every algorithm reads."""
MINIMAL: dict[str, dict[str, Any]] = {
    "all_actions": {"ranker": {"thinking": False}, "train": {"algorithm": "all_actions"}},
    "listwise": {"ranker": {"thinking": False}, "train": {"algorithm": "listwise"}},
    "grpo": {"train": {"algorithm": "grpo", "group_size": 2}},
    "ppo": {"train": {"algorithm": "ppo"}},
}
UNREAD = [
    ("all_actions", "group_size clip_epsilon epochs log_completions critic critic_learning_rate value_clip"),
    ("all_actions", "gamma gae_lambda clip_epsilon_high loss_aggregation ratio drop_cut_off"),
    ("listwise", "group_size clip_epsilon epochs log_completions critic critic_learning_rate value_clip entropy_coef"),
    ("listwise", "gamma gae_lambda clip_epsilon_high loss_aggregation ratio drop_cut_off scale_rewards"),
    ("grpo", "entropy_coef critic critic_learning_rate value_clip gamma gae_lambda"),
    ("ppo", "entropy_coef scale_rewards ratio"),
]


def recipe_with(algorithm: str, key: str, value: Any) -> RunConfig:
    raw = MINIMAL[algorithm]
    return parse_config({**raw, "train": {**raw["train"], key: value}}, "test")


def test_a_setting_that_the_algorithm_does_not_read_is_refused() -> None:
    unread = {(algorithm, key) for algorithm, keys in UNREAD for key in keys.split()}
    for algorithm in MINIMAL:
        for key, value in OTHERS.items():
            if (algorithm, key) not in unread:
                recipe_with(algorithm, key, value)
                continue
            with pytest.raises(ConfigError, match=rf"^test: train\.{key} \(.*'{algorithm}' does not read it: leave it"):
                recipe_with(algorithm, key, value)
            recipe_with(algorithm, key, TrainConfig.model_fields[key].default)


def test_what_a_refused_setting_is_for_is_said() -> None:
    with pytest.raises(
        ConfigError,
        match=r"train\.group_size \(how many replies are sampled of each state\) is for train\.algorithm = 'grpo' or "
        r"'ppo', and 'all_actions' does not read it: leave it out, or at its default, 1$",
    ):
        load_config(None, [*NO_THINKING, "train.group_size=8"])


def test_a_temperature_is_of_what_is_sampled_or_constrained() -> None:
    with pytest.raises(ConfigError, match=r"train\.temperature .* without ranker\.constrained = true"):
        load_config(None, [*NO_THINKING, "train.temperature=2"])
    for more in ((*NO_THINKING, "ranker.constrained=true"), GRPO, ()):
        assert load_config(None, [*more, "train.temperature=2"]).train.temperature == 2


@pytest.mark.parametrize(
    ("algorithm", "written", "meant"),
    [
        ("all_actions", None, None),
        ("all_actions", False, None),  # its own way, so that a run saved with the one goes on with the other
        ("all_actions", True, True),
        ("grpo", None, None),
        ("grpo", True, None),
        ("grpo", False, False),
        ("ppo", False, None),
    ],
)
def test_an_algorithms_own_way_to_scale_rewards_has_one_name(
    algorithm: str, written: bool | None, meant: bool | None
) -> None:
    config = recipe_with(algorithm, "scale_rewards", written)
    assert config.train.scale_rewards is meant
    assert parse_config(config.model_dump(mode="json"), "saved") == config


def saved_before(algorithm: str, **train: Any) -> dict[str, Any]:
    """What a run saved before log_completions came."""
    saved = parse_config(MINIMAL[algorithm], "test").model_dump(mode="json")
    del saved["train"]["log_completions"]
    saved["train"] |= {"scale_rewards": False, **train}
    return saved


@pytest.mark.parametrize("algorithm", MINIMAL)
def test_what_earlier_runs_saved_and_did_not_read_is_dropped(algorithm: str) -> None:
    """GRPO divided whatever scale_rewards said, so that false is no Dr. GRPO there."""
    now = parse_config(MINIMAL[algorithm], "test")
    unread = {key: OTHERS[key] for name, keys in UNREAD if name == algorithm for key in keys.split()}
    unread.pop("log_completions", None)
    assert parse_config(saved_before(algorithm), "saved") == now
    assert parse_config(saved_before(algorithm, **unread), "saved") == now
    if algorithm != "ppo":
        true = parse_config(saved_before(algorithm, scale_rewards=True), "saved").train.scale_rewards
        assert true is (True if algorithm == "all_actions" else None)
    assert parse_config(saved_before(algorithm, steps=7), "saved").train.steps == 7


ON_POLICY = ("train.states=on_policy",)
GRPO = ("train.algorithm=grpo", "train.group_size=4")
GIGPO = (*GRPO, *ON_POLICY, "train.credit=gigpo")
EXPECTED = (*NO_THINKING, "train.credit=trajectory")
NDCG = (*NO_THINKING, "train.credit=ndcg")
LISTWISE = ("train.algorithm=listwise", "ranker.thinking=false")


@pytest.mark.parametrize(
    "settings",
    [
        ON_POLICY,
        (*ON_POLICY, *NO_THINKING),
        (*ON_POLICY, "train.credit=trajectory", "train.turn_gamma=0.9", "train.gae_lambda=0.5"),
        (*ON_POLICY, *GRPO, "train.credit=trajectory"),
        (*GIGPO, "train.turn_gamma=0.95", "train.step_weight=0.0"),
        (*EXPECTED, *ON_POLICY),
    ],
)
def test_ways_to_give_credit_that_go_together(settings: tuple[str, ...]) -> None:
    assert load_config(None, settings).train.states == "on_policy"


@pytest.mark.parametrize("settings", [EXPECTED, NDCG, (*NDCG, "ranker.kind=direct", "ranker.constrained=true")])
def test_expected_returns_need_no_eliminations(settings: tuple[str, ...]) -> None:
    assert load_config(None, settings).train.states == "subsets"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("ranker.kind=direct", *ON_POLICY), r"train\.states = 'on_policy' is of eliminations.*'subsets'"),
        (("ranker.kind=direct", "train.states=whole"), r"train\.states = 'whole' is of eliminations.*'subsets'"),
        (("train.states=whole", "train.states_per_example=2"), r"with 'whole' an example has one state"),
        (("train.states=whole", "train.credit=trajectory"), r"whole eliminations: set train\.states = 'on_policy'"),
        ((*LISTWISE, "train.credit=trajectory"), r"'listwise' learns from none: leave it out, or set"),
        (("train.turn_gamma=0.9",), r"train\.turn_gamma discounts.* set train\.credit = 'trajectory'"),
        (("train.step_weight=0.5",), r"train\.step_weight is for train\.credit = 'gigpo'"),
        ((*GIGPO, "train.credit=trajectory", "train.step_weight=0.5"), r"train\.step_weight is for"),
        ((*NO_THINKING, *ON_POLICY, "train.credit=gigpo"), r"is for sampled replies.* 'turn', 'trajectory'"),
        ((*ON_POLICY, *GRPO, "train.credit=ndcg"), r"'ndcg' is exact, .* 'grpo' samples: .* 'trajectory'"),
        ((*LISTWISE, "train.credit=ndcg"), r"'listwise' learns from none: leave it out, or set"),
        ((*NDCG, "train.scale_rewards=true"), r"'ndcg' a list's return is a share already"),
        ((*EXPECTED, "train.scale_rewards=true"), r"train\.scale_rewards divides the rewards of a turn"),
        ((*EXPECTED, "train.turn_gamma=0.9"), r"train\.turn_gamma discounts turns that are gone through"),
        ((*EXPECTED, "ranker.kind=direct", "ranker.constrained=true"), r"'trajectory' is of elim.* 'turn' or 'ndcg'"),
        ((*GRPO, "train.credit=gigpo"), r"whole eliminations: set train\.states = 'on_policy'"),
        ((*ON_POLICY, "train.credit=gigpo"), r"needs no critic: set train\.algorithm = 'grpo'"),
        ((*ON_POLICY, "train.credit=trajectory", "train.gamma=0.9"), r"set train\.gamma = 1, and train\.turn_gamma"),
    ],
)
def test_ways_to_give_credit_that_do_not(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("reward.coverage=0",), r"reward\.coverage is never earned with ranker\.kind = 'iterative'"),
        ((*NO_THINKING, "reward.format=0"), r"reward\.format is never earned.*'all_actions' \(only answer\)"),
        ((*NO_THINKING, "reward.answer=0"), r"every weight of \[reward\] 0: give one of answer"),
        (("reward.answer=0", "reward.format=0", "reward.tags=0"), r"give one of answer, format, tags"),
        (("reward.tags=-1",), r"reward\.tags"),
        ((*LISTWISE, "reward.answer=2"), r"\[reward\] is not read by train\.algorithm = 'listwise'"),
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


@pytest.mark.parametrize("algorithm", ["all_actions", "listwise"])
def test_constrained_answers_are_trained_where_labels_are_scored(algorithm: str) -> None:
    without = ["ranker.thinking=false", "ranker.constrained=true"]
    config = load_config(None, [*without, f"train.algorithm={algorithm}"])
    assert config.ranker.build(None).constrained  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"constrained = true is trained by .*'all_actions' or 'listwise', not 'ppo'"):
        load_config(None, without)


def test_validation_is_off_and_by_the_first_step_only_where_there_is_one() -> None:
    assert load_config(None, ()).validation is None
    settings = load_config(None, (*NO_THINKING, "validation.first_step=true")).validation
    assert settings is not None
    assert (settings.lists, settings.every, settings.measure, settings.keep_best) == (32, 20, "MRR", True)
    for other in ((), ("ranker.kind=direct", "ranker.thinking=false")):
        with pytest.raises(ConfigError, match=r"validation\.first_step = true ranks by .*: leave it out"):
            load_config(None, (*other, "validation.first_step=true"))

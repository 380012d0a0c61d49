from __future__ import annotations

import pytest

from r1ranker.config import RankerConfig, RewardConfig, load_config
from r1ranker.errors import ConfigError

NO_THINKING = ("train.algorithm=all_actions", "ranker.thinking=false")


def test_all_actions_needs_a_choice_among_candidates() -> None:
    assert load_config(None, NO_THINKING).train.algorithm == "all_actions"
    with pytest.raises(ConfigError, match=r"'all_actions'.* needs ranker\.thinking = false"):
        load_config(None, [*NO_THINKING, "ranker.thinking=true"])
    with pytest.raises(ConfigError, match=r"'all_actions'.* 'direct' it needs ranker\.constrained = true"):
        load_config(None, [*NO_THINKING, "ranker.kind=direct"])


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


ON_POLICY = ("train.states=on_policy",)
GRPO = ("train.algorithm=grpo", "train.group_size=4")
GIGPO = (*GRPO, *ON_POLICY, "train.credit=gigpo")
EXPECTED = (*NO_THINKING, "train.credit=trajectory")


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


def test_expected_returns_need_no_eliminations() -> None:
    assert load_config(None, EXPECTED).train.states == "subsets"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("ranker.kind=direct", *ON_POLICY), r"train\.states = 'on_policy' is of eliminations.*'subsets'"),
        (("train.turn_gamma=0.9",), r"train\.turn_gamma discounts.* set train\.credit = 'trajectory'"),
        (("train.step_weight=0.5",), r"train\.step_weight is for train\.credit = 'gigpo'"),
        ((*GIGPO, "train.credit=trajectory", "train.step_weight=0.5"), r"train\.step_weight is for"),
        ((*NO_THINKING, *ON_POLICY, "train.credit=gigpo"), r"is for sampled replies.* 'turn' or 'trajectory'"),
        ((*EXPECTED, "train.scale_rewards=true"), r"train\.scale_rewards divides the rewards of a turn"),
        ((*EXPECTED, "train.turn_gamma=0.9"), r"train\.turn_gamma discounts turns that are gone through"),
        ((*EXPECTED, "ranker.kind=direct", "ranker.constrained=true"), r"'trajectory' is of eliminations.* 'turn'"),
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


def test_constrained_answers_are_trained_by_all_actions_alone() -> None:
    without = ["ranker.thinking=false", "ranker.constrained=true"]
    config = load_config(None, [*without, "train.algorithm=all_actions"])
    assert config.ranker.build(None).constrained  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"ranker.constrained = true is trained by .*'all_actions', not 'ppo'"):
        load_config(None, without)

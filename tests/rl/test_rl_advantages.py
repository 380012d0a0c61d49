from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from r1ranker.rl.advantages import (
    all_alike,
    discounted_returns,
    explained_variance,
    gae,
    gigpo_advantages,
    grpo_advantages,
    reward_at_end,
    trajectory_advantages,
    whiten,
)


def test_grpo_by_hand() -> None:
    # Mean 2, variance (1 + 1 + 0) / 3 = 2/3, sd 0.816497: (1 / 0.816497) = 1.224745.
    got = grpo_advantages(tensor([3.0, 1.0, 2.0]))
    assert got.tolist() == pytest.approx([1.224745, -1.224745, 0.0], abs=1e-5)
    # Mean 0.5, sd 0.5.
    assert grpo_advantages(tensor([1.0, 0.0, 0.0, 1.0])).tolist() == pytest.approx([1, -1, -1, 1], abs=1e-5)


def test_grpo_without_scale_is_the_distance_from_the_mean() -> None:
    # Mean (3 + 1 + 5) / 3 = 3.
    assert grpo_advantages(tensor([3.0, 1.0, 5.0]), scale=False).tolist() == [0.0, -2.0, 2.0]


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("reward", [-1.0, 0.1, 0.6309297, -2.3])
def test_equal_rewards_teach_nothing(scale: bool, reward: float) -> None:
    # Not every mean of equal numbers is that number in single precision, and a difference of 2e-7 over EPSILON is 0.2.
    for size in range(1, 40):
        assert float(grpo_advantages(torch.full((size,), reward), scale=scale).abs().max()) < 1e-6, size


def test_returns_by_hand() -> None:
    rewards = tensor([1.0, 0.0, -2.0, 4.0])
    # 4; -2 + 2 = 0; 0 + 0 = 0; 1 + 0 = 1.
    assert discounted_returns(rewards, 0.5).tolist() == [1.0, 0.0, 0.0, 4.0]
    assert discounted_returns(rewards, 1.0).tolist() == [3.0, 2.0, 2.0, 4.0]
    assert discounted_returns(rewards, 0.0).tolist() == rewards.tolist() == [1.0, 0.0, -2.0, 4.0]
    assert discounted_returns(tensor([0.7]), 0.5).tolist() == pytest.approx([0.7])


def test_trajectory_advantages_by_hand() -> None:
    rewards = [tensor([1.0, 1.0, 0.0]), tensor([1.0, 0.0]), tensor([0.0])]
    # gamma 1, returns 2 1 0, 1 0, 0. Turn 1: mean 1, sd sqrt(2/3) = 0.816497. Turn 2: 1 and 0. Turn 3: one alone.
    got = [own.tolist() for own in trajectory_advantages(rewards, 1.0)]
    assert got == [pytest.approx(own, abs=1e-4) for own in ([1.224745, 1, 0], [0, -1], [-1.224745])]
    # gamma 0: the rewards themselves. Turn 1: 1, 1, 0: mean 2/3, sd sqrt(2)/3 = 0.471405.
    got = [own.tolist() for own in trajectory_advantages(rewards, 0.0)]
    assert got == [pytest.approx(own, abs=1e-4) for own in ([0.707107, 1, 0], [0.707107, -1], [-1.414214])]


def test_gigpo_advantages_by_hand() -> None:
    rewards = [tensor([1.0, 1.0, 1.0]), tensor([1.0, 1.0, 0.0]), tensor([0.0])]
    anchors = [["abcd", "abc", "ab"], ["abcd", "abd", "ab"], ["abcd"]]
    # Totals 3, 2, 0: mean 5/3, sd sqrt((16 + 1 + 25) / 27) = 1.247219: 1.069045, 0.267261, -1.336306.
    # Returns at gamma 0.5: 1.75 1.5 1, 1.5 1 0, 0.
    # "abcd": 1.75, 1.5, 0: mean 13/12, sd sqrt((64 + 25 + 169) / 432) = 0.772802: 0.862662, 0.539164, -1.401826.
    # "abc", "abd": met once. "ab": 1 and 0.
    a, b, c = 1.069045, 0.267261, -1.336306
    expected = [[a + 2 * 0.862662, a, a + 2], [b + 2 * 0.539164, b, b - 2], [c - 2 * 1.401826]]
    got = [own.tolist() for own in gigpo_advantages(rewards, anchors, 0.5, 2.0)]
    assert got == [pytest.approx(own, abs=1e-4) for own in expected]
    # Without the steps every turn has its elimination's advantage.
    got = [own.tolist() for own in gigpo_advantages(rewards, anchors, 0.5, 0.0)]
    assert got == [pytest.approx(own, abs=1e-4) for own in ([a, a, a], [b, b, b], [c])]


def test_eliminations_that_went_alike_teach_nothing() -> None:
    rewards = [tensor([0.6309297, 0.1, 0.3])] * 3
    for got in (trajectory_advantages(rewards, 0.9), gigpo_advantages(rewards, [["x", "y", "z"]] * 3, 0.9, 1.0)):
        assert all(float(own.abs().max()) < 1e-6 for own in got)


def test_gae_by_hand() -> None:
    # gamma 0.9, lambda 0.8, their product 0.72; nothing follows the last token.
    # delta2 = 1 - 0.2              =  0.8     A2 =  0.8
    # delta1 = 0 + 0.9 * 0.2 - 0.4  = -0.22    A1 = -0.22 + 0.72 * 0.8   = 0.356
    # delta0 = 0 + 0.9 * 0.4 - 0.5  = -0.14    A0 = -0.14 + 0.72 * 0.356 = 0.11632
    advantages, returns = gae(tensor([0.0, 0.0, 1.0]), tensor([0.5, 0.4, 0.2]), 0.9, 0.8)
    assert advantages.tolist() == pytest.approx([0.11632, 0.356, 0.8], abs=1e-6)
    # returns = A + V.
    assert returns.tolist() == pytest.approx([0.61632, 0.756, 1.0], abs=1e-6)


def test_gae_with_lambda_0_is_the_one_step_error() -> None:
    advantages, _ = gae(tensor([0.3, 0.0, 1.0]), tensor([0.5, 0.4, 0.2]), 0.9, 0.0)
    # 0.3 + 0.36 - 0.5, 0.18 - 0.4, 1 - 0.2
    assert advantages.tolist() == pytest.approx([0.16, -0.22, 0.8], abs=1e-6)


def test_gae_with_gamma_and_lambda_1_returns_the_reward_at_every_token() -> None:
    values = tensor([0.5, -0.4, 0.2, 3.0])
    advantages, returns = gae(reward_at_end(-0.75, 4), values, 1.0, 1.0)
    assert returns.tolist() == pytest.approx([-0.75] * 4, abs=1e-6)
    assert advantages.tolist() == pytest.approx([-1.25, -0.35, -0.95, -3.75], abs=1e-6)


def test_gae_of_one_token() -> None:
    advantages, returns = gae(tensor([2.0]), tensor([0.5]), 0.9, 0.8)
    assert (advantages.tolist(), returns.tolist()) == ([1.5], [2.0])


def test_gae_leaves_its_input_alone() -> None:
    rewards, values = tensor([0.0, 1.0]), tensor([0.5, 0.4])
    gae(rewards, values, 0.9, 0.8)
    assert (rewards.tolist(), values.tolist()) == ([0.0, 1.0], pytest.approx([0.5, 0.4]))


def test_the_reward_stands_on_the_last_token() -> None:
    assert reward_at_end(0.25, 4).tolist() == [0.0, 0.0, 0.0, 0.25]
    assert reward_at_end(-1.0, 1).tolist() == [-1.0]


def test_whiten_goes_over_all_tokens_of_the_batch() -> None:
    # Mean 2, sd sqrt(2/3): -1.224745, 0, 1.224745. By completion the last one alone would be 0.
    got = whiten([tensor([1.0, 2.0]), tensor([3.0])])
    assert [g.tolist() for g in got] == [pytest.approx([-1.224745, 0.0], abs=1e-5), pytest.approx([1.224745], abs=1e-5)]
    flat = torch.cat(whiten([torch.arange(5.0), torch.arange(7.0) * 3]))
    assert (float(flat.mean()), float(flat.std(correction=0))) == pytest.approx((0.0, 1.0), abs=1e-5)


@pytest.mark.parametrize("value", [2.0, 0.1, 0.6309297, -2.3])
def test_whiten_of_equal_advantages_is_zero(value: float) -> None:
    for size in (1, 7, 100, 5000):
        parts = whiten([torch.full((size,), value), torch.full((3,), value)])
        assert [p.shape[0] for p in parts] == [size, 3]
        assert float(torch.cat(parts).abs().max()) < 1e-6


def test_explained_variance_by_hand() -> None:
    returns = tensor([1.0, 2.0, 3.0, 4.0])
    # Var(returns) = 1.25. Errors 0, 0, 0, 2: mean square 1, squared mean 0.25, variance 0.75. 1 - 0.75 / 1.25 = 0.4.
    assert explained_variance(tensor([1.0, 2.0, 3.0, 2.0]), returns) == pytest.approx(0.4)
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(tensor([7.0] * 4), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)  # 1 - Var(2 r) / Var(r) = 1 - 4
    assert explained_variance(tensor([1.0, 2.0]), tensor([3.0, 3.0])) == 0.0
    assert not math.isnan(explained_variance(tensor([1.0]), tensor([1.0])))


@pytest.mark.parametrize(
    ("rewards", "alike"),
    [
        ([1.0, 1.0, 1.0], True),
        ([0.3, 0.1 + 0.2], True),
        ([-2.75], True),
        ([1.0, 0.999], False),
        ([0.0, 0.0, 1.0], False),
    ],
)
def test_rewards_are_alike_up_to_rounding(rewards: list[float], alike: bool) -> None:
    assert all_alike(rewards) is alike

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor, tensor

from r1ranker.config.train import Aggregation
from r1ranker.rl.losses import (
    all_actions_loss,
    categorical_kl,
    elimination_loss,
    entropy,
    listwise_loss,
    ppo_loss,
    reference_kl,
    token_weights,
    value_loss,
)

LN2 = math.log(2.0)


def logs(*values: float) -> Tensor:
    return tensor([math.log(v) for v in values], dtype=torch.float64)


def test_all_actions_by_hand() -> None:
    # p = 1/8, 2/8, 5/8; E[r] = 0.125 * 1 + 0.25 * 0 + 0.625 * 0.5 = 0.4375.
    logits, rewards = logs(1, 2, 5).requires_grad_(), tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    loss = all_actions_loss(logits, rewards)
    assert float(loss.detach()) == pytest.approx(-0.4375)
    loss.backward()
    # The gradient of the loss is -p (r - E[r]): -0.125 * 0.5625, -0.25 * -0.4375, -0.625 * 0.0625.
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([-0.0703125, 0.109375, -0.0390625])


def test_the_gradient_of_all_actions_is_p_times_the_advantage() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, generator=generator, dtype=torch.float64).requires_grad_()
    rewards = torch.rand(9, generator=generator, dtype=torch.float64)
    all_actions_loss(logits, rewards).backward()
    p = logits.detach().softmax(0)
    expected = -p * (rewards - (p * rewards).sum())
    assert float(expected.norm()) > 0.01
    torch.testing.assert_close(logits.grad, expected)


def test_equal_rewards_have_no_gradient() -> None:
    logits = logs(1, 2, 5).requires_grad_()
    all_actions_loss(logits, torch.ones(3, dtype=torch.float64)).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-12


def test_elimination_by_hand() -> None:
    # Rewards 1, 0, 1/2. First before second, 1/3, earns 1; first before third, 1/6, and third before second, 5/7, earn
    # 1/2 each: 1/3 + 1/12 + 5/14 = 65/84 of at most 2.
    logits, rewards = logs(1, 2, 5).requires_grad_(), tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    loss = elimination_loss(logits, rewards)
    assert float(loss.detach()) == pytest.approx(-65 / 168)
    loss.backward()
    # sigmoid' = p (1 - p): 2/9, 5/36 and 10/49. The first one's logit counts in two pairs, for it in both.
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([-(2 / 9 + 5 / 72) / 2, (2 / 9 + 5 / 49) / 2, (5 / 72 - 5 / 49) / 2])


@pytest.mark.parametrize("positive", [0, 3])
def test_the_return_is_that_of_every_elimination_by_its_probability(positive: int) -> None:
    """Of all 24 orders of four candidates: the negatives that go before the positive, of three."""
    weights = (1.0, 2.0, 5.0, 0.5)
    expected = total = 0.0
    for order in permutations(range(4)):
        probability, left = 1.0, sum(weights)
        for k in order:
            probability, left = probability * weights[k] / left, left - weights[k]
        total += probability
        expected += probability * order.index(positive) / 3
    assert total == pytest.approx(1.0)
    rewards = torch.tensor([float(k != positive) for k in range(4)], dtype=torch.float64)
    assert -float(elimination_loss(logs(*weights), rewards)) == pytest.approx(expected)
    assert -float(elimination_loss(logs(1, 1, 1, 1), rewards)) == pytest.approx(0.5)


@pytest.mark.parametrize(("learn", "alike"), [(elimination_loss, 1.0), (listwise_loss, 0.0)])
def test_a_list_without_a_better_candidate_loses_nothing_and_has_no_gradient(
    learn: Callable[[Tensor, Tensor], Tensor], alike: float
) -> None:
    logits = logs(1, 2, 5).requires_grad_()
    loss = learn(logits, torch.full((3,), alike, dtype=torch.float64))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0.0


def test_a_long_list_still_teaches_where_one_exclusion_hardly_does() -> None:
    """Twenty candidates that are as likely as each other: the positive's logit has 0.0475 of gradient, or 0.25."""
    rewards = torch.ones(20, dtype=torch.float64)
    rewards[7] = 0.0
    found = []
    for loss in (all_actions_loss, elimination_loss):
        logits = torch.zeros(20, dtype=torch.float64, requires_grad=True)
        loss(logits, rewards).backward()
        assert logits.grad is not None
        found.append(float(logits.grad[7]))
    assert found == pytest.approx([0.05 * 0.95, 0.25])


def test_listwise_by_hand() -> None:
    # p = 1/8, 2/8, 5/8; shares of the gains 0, 1/4, 3/4.
    logits, gains = logs(1, 2, 5).requires_grad_(), tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    loss = listwise_loss(logits, gains)
    assert float(loss.detach()) == pytest.approx(math.log(4) / 4 + 3 * math.log(8 / 5) / 4)
    loss.backward()
    # The gradient of a cross-entropy is p less the shares: the one that gains too little is as it should be.
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([1 / 8, 0.0, -1 / 8])


def test_categorical_kl_by_hand() -> None:
    # P = 1/4, 1/4, 1/2; Q = 1/2, 1/4, 1/4: 1/4 ln(1/2) + 0 + 1/2 ln 2 = ln 2 / 4.
    assert float(categorical_kl(logs(1, 1, 2), logs(2, 1, 1))) == pytest.approx(LN2 / 4)
    # The other way round it is another sum: 1/2 ln 2 + 0 + 1/4 ln(1/2), here the same; so take an uneven pair.
    # P = 1/2, 1/2; Q = 1/4, 3/4: 1/2 ln 2 + 1/2 ln(2/3) = 0.143841; and Q || P: 1/4 ln(1/2) + 3/4 ln(3/2) = 0.130812.
    assert float(categorical_kl(logs(1, 1), logs(1, 3))) == pytest.approx(0.143841, abs=1e-6)
    assert float(categorical_kl(logs(1, 3), logs(1, 1))) == pytest.approx(0.130812, abs=1e-6)
    assert float(categorical_kl(logs(3, 1), logs(6, 2))) == pytest.approx(0.0, abs=1e-12)


def test_entropy_by_hand() -> None:
    # 2 * 1/4 * ln 4 + 1/2 * ln 2 = 1.5 ln 2.
    assert float(entropy(logs(1, 1, 2))) == pytest.approx(1.5 * LN2)
    assert float(entropy(logs(1, 1, 1, 1, 1))) == pytest.approx(math.log(5))
    assert float(entropy(tensor([100.0, 0.0]))) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        # eps 0.2. The loss is -min(A r, A clip(r)); d(A r)/d(log-prob) = A r.
        (1.5, 2.0, -2.4, 0.0),  # min(3.0, 2 * 1.2): clipped, no gradient
        (1.5, -2.0, 3.0, 3.0),  # min(-3.0, -2.4): not clipped, pushed back
        (0.5, 2.0, -1.0, -1.0),  # min(1.0, 2 * 0.8): not clipped, pushed back
        (0.5, -2.0, 1.6, 0.0),  # min(-1.0, -2 * 0.8): clipped, no gradient
        (1.1, 2.0, -2.2, -2.2),  # inside
        (0.9, -2.0, 1.8, 1.8),  # inside
        (1.0, 2.0, -2.0, -2.0),  # the first pass of every step: the plain policy gradient
        (1.0, -3.0, 3.0, 3.0),
    ],
)
def test_ppo_clips_where_it_must(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    old = tensor([-1.25], dtype=torch.float64)
    logprobs = (old + math.log(ratio)).requires_grad_()
    result = ppo_loss(logprobs, old, tensor([advantage], dtype=torch.float64), 0.2)
    assert result.per_token.detach().tolist() == pytest.approx([loss])
    result.per_token.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([gradient], abs=1e-12)


def test_ppo_says_how_far_the_policy_has_moved() -> None:
    # Ratios 2, 1/2, 1.1, 1: two of four are out of 1 +- 0.2.
    # k3: (2 - 1 - ln 2) + (0.5 - 1 + ln 2) + (0.1 - ln 1.1) + 0 = 0.5 + 0.1 - 0.0953102 = 0.5046898; a quarter of it.
    result = ppo_loss(logs(2, 0.5, 1.1, 1), logs(1, 1, 1, 1), torch.ones(4, dtype=torch.float64), 0.2)
    assert float(result.clipfrac) == 0.5
    assert float(result.approx_kl) == pytest.approx(0.1261725, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.25, 2.0, -2.5, -2.5),  # above 1.2, below 1.3: not clipped any more
        (1.5, 2.0, -2.6, 0.0),  # min(3.0, 2 * 1.3)
        (0.75, -2.0, 1.6, 0.0),  # downwards as before: min(-1.5, -2 * 0.8)
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_ppo_may_clip_higher_above_than_below(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    old = tensor([-1.25], dtype=torch.float64)
    logprobs = (old + math.log(ratio)).requires_grad_()
    result = ppo_loss(logprobs, old, tensor([advantage], dtype=torch.float64), 0.2, 0.3)
    assert result.per_token.detach().tolist() == pytest.approx([loss])
    result.per_token.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([gradient], abs=1e-12)
    assert float(result.clipfrac) == float(ratio not in (1.25,))


def test_a_reply_may_have_one_ratio() -> None:
    # Ratios 2 and 1/2 of one reply: their geometric mean is 1. Of the other, 1.2, 1.2 and 0.9: 1.09027.
    logprobs, old = logs(2, 0.5, 1.2, 1.2, 0.9).requires_grad_(), logs(1, 1, 1, 1, 1)
    advantages = tensor([3.0, 3.0, -2.0, -2.0, -2.0], dtype=torch.float64)
    result = ppo_loss(logprobs, old, advantages, 0.05, lengths=[2, 3])
    mean = (1.2 * 1.2 * 0.9) ** (1 / 3)
    assert mean == pytest.approx(1.09027, abs=1e-5)
    assert result.per_token.detach().tolist() == pytest.approx([-3, -3, 2 * mean, 2 * mean, 2 * mean])
    assert float(result.clipfrac) == pytest.approx(3 / 5)
    # Each token moves its reply's ratio by its share: d(-A s)/d(log-prob) = -A s / length, of each of the tokens.
    result.per_token.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-3, -3, 2 * mean, 2 * mean, 2 * mean])


@pytest.mark.parametrize(
    ("aggregation", "kept", "weights", "denominator"),
    [
        ("token_mean", [True, True, True], [1, 1, 1, 1, 1, 1], 6),
        ("token_mean", [True, False, True], [1, 0, 0, 1, 1, 1], 4),
        ("reply_mean", [True, True, True], [1, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3], 3),
        ("reply_mean", [False, True, True], [0, 1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3], 2),
        ("reply_sum", [True, True, True], [1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4], 3),
        ("reply_sum", [False, False, False], [0, 0, 0, 0, 0, 0], 0),
    ],
)
def test_how_a_loss_is_aggregated(
    aggregation: Aggregation, kept: list[bool], weights: list[float], denominator: float
) -> None:
    assert token_weights([1, 2, 3], kept, aggregation, 4) == (pytest.approx(weights), denominator)


def test_a_reply_without_tokens_weighs_nothing() -> None:
    assert token_weights([0, 2], [True, True], "reply_mean", 4) == ([0.5, 0.5], 2)
    assert token_weights([0, 2], [True, True], "token_mean", 4) == ([1, 1], 2)


def test_reference_kl_by_hand() -> None:
    # k3 with d = ref - policy: e^d - 1 - d. d = ln 2: 1 - 0.693147; d = -ln 2: -0.5 + 0.693147; d = 0: 0.
    got = reference_kl(logs(1, 2, 3), logs(2, 1, 3))
    assert got.tolist() == pytest.approx([0.306853, 0.193147, 0.0], abs=1e-6)


def test_reference_kl_is_unbiased() -> None:
    # Weighted by the policy's own probabilities its mean is the exact KL(policy || reference).
    policy, reference = logs(1, 2, 5).log_softmax(0), logs(4, 2, 1).log_softmax(0)
    mean = (policy.exp() * reference_kl(policy, reference)).sum()
    exact = categorical_kl(policy, reference)
    assert float(exact) > 0.1
    assert float(mean) == pytest.approx(float(exact))


def test_value_loss_by_hand() -> None:
    # old value 1, clip 0.5.
    # value 2.0, return 3: clipped to 1.5, max(1, 2.25) / 2 = 1.125
    # value 2.0, return 0: clipped to 1.5, max(4, 2.25) / 2 = 2
    # value 1.2, return 2: inside, 0.64 / 2 = 0.32
    # value 0.2, return 1: clipped to 0.5, max(0.64, 0.25) / 2 = 0.32
    values = tensor([2.0, 2.0, 1.2, 0.2], requires_grad=True)
    loss = value_loss(values, torch.ones(4), tensor([3.0, 0.0, 2.0, 1.0]), 0.5)
    assert loss.detach().tolist() == pytest.approx([1.125, 2.0, 0.32, 0.32])
    loss.sum().backward()
    # Gradients value - return, but 0 where the clipped error is the larger one.
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.0, 2.0, -0.8, -0.8])

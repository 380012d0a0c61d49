"""Credit assignment: rewards -> advantages. Pure functions of tensors, apart from any loss.

Shapes: G completions of one state, T tokens of one completion.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-6


def grpo_advantages(rewards: Tensor, *, scale: bool = True) -> Tensor:
    """Group-relative advantages (Shao et al., 2024, arXiv 2402.03300, eq. in section 4.1.2).

    rewards: (G,), of completions of the *same* state; never mix states, their means differ.
    scale: divide by the group's standard deviation; without it the paper of Dr. GRPO's variant.
    Returns (G,): one advantage a completion, for each of its tokens.
    """
    exact = rewards.double()  # in single precision equal rewards can miss their mean by a quarter of EPSILON
    centred = exact - exact.mean()
    return (centred / (exact.std(correction=0) + EPSILON) if scale else centred).to(rewards.dtype)


def gae(rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Token-level generalised advantage estimation (Schulman et al., 2016, arXiv 1506.02438, eq. 16).

    rewards, values: (T,), one a token; the completion ends after the last one, so nothing follows it.
    Returns (advantages, returns), both (T,), returns = advantages + values.
    """
    advantages = torch.zeros_like(rewards)
    running = rewards.new_zeros(())
    following = rewards.new_zeros(())
    for t in range(rewards.shape[0] - 1, -1, -1):
        delta = rewards[t] + gamma * following - values[t]
        running = delta + gamma * gae_lambda * running
        advantages[t] = running
        following = values[t]
    return advantages, advantages + values


def reward_at_end(reward: float, length: int) -> Tensor:
    """A completion's reward as token rewards: all of it on the last token, (T,)."""
    rewards = torch.zeros(length)
    rewards[-1] = reward
    return rewards


def whiten(advantages: Sequence[Tensor]) -> list[Tensor]:
    """Mean 0 and variance 1 over all tokens of a batch, as PPO's implementations do."""
    flat = torch.cat(list(advantages)).double()
    mean, std = flat.mean(), flat.std(correction=0)
    return [((a.double() - mean) / (std + EPSILON)).to(a.dtype) for a in advantages]


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one."""
    variance = returns.var(correction=0)
    if float(variance) == 0.0:
        return 0.0
    return float(1 - (returns - values).var(correction=0) / variance)

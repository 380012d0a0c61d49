"""Credit assignment: rewards -> advantages. Pure functions of tensors, apart from any loss.

Shapes: G completions of one state, T tokens of one completion, K turns of one elimination.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

EPSILON = 1e-6


def grpo_advantages(rewards: Tensor, *, scale: bool = True) -> Tensor:
    """Group-relative advantages (Shao et al., 2024, arXiv 2402.03300, eq. in section 4.1.2).

    rewards: (G,), of completions of the *same* state; never mix states, their means differ.
    scale: divide by the group's standard deviation; Dr. GRPO does not (Liu et al., 2025, arXiv 2503.20783).
    Returns (G,): one advantage a completion, for each of its tokens.
    """
    exact = rewards.double()  # in single precision equal rewards can miss their mean by a quarter of EPSILON
    centred = exact - exact.mean()
    return (centred / (exact.std(correction=0) + EPSILON) if scale else centred).to(rewards.dtype)


def all_alike(rewards: Sequence[float]) -> bool:
    """Whether the rewards of a group are the same, up to rounding: nothing is learned from it."""
    return max(rewards) - min(rewards) <= EPSILON


def discounted_returns(rewards: Tensor, gamma: float) -> Tensor:
    """What each turn of an elimination and those after it earn, (K,): reward + gamma * the next turn's return."""
    returns = rewards.clone()
    for k in range(len(returns) - 2, -1, -1):
        returns[k] += gamma * returns[k + 1]
    return returns


def trajectory_advantages(rewards: Sequence[Tensor], gamma: float, *, scale: bool = True) -> list[Tensor]:
    """Each turn's return, compared with those of the same turn in other eliminations of the example.

    rewards: (K,) of each elimination; in the same turn all have equally many candidates left, not the same ones.
    scale: see `grpo_advantages`.
    Returns (K,) of each: one advantage a turn, 0 where no other elimination lasted so long.
    """
    returns = [discounted_returns(own, gamma) for own in rewards]
    return _compared(returns, [range(len(own)) for own in rewards], scale)


def gigpo_advantages(
    rewards: Sequence[Tensor],
    anchors: Sequence[Sequence[Hashable]],
    gamma: float,
    step_weight: float,
    *,
    scale: bool = True,
) -> list[Tensor]:
    """Group-in-group advantages (Feng et al., 2025, arXiv 2505.10978, section 4).

    rewards: (K,) of each elimination of one example. anchors: each turn's state; turns of like anchors are compared.
    scale: see `grpo_advantages`; the paper has both.
    Returns (K,) of each: the elimination's total compared with the others', plus `step_weight` times the turn's
    discounted return compared with those from the same state, which is 0 for a state met once.
    """
    episodes = grpo_advantages(torch.stack([own.sum() for own in rewards]), scale=scale)
    steps = _compared([discounted_returns(own, gamma) for own in rewards], anchors, scale)
    return [episode + step_weight * own for episode, own in zip(episodes, steps, strict=True)]


def _compared(values: Sequence[Tensor], keys: Sequence[Sequence[Hashable]], scale: bool) -> list[Tensor]:
    """Group-relative advantages of values (K,) of several eliminations, among those with the same key."""
    places: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for run, own in enumerate(keys):
        for turn, key in enumerate(own):
            places[key].append((run, turn))
    out = [torch.zeros_like(own) for own in values]
    for group in places.values():
        advantages = grpo_advantages(torch.stack([values[run][turn] for run, turn in group]), scale=scale)
        for (run, turn), advantage in zip(group, advantages, strict=True):
            out[run][turn] = advantage
    return out


def gae(rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., 2016, arXiv 1506.02438, eq. 16), over tokens or turns.

    rewards, values: (T,), one a token; the completion ends after the last one, so nothing follows it. Likewise (K,).
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

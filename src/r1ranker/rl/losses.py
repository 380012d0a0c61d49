"""Losses: pure functions of log-probs and advantages. Shapes: N tokens, C choices of one state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r1ranker.config.train import Aggregation


def all_actions_loss(logits: Tensor, rewards: Tensor) -> Tensor:
    """Minus the expected reward of a state, summed over all its actions (Sutton et al., 2000; the "all-actions"
    or expected policy gradient). It has no sampling noise and needs no baseline.

    logits: (C,), the policy is their softmax. rewards: (C,), of each choice.
    """
    return -(logits.softmax(0) * rewards).sum()


def elimination_loss(logits: Tensor, rewards: Tensor) -> Tensor:
    """Minus what a whole elimination by these logits is expected to return, with nothing sampled.

    If each turn drew its exclusion from the softmax over the logits of those that are left (Plackett, 1975; Luce,
    1959), i would go before j with probability sigmoid(logit_i - logit_j), whatever else is listed. That earns
    rewards_i - rewards_j more than the other way round, where this is positive. The return is the sum over such pairs
    as a share of the best elimination's, in [0, 1]: 1/2 for a uniform policy, and 0 where all rewards are alike.

    With one positive: the expected number of negatives that are excluded before it, divided by their number.

    logits, rewards: (C,), as in `all_actions_loss`.
    """
    gaps = (rewards[:, None] - rewards[None, :]).clamp(min=0.0)
    before = (logits[:, None] - logits[None, :]).sigmoid()
    return -(before * gaps).sum() / (gaps.sum() or 1.0)


def listwise_loss(logits: Tensor, gains: Tensor) -> Tensor:
    """The cross-entropy between a state's gains, as shares of their sum, and the policy: supervised, with nothing to
    earn. The top-one likelihood of ListNet (Cao et al., 2007); with one positive minus the log-probability to name it.

    logits: (C,), of naming a candidate as the best; the policy is their softmax. gains: (C,), each at least 0. The loss
    is 0 where no candidate gains anything.
    """
    return -(logits.log_softmax(0) * gains).sum() / (gains.sum() or 1.0)


def categorical_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL(policy || reference) over the choices of a state, exact, in nats."""
    logp, logq = logits.log_softmax(0), ref_logits.log_softmax(0)
    return (logp.exp() * (logp - logq)).sum()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of a state's policy over its choices, in nats."""
    logp = logits.log_softmax(0)
    return -(logp.exp() * logp).sum()


@dataclass(frozen=True, slots=True)
class PPOLoss:
    """The clipped objective's loss per token, (N,), and what is worth watching."""

    per_token: Tensor
    approx_kl: Tensor
    clipfrac: Tensor


def ppo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_epsilon: float,
    clip_epsilon_high: float | None = None,
    lengths: Sequence[int] | None = None,
) -> PPOLoss:
    """The clipped surrogate (Schulman et al., 2017, arXiv 1707.06347, eq. 7), negated. All (N,).

    GRPO uses the same with its own advantages. approx_kl is the k3 estimate of KL(old || new)
    (Schulman, 2020, "Approximating KL divergence").

    clip_epsilon_high: how far a ratio may rise; None: as far as it may fall (Yu et al., 2025, arXiv 2503.14476, section
    3.1). lengths: tokens of each reply, of which N is the sum: all tokens of a reply then have its one ratio, the
    geometric mean of theirs (Zheng et al., 2025, arXiv 2507.18071, section 4.1).
    """
    log_ratio = logprobs - old_logprobs
    own = log_ratio if lengths is None else _reply_means(log_ratio, lengths)
    ratio = own.exp()
    high = clip_epsilon if clip_epsilon_high is None else clip_epsilon_high
    clipped = ratio.clamp(1 - clip_epsilon, 1 + high)
    per_token = torch.maximum(-advantages * ratio, -advantages * clipped)
    with torch.no_grad():
        approx_kl = (log_ratio.exp() - 1 - log_ratio).mean()
        clipfrac = ((ratio < 1 - clip_epsilon) | (ratio > 1 + high)).float().mean()
    return PPOLoss(per_token, approx_kl, clipfrac)


def _reply_means(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """The mean of each reply's values, for each of its tokens. values: (N,), reply by reply."""
    means = torch.stack([part.mean() for part in torch.split(values, list(lengths))])
    return torch.repeat_interleave(means, torch.tensor(lengths, device=values.device))


def token_weights(
    lengths: Sequence[int], kept: Sequence[bool], aggregation: Aggregation, max_tokens: int
) -> tuple[list[float], float]:
    """How a loss is aggregated: weights w, (N,), and a share d of the denominator, so that it is sum(w * loss) / d.

    lengths: tokens of each reply. kept: which replies count. Of several packs weights are strung together and shares
    added up. token_mean: a mean over tokens (DAPO, arXiv 2503.14476, section 3.3). reply_mean: a mean of replies' means
    (GRPO, arXiv 2402.03300, eq. 3). reply_sum: a mean of replies' sums over `max_tokens`, a constant, by which a long
    reply's tokens weigh no less (Dr. GRPO, arXiv 2503.20783).
    """
    weights: list[float] = []
    for length, counts in zip(lengths, kept, strict=True):
        own = {"token_mean": 1.0, "reply_mean": 1 / max(length, 1), "reply_sum": 1 / max_tokens}[aggregation]
        weights += [own if counts else 0.0] * length
    counted = [length for length, counts in zip(lengths, kept, strict=True) if counts]
    return weights, float(sum(counted) if aggregation == "token_mean" else len(counted))


def reference_kl(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """KL(policy || reference) per sampled token, (N,), by the k3 estimate (Schulman, 2020): unbiased, never negative.

    Its gradient, taken as a loss as GRPO does, is in expectation that of KL(reference || policy).
    """
    log_ratio = ref_logprobs - logprobs
    return log_ratio.exp() - 1 - log_ratio


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_epsilon: float) -> Tensor:
    """The critic's clipped squared error per token, (N,), with the usual factor 1/2."""
    clipped = old_values + (values - old_values).clamp(-clip_epsilon, clip_epsilon)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)

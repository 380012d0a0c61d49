"""Where an elimination is expected to end, by the scores of its first turn: exact, with nothing sampled.

The policy is that of Plackett (1975) and Luce (1959): every turn draws its exclusion from the softmax over the logits
of those that are left. Independent clocks that ring at rates exp(logit) give the same orders, a candidate being
excluded when its clock rings. When i's rings, how many others are left is a sum of independent draws (a Poisson
binomial), and i's place is one more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

_FROM, _TO, _STEP = -24.0, 4.0, 0.5
"""The logarithms of i's time, in units of its mean, that are summed over. What is summed is smooth on a scale of 1
whatever the logits are, so that these few points are exact to 1e-6."""
_RUNG = 20.0
"""From this logarithm on a clock has rung in any precision. Beyond it gradients would multiply infinities by zeros."""


def place_probabilities(logits: Tensor, of: Tensor) -> Tensor:
    """How likely some candidates are to end at each place; the one that is left last has the first.

    logits: (C,), of excluding each. of: (K,), indices of candidates. Returns (K, C), place from 0; rows sum to 1.
    """
    log_time = torch.arange(_FROM, _TO, _STEP, dtype=logits.dtype, device=logits.device)
    rings = (log_time - log_time.exp()).exp()
    # (K, T, C): the probability that another clock has not rung by then. Its own does not count.
    log_rate = (logits - logits[of, None])[:, None, :] + log_time[:, None]
    left = (-log_rate.clamp(max=_RUNG).exp()).exp() * (1 - one_hot(of, len(logits)).to(logits))[:, None, :]
    # (K, T, C): how likely so many are left, of the clocks that were looked at.
    counts = one_hot(torch.zeros_like(of), len(logits)).to(logits)[:, None, :].expand_as(left)
    for one in left.unbind(-1):
        counts = counts.lerp(pad(counts[..., :-1], (1, 0)), one[..., None])
    return (counts * rings[:, None]).sum(1) / rings.sum()


def expected_ndcg(logits: Tensor, gains: Tensor) -> Tensor:
    """The expected nDCG of an elimination's ranking, of all its places and with linear gains (Järvelin and Kekäläinen,
    2002). A scalar in [0, 1]; 0, and without a gradient, where no candidate gains anything.

    logits: (C,), of excluding each. gains: (C,), each at least 0.
    """
    discounts = 1 / torch.arange(2, len(gains) + 2, dtype=logits.dtype, device=logits.device).log2()
    ideal = (gains.sort(descending=True).values * discounts).sum()
    of = gains.nonzero().flatten()
    return (gains[of, None] * place_probabilities(logits, of) * discounts).sum() / (ideal or 1.0)

"""Where a whole elimination or list is expected to end, by the scores of its first turn: exact, with nothing sampled.

The policy is that of Plackett (1975) and Luce (1959): every turn draws its exclusion from the softmax over the logits
of those that are left; a list draws its next line so, the best first. Independent clocks that ring at rates exp(logit)
give the same orders, a candidate being excluded, or written, when its clock rings. When i's rings, how many others are
left is a sum of independent draws (a Poisson binomial), and i's place is one more.
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
    """How likely some candidates are to end at each place of an elimination; the one that is left last has the first.

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
    ideal = (gains.sort(descending=True).values * _discounts(gains, 0)).sum()
    of = gains.nonzero().flatten()
    return (gains[of, None] * place_probabilities(logits, of) * _discounts(gains, 0)).sum() / (ideal or 1.0)


def expected_listing(logits: Tensor, gains: Tensor, written: int, cutoff: int) -> Tensor:
    """What the lines that are still to be written are expected to add to a list's nDCG at `cutoff`, a scalar.

    logits: (C,), of writing each next. gains: (C,), what each adds at the first place, at least 0. written: how many
    lines there are before.
    """
    of = gains.nonzero().flatten()
    counts = torch.arange(len(gains), device=logits.device) < cutoff - written
    # The first clock that rings has the list's first place.
    places = place_probabilities(logits, of).flip(-1)
    return (gains[of, None] * places * _discounts(gains, written) * counts).sum()


def _discounts(like: Tensor, before: int) -> Tensor:
    """1 / log2(place + 2) of as many places as there are candidates, after so many, (C,)."""
    places = torch.arange(before, before + len(like), dtype=like.dtype, device=like.device)
    return 1 / (places + 2).log2()

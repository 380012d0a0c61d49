"""The mean of several LoRA adapters (model soups, arXiv 2203.05482): one that costs what each of them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from r1ranker.llm.lora import LoraPair


class MeanPair(NamedTuple):
    """The best pair of a rank for a mean, and how much of the mean it is: squared Frobenius norms."""

    pair: LoraPair
    lost: float
    whole: float


@torch.no_grad()
def mean_pair(pairs: Sequence[tuple[float, LoraPair]], rank: int, scale: float) -> MeanPair:
    """The mean of what pairs add to a weight, as the `scale * B @ A` of this rank that is nearest to it.

    By the singular values (Eckart and Young, 1936). pairs: each with its own scale; A is (its rank, in), B (out, its
    rank). The mean of the factors would be another matrix than the mean of their products. What comes out has A and B
    of equal norms, in float32.
    """
    a = torch.cat([pair.a.double() for _, pair in pairs])
    b = torch.cat([pair.b.double() * (own / scale / len(pairs)) for own, pair in pairs], dim=1)
    # B @ A is as large as a weight of the model; between the two orthogonal bases stands what is small.
    b_basis, b_rest = torch.linalg.qr(b)
    a_basis, a_rest = torch.linalg.qr(a.T)
    u, values, v = torch.linalg.svd(b_rest @ a_rest.T, full_matrices=False)
    root = values[:rank].sqrt()
    factors = root[:, None] * (v[:rank] @ a_basis.T), (b_basis @ u[:, :rank]) * root
    mean = LoraPair(*(_padded(factor, rank, dim).float().contiguous() for dim, factor in enumerate(factors)))
    energy = (scale * values).square()
    return MeanPair(mean, float(energy[rank:].sum()), float(energy.sum()))


def _padded(factor: Tensor, rank: int, dim: int) -> Tensor:
    """The factor with zeros up to the rank, where a side of the weight is smaller than that."""
    shape = list(factor.shape)
    shape[dim] = rank - shape[dim]
    return torch.cat([factor, factor.new_zeros(shape)], dim=dim)

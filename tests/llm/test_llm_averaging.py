"""The mean of LoRA pairs: by hand, against the mean of products, and within a rank."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from r1ranker.llm.averaging import mean_pair
from r1ranker.llm.lora import LoraPair


def product(pair: LoraPair) -> Tensor:
    return pair.b @ pair.a


def drawn(rank: int, out: int, into: int, seed: int) -> LoraPair:
    draw = torch.Generator().manual_seed(seed)
    return LoraPair(torch.randn(rank, into, generator=draw), torch.randn(out, rank, generator=draw))


def test_the_mean_of_two_by_hand() -> None:
    # 2 x [[1, 0], [0, 0]] and 1 x [[0, 0], [0, 4]]: the mean is diag(1, 2), whose best of rank 1 is diag(0, 2)
    one = LoraPair(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]))
    two = LoraPair(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0], [2.0]]))
    found = mean_pair([(2.0, one), (1.0, two)], rank=1, scale=0.5)
    assert (tuple(found.pair.a.shape), tuple(found.pair.b.shape)) == ((1, 2), (2, 1))
    assert (0.5 * product(found.pair)).flatten().tolist() == pytest.approx([0, 0, 0, 2], abs=1e-6)
    assert (found.lost, found.whole) == (pytest.approx(1), pytest.approx(5))
    assert float(found.pair.a.norm()) == pytest.approx(float(found.pair.b.norm())) == pytest.approx(2)
    whole = mean_pair([(2.0, one), (1.0, two)], rank=2, scale=0.5)
    assert (0.5 * product(whole.pair)).flatten().tolist() == pytest.approx([1, 0, 0, 2], abs=1e-6)
    assert (whole.lost, whole.whole) == (pytest.approx(0), pytest.approx(5))


def test_a_mean_of_the_same_adapter_is_that_adapter() -> None:
    pair = drawn(3, 8, 5, seed=0)
    found = mean_pair([(4.0, pair)] * 3, rank=3, scale=4.0)
    torch.testing.assert_close(product(found.pair), product(pair), atol=1e-5, rtol=1e-5)
    assert found.lost == pytest.approx(0, abs=1e-9 * found.whole)
    assert found.pair.a.dtype == found.pair.b.dtype == torch.float32


def test_it_is_the_mean_of_products_and_not_of_factors() -> None:
    one, two = drawn(2, 7, 6, seed=1), drawn(2, 7, 6, seed=2)
    mean = (product(one) + product(two)) / 2
    found = mean_pair([(1.0, one), (1.0, two)], rank=4, scale=1.0)
    torch.testing.assert_close(product(found.pair), mean, atol=1e-5, rtol=1e-5)
    of_factors = product(LoraPair((one.a + two.a) / 2, (one.b + two.b) / 2))
    assert float((of_factors - mean).norm()) > 0.1 * float(mean.norm())


def test_what_is_lost_is_what_the_rank_cannot_hold() -> None:
    pairs = [(1.0, drawn(3, 9, 6, seed=seed)) for seed in range(3)]
    mean = sum((product(pair) for _, pair in pairs), torch.zeros(9, 6)) / 3
    found = mean_pair(pairs, rank=3, scale=1.0)
    assert found.lost == pytest.approx(float((product(found.pair) - mean).square().sum()), rel=1e-4)
    assert found.whole == pytest.approx(float(mean.square().sum()), rel=1e-4)
    assert 0.01 < found.lost / found.whole < 0.5
    # and no worse than the nearest of that rank, by a second way to it
    nearest = torch.linalg.svdvals(mean)[3:].square().sum()
    assert found.lost == pytest.approx(float(nearest), rel=1e-4)


def test_a_rank_above_a_side_of_the_weight_is_kept() -> None:
    pair = drawn(5, 2, 3, seed=0)
    found = mean_pair([(1.0, pair), (1.0, pair)], rank=5, scale=1.0)
    assert (tuple(found.pair.a.shape), tuple(found.pair.b.shape)) == ((5, 3), (2, 5))
    torch.testing.assert_close(product(found.pair), product(pair), atol=1e-5, rtol=1e-5)


def test_adapters_that_changed_nothing_have_a_mean_that_changes_nothing() -> None:
    pair = LoraPair(torch.ones(2, 4), torch.zeros(3, 2))
    found = mean_pair([(1.0, pair), (1.0, pair)], rank=2, scale=1.0)
    assert product(found.pair).abs().max() == 0
    assert (found.lost, found.whole) == (0, 0)

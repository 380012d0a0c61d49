from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor

from r1ranker.rewards import listing_gains, ndcg
from r1ranker.rl.losses import elimination_loss
from r1ranker.rl.places import expected_listing, expected_ndcg, place_probabilities


def logs(*weights: float) -> Tensor:
    return tensor(weights, dtype=torch.float64).log()


def everyone(logits: Tensor) -> Tensor:
    return place_probabilities(logits, torch.arange(len(logits)))


def orders(weights: list[float]) -> dict[tuple[int, ...], float]:
    """Every elimination, the first excluded first, and its probability: turn by turn, one's share of what is left."""
    return {
        order: math.prod(weights[i] / sum(weights[j] for j in order[turn:]) for turn, i in enumerate(order))
        for order in permutations(range(len(weights)))
    }


def test_places_by_hand() -> None:
    # Of weights 1 and 3 the second is excluded first with 3/4, and the first is then the best.
    expected = tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(everyone(logs(1, 3)), expected, atol=1e-6, rtol=0)
    # Of 1, 2, 3 the first is last of all (2/6)(3/4) + (3/6)(2/3) = 7/12, and excluded at once 1/6.
    torch.testing.assert_close(
        place_probabilities(logs(1, 2, 3), tensor([0])), tensor([[7 / 12, 1 / 4, 1 / 6]], dtype=torch.float64),
        atol=1e-6, rtol=0,
    )  # fmt: skip


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=5))
def test_places_are_those_of_every_elimination_by_its_probability(logits: list[float]) -> None:
    n = len(logits)
    expected = torch.zeros(n, n, dtype=torch.float64)
    every = orders([math.exp(x) for x in logits])
    assert sum(every.values()) == pytest.approx(1.0)
    for order, probability in every.items():
        for turn, i in enumerate(order):
            expected[i, n - 1 - turn] += probability
    found = everyone(tensor(logits, dtype=torch.float64))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(n, dtype=torch.float64))
    single = everyone(tensor(logits))
    torch.testing.assert_close(single.double(), expected, atol=1e-5, rtol=0)


def test_the_gradient_of_places() -> None:
    logits = torch.linspace(-2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(everyone, logits)


def test_what_is_certain_has_no_gradient_and_no_nan() -> None:
    logits = tensor([0.0, 300.0, -200.0], requires_grad=True)
    value = expected_ndcg(logits, tensor([1.0, 0.0, 0.0]))
    value.backward()
    assert float(value.detach()) == pytest.approx(1 / math.log2(3))
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_expected_ndcg_by_hand() -> None:
    # The first is the best with 3/4: nDCG 1; else second: 1 / log2(3).
    value = expected_ndcg(logs(1, 3), tensor([1.0, 0.0], dtype=torch.float64))
    assert float(value) == pytest.approx(0.75 + 0.25 / math.log2(3), abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0])), min_size=2, max_size=5),
    st.floats(0.1, 10),
)
def test_expected_ndcg_is_that_of_every_ranking_by_its_probability(rows: list[tuple[float, float]], by: float) -> None:
    logits, gains = zip(*rows, strict=True)
    relevance = {str(i): gain for i, gain in enumerate(gains)}
    expected = sum(
        probability * ndcg([str(i) for i in reversed(order)], relevance, len(rows))
        for order, probability in orders([math.exp(x) for x in logits]).items()
    )
    for gained in (gains, [by * gain for gain in gains]):
        value = expected_ndcg(tensor(logits, dtype=torch.float64), tensor(gained, dtype=torch.float64))
        assert float(value) == pytest.approx(expected, abs=1e-6)


def test_expected_listing_by_hand() -> None:
    # One line is written. The first candidate is next with 1/4, at the second place of the list; else at the third.
    gains = tensor([1.0, 0.0], dtype=torch.float64)
    for cutoff, expected in ((20, 0.25 / math.log2(3) + 0.75 / 2), (2, 0.25 / math.log2(3)), (1, 0.0)):
        value = expected_listing(logs(1, 3), gains, 1, cutoff)
        assert float(value) == pytest.approx(expected, abs=1e-6)


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0])), min_size=1, max_size=4),
    st.lists(st.sampled_from([0.0, 1.0]), max_size=2),
)
def test_expected_listing_is_what_every_rest_of_a_list_adds_by_its_probability(
    rows: list[tuple[float, float]], before: list[float]
) -> None:
    logits, gains = zip(*rows, strict=True)
    relevance = {str(i): gain for i, gain in enumerate(gains)} | {f"w{i}": gain for i, gain in enumerate(before)}
    written = [f"w{i}" for i in range(len(before))]
    expected = sum(
        probability * (ndcg([*written, *map(str, order)], relevance, 20) - ndcg(written, relevance, 20))
        for order, probability in orders([math.exp(x) for x in logits]).items()
    )
    own = tensor(listing_gains(relevance, [str(i) for i in range(len(rows))]), dtype=torch.float64)
    value = expected_listing(tensor(logits, dtype=torch.float64), own, len(before), 20)
    assert float(value) == pytest.approx(expected, abs=1e-6)


def test_a_list_of_which_nothing_gains_is_worth_nothing_and_has_no_gradient() -> None:
    logits = logs(1, 2, 5).requires_grad_()
    value = expected_ndcg(logits, torch.zeros(3, dtype=torch.float64))
    value.backward()
    assert float(value.detach()) == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0.0


def test_the_best_places_count_most() -> None:
    """From the second place to the first a positive of twenty gains more than from the tenth to the ninth, unlike by
    the pairs that `elimination_loss` counts."""

    def gradient(place: int, of: str) -> float:
        # The others stand 5 apart, so that who is before whom is nearly certain; the positive is as likely as one.
        logits = 5.0 * torch.arange(20, dtype=torch.float64)
        logits[place] = logits[place - 1]
        logits.requires_grad_()
        rewards = torch.ones(20, dtype=torch.float64)
        rewards[place] = 0.0
        value = expected_ndcg(logits, 1 - rewards) if of == "ndcg" else -elimination_loss(logits, rewards)
        value.backward()
        assert logits.grad is not None
        return -float(logits.grad[place])

    assert gradient(1, "ndcg") == pytest.approx((1 - 1 / math.log2(3)) / 4, rel=0.05)
    assert gradient(9, "ndcg") == pytest.approx((1 / math.log2(10) - 1 / math.log2(11)) / 4, rel=0.05)
    assert gradient(1, "pairs") == pytest.approx(gradient(9, "pairs"), rel=0.05)

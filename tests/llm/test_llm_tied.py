from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from r1ranker.llm.linear import use_onednn
from r1ranker.llm.logprobs import branch_scores, token_logprobs
from r1ranker.llm.packing import Pack, collate, packed_hidden
from r1ranker.llm.tied import Lookup, look_up

PACKS = [Pack([5, 6, 7, 6, 0], [[10, 11, 12], [13], [0, 15, 16, 17]]), Pack([20], [[21, 22]])]
HELD = [Pack([5, 6, 7], [[10, 11], [13, 0]], among=[[[10, 13], [11, 8]], [[10, 13], [0]]])]


@pytest.fixture
def tied(tiny_model: Any) -> Any:
    """The tiny model with its table for a head, and with padding that learns nothing as an input."""
    model = copy.deepcopy(tiny_model)
    model.lm_head.weight = model.model.embed_tokens.weight
    model.model.embed_tokens.padding_idx = 0
    return model


def of_tokens(model: Any, lookup: Callable[[Any, Tensor], Lookup | None]) -> Tensor:
    batch = collate(PACKS)
    found = lookup(model, batch.ids)
    logprobs = token_logprobs(model, packed_hidden(model, batch, found), batch.targets, 0.7, found)
    return (logprobs * torch.linspace(-1, 2, len(logprobs))).sum()


def of_held(model: Any, lookup: Callable[[Any, Tensor], Lookup | None]) -> Tensor:
    batch = collate(HELD)
    found = lookup(model, batch.ids)
    return (branch_scores(model, packed_hidden(model, batch, found), batch, HELD, found) * torch.tensor([1, 3])).sum()


def of_hidden(model: Any, lookup: Callable[[Any, Tensor], Lookup | None]) -> Tensor:
    batch = collate(PACKS)
    return packed_hidden(model, batch, lookup(model, batch.ids)).square().sum()


def of_the_head(model: Any, lookup: Callable[[Any, Tensor], Lookup | None]) -> Tensor:
    batch = collate(PACKS)
    found = lookup(model, batch.ids)
    hidden = packed_hidden(model, batch, found).detach()
    return token_logprobs(model, hidden, batch.targets, lookup=found).sum()


@pytest.mark.parametrize("chunk", [1000, 3])
@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("loss", [of_tokens, of_held, of_hidden, of_the_head])
def test_the_gradient_is_that_of_two_uses(
    tied: Any, loss: Callable[..., Tensor], onednn: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1ranker.llm.logprobs.HEAD_CHUNK", chunk)
    if onednn:
        use_onednn(tied)
    assert look_up(tied, torch.tensor([[1]])) is not None
    found: list[tuple[Tensor, ...]] = []
    for lookup in (lambda *_: None, look_up):
        value = loss(tied, lookup)
        weights = [tied.lm_head.weight] if loss is of_the_head else [tied.lm_head.weight, tied.model.norm.weight]
        gradients = torch.autograd.grad(value, weights)
        assert all(float(g.abs().sum()) > 0 for g in gradients)
        found.append((value.detach(), *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


def test_gradients_add_up_over_passes(tied: Any) -> None:
    (once,) = torch.autograd.grad(of_tokens(tied, look_up), [tied.lm_head.weight])
    tied.zero_grad()
    for _ in range(2):
        of_tokens(tied, look_up).backward()
    assert float(once.abs().sum()) > 0
    torch.testing.assert_close(tied.lm_head.weight.grad, 2 * once, atol=1e-5, rtol=1e-5)


def test_no_second_gradient_of_the_table_is_made(tied: Any) -> None:
    for lookup, made in ((lambda *_: None, True), (look_up, False)):
        value = of_tokens(tied, lookup)
        with profile(activities=[ProfilerActivity.CPU]) as watched:
            value.backward()
        assert ("aten::embedding_dense_backward" in {event.key for event in watched.key_averages()}) is made


def test_only_a_plain_table_that_learns_and_is_the_head(tiny_model: Any, tied: Any) -> None:
    ids = torch.tensor([[1, 2]])
    assert look_up(tied, ids) is not None
    assert look_up(tiny_model, ids) is None  # two tables
    with torch.no_grad():
        assert look_up(tied, ids) is None
    tied.lm_head.weight.requires_grad_(False)
    assert look_up(tied, ids) is None
    tied.lm_head.weight.requires_grad_(True)

    class Scaled(torch.nn.Embedding):
        """As Gemma's, which is more than a lookup."""

    class Capped(torch.nn.Linear):
        """More than a product."""

    for module, more in ((tied.model.embed_tokens, Scaled), (tied.lm_head, Capped)):
        usual, module.__class__ = module.__class__, more
        assert look_up(tied, ids) is None
        module.__class__ = usual
    tied.model.embed_tokens.max_norm = 1.0
    assert look_up(tied, ids) is None
    tied.model.embed_tokens.max_norm = None
    assert look_up(tied, ids) is not None


def test_padding_learns_nothing_as_an_input(tied: Any) -> None:
    found = look_up(tied, torch.tensor([[3, 0, 3]]))
    assert found is not None
    (gradient,) = torch.autograd.grad(found.rows.sum(), [tied.lm_head.weight])
    assert gradient[3].unique().tolist() == [2.0]  # looked up twice
    assert int(gradient.abs().sum(1).count_nonzero()) == 1

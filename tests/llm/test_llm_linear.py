from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from r1ranker.llm import linear
from r1ranker.llm.linear import OneDnnLinear, forget_packed, use_onednn, weights_stay

needs_onednn = pytest.mark.skipif(not linear._available(), reason="PyTorch was built without oneDNN")


def made(bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, nn.Linear]:
    """A layer as it is, and the same by oneDNN."""
    torch.manual_seed(0)
    usual = nn.Linear(48, 20, bias=bias, dtype=dtype).eval()
    ours = copy.deepcopy(usual)
    use_onednn(ours)
    assert type(ours) is OneDnnLinear
    return usual, ours


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (3, 5, 48), (48,), (0, 48)])
def test_it_is_the_usual_product(bias: bool, shape: tuple[int, ...]) -> None:
    usual, ours = made(bias)
    x = torch.randn(shape)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            torch.testing.assert_close(ours(x), usual(x), atol=1e-5, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
def test_its_gradients_are_the_usual_ones(bias: bool) -> None:
    usual, ours = made(bias)
    gradients = []
    for layer in (usual.train(), ours.train()):
        x = torch.linspace(-1, 1, 6 * 48).reshape(2, 3, 48).requires_grad_()
        layer(x).square().sum().backward()
        assert x.grad is not None
        assert x.grad.abs().sum() > 0
        gradients.append([x.grad, *(p.grad for p in layer.parameters())])
    assert len(gradients[0]) == (3 if bias else 2)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@needs_onednn
def test_a_frozen_weight_lets_the_gradient_through() -> None:
    _, ours = made()
    ours.requires_grad_(False)
    x = torch.randn(2, 48, requires_grad=True)
    ours(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, ours.weight.sum(0).expand(2, -1))
    assert ours.weight.grad is None


@needs_onednn
def test_bfloat16_is_computed_in_bfloat16_of_weights_or_by_autocast() -> None:
    x = torch.randn(4, 48)
    usual, ours = made(dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(ours(x.bfloat16()), usual(x.bfloat16()))
    usual, ours = made()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), weights_stay():
        out = ours(x)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, usual(x))
        assert (ours._packed is not None) == linear.takes(torch.bfloat16)  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).requires_grad


@needs_onednn
def test_where_the_processor_has_no_bfloat16_pytorch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "takes", lambda dtype: dtype == torch.float32)
    monkeypatch.setattr(linear, "product", lambda *_: pytest.fail("oneDNN was asked"))
    x = torch.randn(4, 48)
    usual, ours = made(dtype=torch.bfloat16)
    with torch.no_grad(), weights_stay():
        assert torch.equal(ours(x.bfloat16()), usual(x.bfloat16()))
    assert torch.equal(ours(x.bfloat16()), usual(x.bfloat16()))
    usual, ours = made()
    with torch.autocast("cpu", torch.bfloat16), weights_stay():
        assert torch.equal(ours(x), usual(x))
    assert ours._packed is None  # type: ignore[union-attr]


@needs_onednn
def test_the_layout_is_made_once_and_anew_when_the_weight_changes() -> None:
    usual, ours = made()
    assert isinstance(ours, OneDnnLinear)
    x = torch.randn(2, 48)

    @torch.no_grad()
    @weights_stay()
    def check() -> Any:
        """It computes with the weight as it is now; returns the layout."""
        torch.testing.assert_close(ours(x), nn.functional.linear(x, ours.weight, ours.bias), atol=1e-5, rtol=1e-5)
        assert ours._packed is not None
        return ours._packed[1]

    first = check()
    assert check() is first
    with torch.no_grad():
        ours.weight.mul_(2)
    assert check() is not first
    ours.load_state_dict(usual.state_dict())
    check()
    ours.weight = nn.Parameter(torch.ones(20, 48))
    check()

    with weights_stay():
        ours(x).square().sum().backward()  # with gradients there is no use for it
    torch.optim.AdamW(ours.parameters(), lr=0.1, fused=True).step()  # which does not count as a change
    with torch.no_grad():
        torch.testing.assert_close(ours(x), nn.functional.linear(x, ours.weight, ours.bias), atol=1e-5, rtol=1e-5)
    forget_packed(nn.Sequential(ours))
    assert ours._packed is None
    check()


@needs_onednn
def test_a_copy_shares_nothing_and_a_large_model_is_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = made()
    x = torch.randn(2, 48)
    with torch.no_grad(), weights_stay():
        before = ours(x)
        other = copy.deepcopy(ours)
        other.weight.zero_()
        assert torch.equal(ours(x), before)
        torch.testing.assert_close(other(x), other.bias.expand(2, -1))
        monkeypatch.setattr(linear, "PACKED_BYTES", ours.weight.nbytes - 1)
        use_onednn(ours)
        forget_packed(ours)
        torch.testing.assert_close(ours(x), before, atol=1e-5, rtol=1e-5)
    assert ours._packed is None  # type: ignore[union-attr]


def test_tied_weights_stay_tied_and_the_folder_is_the_same(tiny_model: Any) -> None:
    names = list(tiny_model.state_dict())
    model = copy.deepcopy(tiny_model)
    use_onednn(model)
    assert list(model.state_dict()) == names
    tied = tiny_model.lm_head.weight is tiny_model.get_input_embeddings().weight
    again = copy.deepcopy(model)
    assert (again.lm_head.weight is again.get_input_embeddings().weight) is tied


def test_without_onednn_all_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_available", lambda: False)
    layer = nn.Linear(4, 4)
    use_onednn(layer)
    assert type(layer) is nn.Linear

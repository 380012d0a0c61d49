from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from r1ranker.llm.norms import FusedNorm, fuse_norms

needs_fused = pytest.mark.skipif(not hasattr(torch.ops.aten, "_fused_rms_norm"), reason="PyTorch has no fused norm")


class PlainRMSNorm(nn.Module):
    """As models write it."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 24))
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        wide = hidden_states.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * normed.to(hidden_states.dtype)


class ShiftedRMSNorm(PlainRMSNorm):
    """Gemma's, whose weights are counted from 1."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) * (1 + self.weight) / self.weight


class GatedRMSNorm(PlainRMSNorm):
    """One that needs a gate."""

    def forward(self, hidden_states: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(hidden_states) * gate


def fused(norm: nn.Module) -> nn.Module:
    fuse_norms(norm)
    return norm


@needs_fused
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_values_and_gradients_are_the_usual_ones(eps: float) -> None:
    usual = PlainRMSNorm(eps)
    ours = fused(copy.deepcopy(usual))
    assert type(ours) is FusedNorm
    found = []
    for norm in (usual, ours):
        x = torch.linspace(-1, 3, 3 * 5 * 24).reshape(3, 5, 24).requires_grad_()
        out = norm(x)
        (out * torch.linspace(-2, 1, out.numel()).reshape(out.shape)).sum().backward()
        assert x.grad is not None
        assert norm.weight.grad is not None
        assert float(x.grad.abs().sum()) > 0
        found.append((out, x.grad, norm.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


@needs_fused
def test_gradients_are_those_of_small_differences() -> None:
    from r1ranker.llm.norms import _Norm

    torch.manual_seed(0)
    x = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: _Norm.apply(a, b, 1e-3), (x, weight))  # type: ignore[no-untyped-call]


@needs_fused
def test_frozen_weights_and_inputs_take_no_gradient() -> None:
    ours = fused(PlainRMSNorm())
    ours.requires_grad_(False)
    x = torch.randn(2, 24, requires_grad=True)
    ours(x).square().sum().backward()
    assert type(ours) is FusedNorm
    assert x.grad is not None
    assert ours.weight.grad is None
    ours.requires_grad_(True)
    ours(x.detach()).sum().backward()
    assert ours.weight.grad is not None


@needs_fused
def test_bfloat16_is_left_to_the_norm_itself() -> None:
    usual = PlainRMSNorm().bfloat16()
    ours = fused(copy.deepcopy(usual))
    assert type(ours) is FusedNorm
    x = torch.randn(4, 24).bfloat16()
    assert torch.equal(ours(x), usual(x))


@pytest.mark.parametrize("kind", [ShiftedRMSNorm, GatedRMSNorm, nn.LayerNorm])
def test_another_norm_stays_as_it_is(kind: Any) -> None:
    norm = nn.Sequential(kind(24) if kind is nn.LayerNorm else kind())
    fuse_norms(norm)
    assert type(norm[0]) is kind


@needs_fused
def test_a_whole_model_keeps_its_weights_names_and_values(tiny_model: Any) -> None:
    model = copy.deepcopy(tiny_model)
    fuse_norms(model)
    fuse_norms(model)  # and twice is once
    assert sum(type(module) is FusedNorm for module in model.modules()) == 2 * 3 + 1
    assert list(model.state_dict()) == list(tiny_model.state_dict())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tiny_model(ids).logits, atol=1e-4, rtol=1e-4)

"""RMS norms on the CPU as one operation with a gradient of its own.

A model writes its norm as seven operations, each of which reads and writes all positions once, and keeps most of them
for the backward pass. This keeps the input and one number a position.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Norm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps) over the last dimension; x: (..., H) and weight: (H,), float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out: Tensor
        out, scale = torch.ops.aten._fused_rms_norm(x, list(weight.shape), weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        (grad,) = grads
        need_x, need_weight, _ = ctx.needs_input_grad
        normed = x * scale
        grad_weight = (grad * normed).flatten(0, -2).sum(0) if need_weight else None
        if not need_x:
            return None, grad_weight, None
        grad_x = grad * weight
        along = (grad_x * normed).mean(-1, keepdim=True)
        return grad_x.sub_(normed.mul_(along)).mul_(scale), grad_weight, None


class FusedNorm(nn.Module):
    """Takes the place of a model's RMS norm, and does what that does; in other precisions the norm itself does it."""

    weight: Tensor
    variance_epsilon: float
    usual: type[nn.Module]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states: (..., H)."""
        plain = hidden_states.dtype == self.weight.dtype == torch.float32
        if not plain or hidden_states.device.type != "cpu":
            out: Tensor = self.usual.forward(self, hidden_states)
            return out
        normed: Tensor = _Norm.apply(hidden_states, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
        return normed


def fuse_norms(model: nn.Module) -> None:
    """Let a model's RMS norms compute as above, where they are plain ones, which is tried out."""
    if not hasattr(torch.ops.aten, "_fused_rms_norm"):
        return
    for module in list(model.modules()):
        if type(module).__name__.endswith("RMSNorm") and _is_plain(module):
            setattr(module, "usual", type(module))  # noqa: B010  # as yet it is of another class
            module.__class__ = FusedNorm


def _is_plain(norm: nn.Module) -> bool:
    """Whether a norm has a weight and gives what `_Norm` gives."""
    weight, eps = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or weight.device.type != "cpu" or not isinstance(eps, float):
        return False
    with torch.no_grad():
        x = torch.linspace(-2, 3, 2 * len(weight)).reshape(2, -1)
        try:
            usual = norm(x.to(weight.dtype)).float()
        except TypeError:  # it needs more than the hidden states, such as a gate
            return False
        tolerance = 1e-5 if weight.dtype == torch.float32 else 2e-2
        ours = _Norm.apply(x, weight.float(), eps)  # type: ignore[no-untyped-call]
        return bool(torch.allclose(usual, ours, rtol=tolerance, atol=tolerance))

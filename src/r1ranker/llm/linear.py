"""Linear layers on the CPU by oneDNN, over weights that are laid out for it beforehand where they stay as they are.

PyTorch gives products in float32 to MKL, which is slow for the few rows of tokens that are written, and on an AMD
Zen 4 not the fastest for many; those in bfloat16 go to oneDNN already, but over plain weights. `bench/products.py`
measures both.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PACKED_BYTES = 2 << 30
"""Weights of up to so many bytes are held a second time, laid out for the products; larger models go without."""


def _available() -> bool:
    names = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    return bool(torch.backends.mkldnn.is_available()) and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in names
    )


@cache
def takes(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies in this type here: bfloat16 needs a processor with AVX-512, or newer."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias; x: (..., in), weight: (out, in), plain or laid out."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


_weights_stay: ContextVar[bool] = ContextVar("weights_stay", default=False)


@contextmanager
def weights_stay() -> Iterator[None]:
    """Here models compute again and again with the same weights: a second layout of them is worth its time."""
    token = _weights_stay.set(True)
    try:
        yield
    finally:
        _weights_stay.reset(token)


class _Product(torch.autograd.Function):
    """The product with its gradients; oneDNN has no autograd of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (grad,) = grads
        need_x, need_weight, need_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            product(rows, weight.t()).reshape(x.shape) if need_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if need_weight else None,
            rows.sum(0) if need_bias else None,
        )


class OneDnnLinear(nn.Linear):
    """An `nn.Linear` whose products run by oneDNN where it is on the CPU.

    Within `weights_stay()`, and where no gradients are wanted, the weight is laid out once and used until another
    takes its place, until PyTorch counts a change of it, or until `forget`. Fused optimizers change weights uncounted:
    who lets one step calls `forget_packed`.
    """

    may_pack = False
    _packed: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """See `nn.Linear`."""
        return self.multiply(input, self.weight)

    def multiply(self, input: Tensor, weight: Tensor) -> Tensor:
        """The same with a weight that stands for its own and learns."""
        bias = self.bias
        cast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if cast else weight.dtype
        tensors = (input, weight) if bias is None else (input, weight, bias)
        learns = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        packs = self.may_pack and _weights_stay.get() and not learns
        made_for = weight.device.type == "cpu" and takes(dtype) and input.numel() > 0
        if not made_for or (cast and not packs) or (not cast and input.dtype != dtype):
            return nn.functional.linear(input, weight, bias)
        if learns:
            out: Tensor = _Product.apply(input, weight, bias)  # type: ignore[no-untyped-call]
            return out
        with torch.no_grad():
            matrix = self._laid_out(dtype) if packs else weight
            return product(input.to(dtype), matrix, None if bias is None else bias.to(dtype))

    def _laid_out(self, dtype: torch.dtype) -> Tensor:
        state = (self.weight.data_ptr(), self.weight._version, dtype)
        if self._packed is None or self._packed[0] != state:
            packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().to(dtype))
            self._packed = (state, packed)
        return self._packed[1]

    def forget(self) -> None:
        """Drop the weight's second layout."""
        self._packed = None

    def __deepcopy__(self, memo: dict[int, Any]) -> OneDnnLinear:
        self.forget()  # an opaque tensor cannot be copied, and is made anew when it is needed
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other


def use_onednn(model: nn.Module) -> None:
    """Let a model's linear layers (not what wraps them, such as a LoRA) compute as above, where oneDNN is there."""
    if not _available():
        return
    layers = [module for module in model.modules() if type(module) in (nn.Linear, OneDnnLinear)]
    small = sum(weight.nbytes for layer in layers for weight in layer.parameters(recurse=False)) <= PACKED_BYTES
    for layer in layers:
        layer.__class__ = OneDnnLinear
        setattr(layer, "may_pack", small)  # noqa: B010  # its type is only now this one


def forget_packed(model: nn.Module) -> None:
    """Weights have changed: drop every second layout."""
    for module in model.modules():
        if isinstance(module, OneDnnLinear):
            module.forget()

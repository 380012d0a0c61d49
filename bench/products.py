"""The products of a model's linear layers, as the package computes them against `torch.nn.functional.linear`.

    python bench/products.py [--dtype bfloat16]

All layers of SmolLM2-135M's shapes and its LM head in turn, for 1 to 512 rows: a token of a reply, of eight replies,
of a batch of prompts. Ours is over weights that were laid out beforehand, as in ranking.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import AutoConfig

from pairs import compare, in_turn
from r1ranker.assets import fetch_model
from r1ranker.llm.linear import use_onednn, weights_stay
from roofline import products

ROWS = (1, 2, 4, 8, 32, 128, 512)


def layers(model: str, dtype: torch.dtype) -> nn.ModuleList:
    """A linear layer for every product of a forward pass."""
    config = AutoConfig.from_pretrained(fetch_model(model))
    shapes = [(a, b) for (_, a, b), times in products(config, 1, 1).items() for _ in range(times)]
    return nn.ModuleList(nn.Linear(a, b, bias=False, dtype=dtype) for a, b in shapes).eval()


@torch.no_grad()
def run(parts: nn.ModuleList, inputs: dict[int, torch.Tensor]) -> float:
    """Seconds of all products, one after another."""
    begin = time.perf_counter()
    with weights_stay():
        for layer in parts:
            layer(inputs[layer.in_features])
    return time.perf_counter() - begin


def main() -> None:
    """A line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--pairs", type=int, default=15)
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    ours, theirs = layers(args.model, dtype), layers(args.model, dtype)
    use_onednn(ours)
    generator = torch.Generator().manual_seed(0)
    for rows in ROWS:
        sizes = {layer.in_features for layer in theirs}
        inputs = {size: torch.randn(rows, size, generator=generator).to(dtype) for size in sizes}
        side: Callable[[nn.ModuleList], Callable[[], float]] = lambda parts, x=inputs: partial(run, parts, x)  # noqa: E731
        compare(f"products {args.dtype} x{rows}", *in_turn(side(ours), side(theirs), args.pairs))


if __name__ == "__main__":
    main()

"""What the machine allows: the least time an RL update and a whole step can take, from measured ceilings.

    python bench/roofline.py

Measured: how fast float32 matrices of the model's own shapes are multiplied (the best of several runs of MKL and of
oneDNN, weighted by their share of the work), how long PyTorch's attention takes for what a branch may see and no more,
and how fast memory is read. Counted: the products of an update whose prompt is computed once (forward, and twice as
much backward), and for a whole step also the bytes of the weights, read once a written token, and of the optimizer's
state. Norms, activations, the softmax of the head and everything else are left out, so nothing can be faster than what
is printed; `bench/trl_update.py` and `bench/trl_step.py` say how near ours comes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig

from r1ranker.assets import fetch_model
from r1ranker.llm.linear import product
from trl_update import SHAPES

RUNS = 15


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def products(config: Any, tokens: int, completion_tokens: int) -> dict[tuple[int, int, int], int]:
    """The forward pass as matrix products: (rows, in, out) -> how many of them."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    layers, narrow = config.num_hidden_layers, head * config.num_key_value_heads
    wide = head * config.num_attention_heads
    return {
        (tokens, hidden, wide): layers,
        (tokens, wide, hidden): layers,
        (tokens, hidden, narrow): 2 * layers,
        (tokens, hidden, inner): 2 * layers,
        (tokens, inner, hidden): layers,
        (completion_tokens, hidden, config.vocab_size): 1,
    }


def flops(work: dict[tuple[int, int, int], int]) -> float:
    """Multiplications and additions."""
    return float(sum(2 * a * b * c * times for (a, b, c), times in work.items()))


def fastest(work: dict[tuple[int, int, int], int]) -> float:
    """Seconds that these products and those of their backward pass take, each at its best."""
    seconds = 0.0
    for (rows, narrow, wide), times in work.items():
        x, w, g = torch.randn(rows, narrow), torch.randn(wide, narrow), torch.randn(rows, wide)

        # Forward, for the input's gradient and for the weight's: each by the library that is faster at it.
        ways: tuple[tuple[Callable[[], object], Callable[[], object]], ...] = (
            (partial(torch.nn.functional.linear, x, w), partial(product, x, w)),
            (partial(torch.mm, g, w), partial(product, g, w.t())),
            (partial(torch.mm, g.t(), x), partial(product, g.t(), x.t())),
        )
        seconds += times * sum(min(best(mkl), best(onednn)) for mkl, onednn in ways)
    return seconds


def attention(config: Any, prompt: int, samples: int, length: int) -> float:
    """Seconds of attention in all layers, forward and backward: of the prompt, of branches over it and themselves."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    seconds = 0.0
    # (rows, queries, keys, causal)
    for rows, queries, keys, causal in (
        (1, prompt, prompt, True),
        (1, samples * (length - 1), prompt, False),
        (samples, length - 1, length - 1, True),
    ):
        q = torch.randn(rows, heads, queries, size, requires_grad=True)
        k, v = (torch.randn(rows, heads, keys, size, requires_grad=True) for _ in range(2))
        grad = torch.randn_like(q)

        def both(
            q: torch.Tensor = q,
            k: torch.Tensor = k,
            v: torch.Tensor = v,
            grad: torch.Tensor = grad,
            causal: bool = causal,
        ) -> None:
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
            torch.autograd.grad(out, (q, k, v), grad)

        seconds += best(both)
    return seconds * int(config.num_hidden_layers)


def bandwidth() -> float:
    """Bytes a second that are read: a sum over a tensor far larger than the caches."""
    tensor = torch.ones(1 << 27)
    return tensor.nbytes / best(tensor.sum)


def main() -> None:
    """A line for the update and one for the whole step of each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    args = parser.parse_args()
    config = AutoConfig.from_pretrained(fetch_model(args.model))
    speed = bandwidth()
    parameters = config.vocab_size * config.hidden_size
    parameters += sum(a * b * n for (_, a, b), n in products(config, 1, 1).items() if b != config.vocab_size)
    for prompt, samples, length in SHAPES:
        name = f"{prompt}x{samples}x{length}"
        work = products(config, prompt + samples * (length - 1), samples * length)
        multiplied, attended = fastest(work), attention(config, prompt, samples, length)
        update = multiplied + attended
        facts: dict[str, Any] = {
            "products": round(multiplied, 3),
            "attention": round(attended, 3),
            "gflop": round(3 * flops(work) / 1e9),
            "gflop_per_s": round(3 * flops(work) / multiplied / 1e9),
        }
        line = {
            "bench": f"roofline update {name}",
            "ratio": None,
            "ours": round(update, 3),
            "theirs": None,
            "pairs": RUNS,
        }
        print(json.dumps(line | facts), flush=True)
        # The weights for the prompt and for each token; the weights, gradients and two moments for the optimizer.
        moved = 4 * parameters * (length + 4)
        step = update + moved / speed
        facts = {"gb": round(moved / 1e9, 1), "gb_per_s": round(speed / 1e9, 1)}
        line |= {"bench": f"roofline step {name}", "ours": round(step, 3)}
        print(json.dumps(line | facts), flush=True)


if __name__ == "__main__":
    main()

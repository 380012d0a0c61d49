"""An RL update, forward and backward, against TRL's GRPOTrainer: same weights, tokens, advantages and precision.

    python bench/trl_update.py --trl-python .bench-venv/bin/python

Ours is the path the trainer takes: the prompt is computed once for all completions (`Policy.packed`), then the clipped
loss. TRL's is its own loss on the prepared batch. All layers are trained on both sides, in float32. A second line of
each shape says what the recipe's frozen lower layers add: less work, so not a comparison of like with like.
Checked before anything is timed: log-probs agree to 1e-3 and the norm of every parameter's gradient to 1%.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pairs import Worker, compare, in_turn
from r1ranker.assets import fetch_model
from r1ranker.config import ModelConfig
from r1ranker.llm.packing import Pack
from r1ranker.rl.losses import ppo_loss
from r1ranker.rl.policy import Policy

SHAPES = ((304, 8, 32), (60, 16, 96))
"""Prompt tokens, completions, tokens of each."""
FROZEN = 15
"""Layers of 30 that the CPU recipe for sampled thoughts freezes."""


def make_job(model: str, prompt: int, samples: int, tokens: int) -> dict[str, Any]:
    """Random tokens (text or not, the work is the same) and advantages of both signs."""
    rng = random.Random(0)
    return {
        "model": str(fetch_model(model)),
        "prompt": "unused",
        "samples": samples,
        "tokens": tokens,
        "prompt_ids": [rng.randrange(1000, 40000) for _ in range(prompt)],
        "completions": [[rng.randrange(1000, 40000) for _ in range(tokens)] for _ in range(samples)],
        "advantages": [rng.gauss(0, 1) for _ in range(samples)],
    }


class Ours:
    """Our side of a job."""

    def __init__(self, model: str, job: dict[str, Any], frozen_layers: int = 0) -> None:
        config = ModelConfig(path=model, device="cpu", precision="fp32", frozen_layers=frozen_layers)
        self.policy = Policy.load(config)
        self.policy.model.train()
        self.pack = Pack(job["prompt_ids"], job["completions"])
        self.advantages = torch.tensor(job["advantages"]).repeat_interleave(job["tokens"])

    def update(self) -> float:
        """Seconds of a forward and backward pass."""
        self.policy.model.zero_grad(set_to_none=True)
        begin = time.perf_counter()
        _, _, logprobs = self.policy.packed([self.pack])
        ppo_loss(logprobs, logprobs.detach(), self.advantages, 0.2).per_token.mean().backward()
        return time.perf_counter() - begin

    def facts(self) -> tuple[list[float], dict[str, float]]:
        """Log-probs, and the gradient norms of the last update."""
        with torch.no_grad():
            logprobs = self.policy.packed([self.pack])[2]
        named = self.policy.model.named_parameters()
        return logprobs.tolist(), {name: float(p.grad.norm()) for name, p in named if p.grad is not None}


def check(ours: Ours, theirs: dict[str, Any]) -> dict[str, float]:
    """How far the two sides are apart. Raises SystemExit if that is more than rounding."""
    logprobs, norms = ours.facts()
    if norms.keys() != theirs["gradient_norms"].keys() or len(logprobs) != len(theirs["logprobs"]):
        raise SystemExit("the two sides do not train the same parameters or score the same tokens")
    off = max(abs(a - b) for a, b in zip(logprobs, theirs["logprobs"], strict=True))
    relative = max(abs(a - theirs["gradient_norms"][name]) / a for name, a in norms.items())
    if off > 1e-3 or relative > 1e-2:
        raise SystemExit(f"the two sides disagree: log-probs by {off:.2g}, gradient norms by {relative:.2g}")
    return {"logprobs_off": float(f"{off:.2g}"), "gradient_norms_off": float(f"{relative:.2g}")}


def one(args: argparse.Namespace, shape: tuple[int, int, int], log: Path) -> None:
    """Check and time one shape."""
    job = make_job(args.model, *shape)
    worker = Worker([str(args.trl_python), str(Path(__file__).with_name("trl_worker.py"))], log)
    worker.ask(json.dumps(job))
    ask: Callable[[], float] = lambda: float(worker.ask("go")["seconds"])  # noqa: E731
    ours = Ours(args.model, job)
    ours.update(), ask()
    facts = worker.ask("check")
    agreement = check(ours, facts)
    name = "trl_update {}x{}x{}".format(*shape)
    times = in_turn(ours.update, ask, args.pairs)
    peaks = {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
    compare(name, *times, **agreement, **peaks, their_peak_mb=round(worker.ask("check")["peak_mb"]))
    frozen = Ours(args.model, job, FROZEN)
    compare(f"{name}, ours with {FROZEN} frozen layers", *in_turn(frozen.update, ask, args.pairs))
    worker.close()


def main() -> None:
    """Both shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", type=Path, default=Path(".bench-venv/bin/python"))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)), help="one of the shapes, by number")
    args = parser.parse_args()
    shapes = SHAPES if args.shape is None else SHAPES[args.shape : args.shape + 1]
    with tempfile.TemporaryDirectory() as folder:
        for k, shape in enumerate(shapes):
            one(args, shape, Path(folder) / f"trl-{k}.log")


if __name__ == "__main__":
    main()

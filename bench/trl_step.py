"""A whole RL step, rollout and optimizer included, against TRL's GRPOTrainer: one prompt, 8 completions x 32 tokens.

    python bench/trl_step.py --trl-python .bench-venv/bin/python

Ours is `Trainer.take_step` of a GRPO recipe: sample, judge, one update. TRL's is a step of its own training loop. The
prompt is the same text on both sides; every completion is held to its full length, so that both write as much.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pairs import Worker, compare, in_turn
from r1ranker.assets import fetch_model
from r1ranker.config import RunConfig, parse_config
from r1ranker.rankers import DRanker
from r1ranker.rl.policy import Policy
from r1ranker.rl.trainer import Trainer
from r1ranker.types import Candidate, Completion, RankingExample, Request, Sampling

SHAPES = ((304, 8, 32), (60, 16, 96))
"""Prompt tokens (about), completions, tokens of each."""
WORDS = ["river", "stone", "garden", "winter", "silver", "window", "letter", "summer", "island", "bridge"]


WORDING = """
[system]
thinking = "Think."
[turn]
user = "$context\\n$candidates\\n$question"
[recommendation]
context = "$history"
direct = "Best?"
"""
"""Short, so that a prompt of 60 tokens is possible; the history fills a longer one."""


def recipe(model: str, samples: int, tokens: int, folder: Path) -> RunConfig:
    """GRPO in float32 over all layers."""
    folder.mkdir(parents=True, exist_ok=True)
    wording = folder / "wording.toml"
    wording.write_text(WORDING, encoding="utf-8")
    raw = {
        "model": {"path": model, "device": "cpu", "precision": "fp32"},
        "ranker": {"kind": "direct", "thinking": True, "max_tokens": tokens, "templates": str(wording)},
        "train": {
            "algorithm": "grpo",
            "states_per_step": 1,
            "group_size": samples,
            "kl_coef": 0.0,
            "learning_rate": 1e-6,
        },
    }
    return parse_config(raw, "bench")


def example(history: int) -> RankingExample:
    """Three candidates and a history of so many titles."""
    titles = [f"The {a} and the {b}" for a in WORDS for b in WORDS]
    candidates = tuple(Candidate(f"c{k}", titles[-1 - k]) for k in range(3))
    return RankingExample("e", "recommendation", candidates, history=tuple(titles[:history]), relevance={"c2": 1.0})


class Ours:
    """Our trainer over one example."""

    def __init__(self, model: str, shape: tuple[int, int, int], folder: Path) -> None:
        prompt, samples, tokens = shape
        self.tokens = tokens
        config = recipe(model, samples, tokens, folder)
        policy = Policy.load(config.model)
        policy.model.generation_config.eos_token_id = None
        policy.tokenizer.eos_token = None
        self.policy = Policy(policy.model, policy.tokenizer, config.model)
        complete = self.policy.llm.complete

        def unstopped(requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
            return complete([replace(request, stop="") for request in requests], sampling)

        self.policy.llm.complete = unstopped  # type: ignore[method-assign]  # nor does the stop text end one
        ranker = config.ranker.build(policy.llm.parameters)
        assert isinstance(ranker, DRanker)
        # The longest history that the prompt has room for.
        fits = (n for n in range(90, -1, -1) if len(self._ids(ranker, example(n))) <= prompt)
        chosen = example(next(fits))
        self.ids = self._ids(ranker, chosen)
        self.trainer = Trainer(config, self.policy, [chosen], folder)
        self.trainer.policy.model.train()
        self.steps = 0

    def _ids(self, ranker: DRanker, chosen: RankingExample) -> list[int]:
        return self.policy.llm.chat.encode(ranker.request(chosen).prompt)

    def step(self) -> float:
        """Seconds of a step."""
        begin = time.perf_counter()
        metrics = self.trainer.take_step(self.steps)
        seconds = time.perf_counter() - begin
        self.steps += 1
        if metrics["completion_tokens"] != self.tokens:
            raise SystemExit(f"a completion has {metrics['completion_tokens']} tokens and not {self.tokens}")
        return seconds


def one(args: argparse.Namespace, shape: tuple[int, int, int], folder: Path) -> None:
    """Time one shape."""
    ours = Ours(args.model, shape, folder / "run")
    # The text with its special tokens, as TRL is given it.
    prompt = ours.policy.tokenizer.decode(ours.ids)
    job = {"model": str(fetch_model(args.model)), "prompt": prompt, "samples": shape[1], "tokens": shape[2]}
    worker = Worker([str(args.trl_python), str(Path(__file__).with_name("trl_worker.py"))], folder / "trl.log")
    if (theirs := worker.ask(json.dumps(job))["prompt_tokens"]) != len(ours.ids):
        raise SystemExit(f"the prompt is {len(ours.ids)} tokens here and {theirs} there")
    last: dict[str, Any] = {}

    def ask() -> float:
        last.update(worker.ask("go"))
        return float(last["seconds"])

    times = in_turn(ours.step, ask, args.pairs)
    worker.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    name = f"trl_step {len(ours.ids)}x{shape[1]}x{shape[2]}"
    compare(name, *times, peak_mb=round(peak), their_peak_mb=round(last["peak_mb"]))


def main() -> None:
    """All shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", type=Path, default=Path(".bench-venv/bin/python"))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--shape", type=int, choices=range(len(SHAPES)), help="one of the shapes, by number")
    args = parser.parse_args()
    for shape in SHAPES if args.shape is None else SHAPES[args.shape : args.shape + 1]:
        with tempfile.TemporaryDirectory() as folder:
            one(args, shape, Path(folder))


if __name__ == "__main__":
    main()

"""Training on all n-1 states of an example: one row for all of them, against a row for each.

    python bench/append_training.py

The all-actions gradient (IRanker, no thinking) over the same states, forward and backward: `ours` computes what their
prompts begin with once (`llm/tree.py`), `theirs` computes it for every state, as independent packs in the same
micro-batches. In the `append` layout that beginning is the history and the whole candidate list; in `rebuild` it ends
at the first candidate that one of the states lacks. Checked first: the norms of both gradients agree to 0.1%.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from pairs import compare, in_turn
from r1ranker.config import RunConfig, parse_config
from r1ranker.datasets import load_dataset
from r1ranker.llm.packing import Pack
from r1ranker.rankers import IRanker
from r1ranker.rl import scored
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Policy
from r1ranker.rl.states import State, StateStream
from r1ranker.types import RankingExample

GROW = scored.grow_trees


def apart(packs: Sequence[Pack], limit: int) -> list[list[Pack]]:  # noqa: ARG001
    """A row for each pack."""
    return [[pack] for pack in packs]


class Side:
    """One way to lay the same states out."""

    def __init__(self, policy: Policy, config: RunConfig, states: list[State], grow: Callable[..., object]) -> None:
        ranker = config.ranker.build(policy.llm.parameters)
        assert isinstance(ranker, IRanker)
        self.learner = scored.Scored(policy, ranker, config)
        self.policy, self.states, self.grow, self.tokens, self.norm = policy, states, grow, 0, 0.0

    def __call__(self) -> float:
        """Seconds of a forward and backward pass over all states."""
        scored.grow_trees = self.grow  # type: ignore[assignment]
        self.policy.model.zero_grad(set_to_none=True)
        averages = Averages()
        begin = time.perf_counter()
        self.learner.backward(self.states, range(len(self.states)), averages)
        seconds = time.perf_counter() - begin
        self.tokens = round(averages.result()["tokens"])
        self.norm = float(torch.nn.utils.get_total_norm([p.grad for p in self.policy.parameters if p.grad is not None]))
        return seconds


def main() -> None:
    """A line a layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--history", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--layouts", nargs="+", choices=("append", "rebuild"), default=["append"])
    args = parser.parse_args()
    options = {"candidates": args.candidates, "history": args.history}
    examples: Sequence[RankingExample] = load_dataset("rec-movie", **options).train[:1]
    count = args.candidates - 1
    stream = StateStream(examples, per_step=count, per_example=count, draw="subsets", seed=0)
    for layout in args.layouts:
        raw = {
            "model": {"path": args.model, "device": "cpu", "precision": "fp32"},
            "ranker": {"thinking": False, "layout": layout},
            "train": {
                "algorithm": "all_actions",
                "kl_coef": 0.0,
                "states_per_step": count,
                "states_per_example": count,
            },
        }
        config = parse_config(raw, "bench")
        policy = Policy.load(config.model)
        policy.model.train()
        ours, theirs = (Side(policy, config, stream.at(0), grow) for grow in (GROW, apart))
        ours(), theirs()
        if abs(ours.norm - theirs.norm) > 1e-3 * theirs.norm:
            raise SystemExit(f"the two gradients differ: norms {ours.norm:.6g} and {theirs.norm:.6g}")
        times = in_turn(ours, theirs, args.pairs)
        facts = {"states": count, "our_tokens": ours.tokens, "their_tokens": theirs.tokens}
        compare(f"{layout}_training", *times, **facts)


if __name__ == "__main__":
    main()

"""One query of 20 candidates on the CPU: llama.cpp against the transformers backend, the same weights, in turn.

    python bench/llamacpp.py --pairs 5

rec-movie, one exclusion a turn. `--ask scored` (the candidates' titles are scored), `constrained` (one of them is
written, nothing else can be) or `thinking` (at most `--tokens` are written a turn). transformers computes in the type
that it takes by itself on this machine; `--type` is how the GGUF file stores the weights. `our_tokens`, of a list, are
what it writes or scores: each takes a pass over the file's weights, `weights_mb`, but for what labels begin alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from pairs import compare, in_turn
from r1ranker.assets import fetch_model
from r1ranker.datasets import load_dataset
from r1ranker.llm.base import LLM
from r1ranker.llm.export import TYPES, export_gguf
from r1ranker.llm.llamacpp import LlamaCppLLM
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.rankers import IRanker
from r1ranker.rollout import rank_all
from r1ranker.types import RankingExample, Sampling, Trace

ASKS: dict[str, dict[str, Any]] = {
    "scored": {"thinking": False},
    "constrained": {"thinking": False, "constrained": True},
    "thinking": {"thinking": True},
}


def timed(
    llm: LLM, ranker: IRanker, examples: list[RankingExample], tokens: int
) -> tuple[Callable[[], float], list[Trace]]:
    """Ranks the next list each time; the traces gather."""
    traces: list[Trace] = []

    def run() -> float:
        example = examples[len(traces) % len(examples)]
        begin = time.perf_counter()
        traces.extend(rank_all(ranker, [example], llm, Sampling(max_tokens=tokens)))
        return time.perf_counter() - begin

    return run, traces


def main() -> None:
    """Export the model, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--ask", choices=ASKS, default="scored")
    parser.add_argument("--layout", choices=("rebuild", "append"), default="rebuild")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    args = parser.parse_args()
    examples = load_dataset("rec-movie").test[: args.pairs + 1]
    folder = fetch_model(args.model)
    with tempfile.TemporaryDirectory() as scratch:
        file = export_gguf(folder, Path(scratch) / "model.gguf", type=args.type)
        weights_mb = round(file.stat().st_size / 1e6)
        ours = LlamaCppLLM(file, slots=1)
        theirs = TransformersLLM.load(folder)
        ranker = IRanker(parameters=theirs.parameters, layout=args.layout, **ASKS[args.ask])
        (run_ours, our_traces), (run_theirs, their_traces) = (
            timed(llm, ranker, examples, args.tokens) for llm in (ours, theirs)
        )
        times = in_turn(run_ours, run_theirs, args.pairs)
    same = [
        a.excluded == b.excluded
        for one, other in zip(our_traces, their_traces, strict=True)
        for a, b in zip(one.turns, other.turns, strict=True)
        if a.remaining == b.remaining
    ]
    dtype = str(next(theirs.model.parameters()).dtype).removeprefix("torch.")
    same_share = round(sum(same) / len(same), 3)
    name = f"llamacpp_{args.ask}_{args.type}"
    tokens = round(fmean(trace.usage.completion_tokens for trace in our_traces))
    facts = {"same_exclusions": same_share, "our_tokens": tokens, "weights_mb": weights_mb}
    compare(name, *times, layout=args.layout, dtype=dtype, **facts)


if __name__ == "__main__":
    main()

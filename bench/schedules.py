"""What a schedule costs and what it gives: the same model and the same lists, gone through in different ways.

    python bench/schedules.py --limit 100
    python bench/schedules.py --model runs/demo/model --candidates 100 --limit 20

For each schedule, per list: LLM calls; the longest chain of calls that wait for each other, as counted in the run (a
tournament's groups are asked side by side, and so are the candidates of `pointwise`, the first a step ahead); tokens
computed (read and not kept from an earlier turn, written or scored); seconds of wall time with `--concurrency` lists
under way; MRR and nDCG@10. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from r1ranker.datasets import load_dataset
from r1ranker.evaluation import per_query
from r1ranker.evaluation.harness import run_ranker
from r1ranker.prompted import Ranking, advance, one_ahead
from r1ranker.reranker import Reranker, with_settings
from r1ranker.schedules import ScheduledRanker
from r1ranker.types import RankingExample, Trace

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("one-shot (direct)", {"kind": "direct", "max_tokens": 512}),
    ("first step", {"kind": "first_step"}),
    ("first step, 2 orders", {"kind": "first_step", "orders": 2}),
    ("first step, 4 orders", {"kind": "first_step", "orders": 4}),
    ("pointwise", {"kind": "pointwise"}),
    ("exclude 1 (the paper)", {}),
    ("exclude 2", {"exclude_per_turn": 2}),
    ("exclude 5", {"exclude_per_turn": 5}),
    ("exclude half", {"exclude_per_turn": 0.5}),
    ("stop at 5", {"stop_at": 5}),
    ("window 10, stride 5", {"window": 10, "stride": 5}),
    ("window 10, stride 5, exclude half", {"window": 10, "stride": 5, "exclude_per_turn": 0.5}),
    ("tournament of 5", {"tournament": 5}),
    ("tournament of 5, exclude half", {"tournament": 5, "exclude_per_turn": 0.5}),
    ("tournament of 5, first step", {"tournament": 5, "kind": "first_step"}),
]


class Deep:
    """The ranker, and how often each of its rankings waited for the LLM."""

    def __init__(self, ranker: ScheduledRanker) -> None:
        self.ranker = ranker
        self.shown, self.text_budget = ranker.shown, ranker.text_budget
        self.depths: list[int] = []

    def rank(self, example: RankingExample) -> Ranking:
        """Rank the example as the driver does."""
        ranking, waits = one_ahead(self.ranker.rank(example)), 0
        step = advance(ranking)
        while not isinstance(step, Trace):
            waits += 1
            step = advance(ranking, (yield step))
        self.depths.append(waits)
        return step


def measure(name: str, reranker: Reranker, examples: Sequence[RankingExample], concurrency: int) -> dict[str, Any]:
    """One row; costs are means over the lists."""
    if prefixes := getattr(reranker.llm, "prefixes", None):
        prefixes.clear()  # what an earlier row left must not make this one cheaper
    ranker = Deep(reranker.ranker)
    traces, seconds = run_ranker(name, ranker, examples, reranker.llm, reranker.sampling, concurrency=concurrency)
    usages = [trace.usage for trace in traces]
    values = per_query({trace.example_id: trace.ranking for trace in traces}, examples)
    return {
        "schedule": name,
        "calls": fmean(u.calls for u in usages),
        "depth": fmean(ranker.depths),
        "tokens": fmean(u.prompt_tokens - u.cached_tokens + u.completion_tokens for u in usages),
        "seconds": seconds / len(examples),
        "MRR": fmean(values["MRR"]),
        "nDCG@10": fmean(values["nDCG@10"]),
    }


def main() -> None:
    """Measure every schedule and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--data", default="rec-movie")
    parser.add_argument("--source", type=Path, help="the data set's raw files, where they are not fetched")
    parser.add_argument("--candidates", type=int, help="candidates a list; the data set's own number without")
    parser.add_argument("--limit", type=int, default=100, help="test lists, the first ones")
    parser.add_argument("--layout", choices=("rebuild", "append"), default="rebuild")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--only", action="append", help="a row's name; repeat it for more")
    args = parser.parse_args()
    options = {} if args.candidates is None else {"candidates": args.candidates}
    examples = load_dataset(args.data, source=args.source, **options).test[: args.limit]
    loaded = Reranker.load(args.model, thinking=False, layout=args.layout)
    rows = []
    print(f"{args.model}, {args.data}, {len(examples)} lists, layout {args.layout}\n")
    print("| schedule | calls | depth | tokens computed | seconds | MRR | nDCG@10 |\n|---|---|---|---|---|---|---|")
    for name, settings in ROWS:
        if args.only and name not in args.only:
            continue
        reranker = Reranker(loaded.llm, with_settings(loaded.config, settings))
        row = measure(name, reranker, examples, args.concurrency)
        rows.append(row)
        print(
            f"| {name} | {row['calls']:.1f} | {row['depth']:.1f} | {row['tokens']:,.0f} | {row['seconds']:.2f} "
            f"| {row['MRR']:.3f} | {row['nDCG@10']:.3f} |",
            flush=True,
        )
    facts = {"model": args.model, "data": args.data, "lists": len(examples), "layout": args.layout}
    print("\n" + json.dumps({"bench": "schedules", **facts, "rows": rows}))


if __name__ == "__main__":
    main()

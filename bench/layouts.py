"""What a layout and a way to answer cost in quality: the same training for each, on the same lists.

    python bench/layouts.py --out docs/results/layouts.json                       # the demo's recipe, four times
    python bench/layouts.py --out try.json --only append/constrained --steps 2 --test 8

`rebuild` (the paper) lists anew what is left; `append` keeps the list and names what is excluded. `scored` compares
the mean log-probs of all labels; `constrained` trains the probability that a label is written where no other text can
be. Each is trained by the all-actions gradient without thinking and then ranks the held-out lists: by elimination, and
by its first step alone. A row that is already in the file is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1ranker.cli.mixing import load_examples
from r1ranker.cli.recipes import find_recipe
from r1ranker.config import RankerConfig, RunConfig, load_config
from r1ranker.evaluation import per_query
from r1ranker.evaluation.harness import run_ranker
from r1ranker.files import write_atomic
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.reranker import with_settings
from r1ranker.rl.policy import Policy
from r1ranker.rl.trainer import Trainer
from r1ranker.types import RankingExample, Sampling

WAYS = ("rebuild/scored", "append/scored", "rebuild/constrained", "append/constrained")


def measure(llm: TransformersLLM, config: RankerConfig, examples: Sequence[RankingExample]) -> dict[str, float]:
    """MRR on the lists, and what a list costs."""
    llm.prefixes.clear()
    traces, seconds = run_ranker("", config.build(llm.parameters), examples, llm, Sampling(max_tokens=64))
    values = per_query({t.example_id: t.ranking for t in traces}, examples)["MRR"]
    usages = [trace.usage for trace in traces]
    tokens = sum(u.prompt_tokens - u.cached_tokens + u.completion_tokens for u in usages)
    return {
        "MRR": round(sum(values) / len(values), 4),
        "tokens": round(tokens / len(traces)),
        "seconds": round(seconds / len(traces), 3),
    }


def one(config: RunConfig, limit: int) -> dict[str, Any]:
    """Train one way; returns its row."""
    data = load_examples(config)
    tests = data.test[:limit]
    policy = Policy.load(config.model, config.seed)
    first = with_settings(config.ranker, {"kind": "first_step"})
    before = measure(policy.llm, config.ranker, tests)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(config, policy, data.train, Path(folder)).run()
    seconds = time.perf_counter() - begin
    return {
        "lists": len(tests),
        "train_seconds": round(seconds),
        "base": before,
        "trained": measure(policy.llm, config.ranker, tests),
        "first_step": measure(policy.llm, first, tests),
    }


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--only", action="append", choices=WAYS)
    parser.add_argument("--set", action="append", default=[], dest="sets", help="key.sub=value of the recipe")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []
    for way in WAYS:
        if args.only and way not in args.only:
            continue
        asked = {"steps": args.steps, "asked_lists": args.test, "sets": args.sets}
        if known := next((row for row in rows if row["way"] == way), None):
            if odd := [key for key, value in asked.items() if known.get(key, value) != value]:
                parser.error(f"{args.out} has {way} with {odd[0]} = {known[odd[0]]}: take another --out")
            continue
        layout, answers = way.split("/")
        sets = [
            f"ranker.layout={layout}",
            f"ranker.constrained={str(answers == 'constrained').lower()}",
            f"train.steps={args.steps}",
            "train.checkpoint_every=1000000",
            *args.sets,
        ]
        rows.append({"way": way, **asked, **one(load_config(find_recipe("demo"), sets), args.test)})
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(args.out, json.dumps(rows, indent=1) + "\n")
        print(json.dumps(rows[-1]), flush=True)
    print("\n| way | base | trained | first step | tokens a list | training, s |\n|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['way']} | {r['base']['MRR']:.3f} | {r['trained']['MRR']:.3f} | {r['first_step']['MRR']:.3f} "
            f"| {r['trained']['tokens']} | {r['train_seconds']} |"
        )


if __name__ == "__main__":
    main()

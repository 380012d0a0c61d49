"""Which answer form does a small model learn? The same training for each form, on the same lists.

    python bench/answer_forms.py --data ../shared/data --out docs/results/answer_forms.json

For each scenario and form: the base model's MRR on held-out lists, and after `--steps` steps of the all-actions
gradient (IRanker, no thinking). A form that is already in the file is not run again. `--data` is a folder with the
raw files (rec_game_amazon/, router_nq6/, passage_selqa/); MovieLens is fetched.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from r1ranker.config import RunConfig, load_config
from r1ranker.datasets import Dataset, load_dataset
from r1ranker.evaluation import per_query
from r1ranker.evaluation.harness import random_row, run_ranker
from r1ranker.files import write_atomic
from r1ranker.rl.policy import Policy
from r1ranker.rl.trainer import Trainer
from r1ranker.types import Sampling

SHORT = {"history": 5, "candidates": 5, "target": "random", "test_users": 80, "examples_per_user": 2}
CASES: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = [
    ("passage-5", "passage_selqa", {}, ("id", "quote")),
    ("rec-movie", "", SHORT, ("id", "name")),
    ("rec-game", "rec_game_amazon", SHORT, ("id", "name", "quote")),
    ("router-balance", "router_nq6", {}, ("id", "name", "quote")),
]


def mean_rr(policy: Policy, config: RunConfig, data: Dataset, limit: int) -> float:
    """MRR on the first `limit` held-out lists."""
    examples = data.test[:limit]
    ranker = config.ranker.build(policy.llm.parameters)
    traces, _ = run_ranker("", ranker, examples, policy.llm, Sampling(max_tokens=64))
    values = per_query({t.example_id: t.ranking for t in traces}, examples)["MRR"]
    return sum(values) / len(values)


def one(config: RunConfig, data: Dataset, limit: int) -> dict[str, Any]:
    """Train one form; returns its row."""
    policy = Policy.load(config.model)
    before = mean_rr(policy, config, data, limit)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, policy, data.train, Path(folder))
        trainer.run()
        seconds = time.perf_counter() - begin
    after = mean_rr(policy, config, data, limit)
    return {"base": before, "trained": after, "train_seconds": round(seconds), "steps": config.train.steps}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--test", type=int, default=80)
    parser.add_argument("--only", action="append", help="a data set's name; repeat it for more")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []
    done = {(row["dataset"], row["form"]): row for row in rows}
    for name, folder, options, forms in CASES:
        if args.only and name not in args.only:
            continue
        data = load_dataset(name, source=args.data / folder if folder else None, **options)
        random = random_row(name, data.test[: args.test]).measures["MRR"]
        for form in forms:
            lists = min(args.test, len(data.test))
            asked = {"steps": args.steps, "test": lists, "states": args.states, "model": args.model}
            if known := done.get((name, form)):
                if odd := [key for key, value in asked.items() if known.get(key, value) != value]:
                    parser.error(f"{args.out} has {name}, {form} with {odd[0]} = {known[odd[0]]}: take another --out")
                continue
            sets = [
                f"model.path={args.model}",
                "model.frozen_layers=10",
                "ranker.thinking=false",
                f"ranker.answer_form={form}",
                "train.algorithm=all_actions",
                "train.kl_coef=0",
                "train.learning_rate=1e-4",
                "train.warmup_steps=5",
                f"train.steps={args.steps}",
                f"train.states_per_step={args.states}",
                "train.checkpoint_every=1000000",
            ]
            row = {"dataset": name, "form": form, "random": random, **asked}
            rows.append(row | one(load_config(None, sets), data, args.test))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(args.out, json.dumps(rows, indent=1) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    print("\n| data set | form | random | base | trained |\n|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['dataset']} | {r['form']} | {r['random']:.3f} | {r['base']:.3f} | {r['trained']:.3f} |")


if __name__ == "__main__":
    main()

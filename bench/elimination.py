"""Iterative ranking, ours against the straightforward loop: same model, precision, queries and batch, in turn.

    python bench/elimination.py --sizes 20                          # 8 queries at once, thinking off and on
    python bench/elimination.py --sizes 100 --kinds off --batch 1   # one query of 100 candidates
    python bench/elimination.py --alone                             # one query of 20 after another: percentiles
    python bench/elimination.py --growth                            # tokens for 10, 20, 50 and 100 candidates
    python bench/elimination.py --batch 2 --pairs 1                 # to see that it works

The loop rebuilds the prompt of every query each turn, lets transformers' `generate` read all of it and write greedily
(at most 16 tokens, with thinking 48) up to `</answer>`, all queries in step, and parses the reply with the same parser.
Ours is the `append` layout over kept prefixes: with thinking the reply is as free as the loop's; without, it is
constrained to the labels that are left ("off"), or all labels are scored ("scored"). A pair has queries of its own.

Tokens: those of prompts that were computed and those that were written (or scored), without padding. Positions: all
that went through the model, padding included. Films from MovieLens, histories of 20.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pairs import compare, in_turn
from r1ranker.assets import fetch_model
from r1ranker.datasets import load_dataset
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.prompted import Ranking
from r1ranker.rankers import IRanker
from r1ranker.rollout import rank_all
from r1ranker.types import Completion, Prompt, RankingExample, Request, Sampling, Trace

ANSWER, THOUGHT = 16, 32
"""Longest answer and longest thought, in tokens, where the reply is free."""
LABEL = 64
"""Longest label that is scored or held to; no more is read of it than it has."""
KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "off": ({"thinking": False, "constrained": True}, False),
    "scored": ({"thinking": False}, False),
    "thought": ({"thinking": True}, True),
}
"""How ours is asked, and whether there is a thought."""


@dataclass
class Side:
    """What one side computed since it was last set to zero."""

    tokens: int = 0
    positions: int = 0

    def watch(self, model: torch.nn.Module) -> None:
        """Count every position that goes through the model."""

        def count(_module: Any, args: Any, kwargs: Any) -> None:
            ids = kwargs.get("input_ids", args[0] if args else None)
            self.positions += ids.numel()

        model.register_forward_pre_hook(count, with_kwargs=True)

    def timed(self, work: Callable[[], int]) -> float:
        """Seconds of the work, which returns its tokens."""
        begin = time.perf_counter()
        self.tokens += work()
        return time.perf_counter() - begin


class Plain:
    """The straightforward loop."""

    def __init__(self, path: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.side = Side()
        self.side.watch(self.model.get_decoder())

    def run(self, examples: Sequence[RankingExample], *, thinking: bool) -> int:
        """Rank all examples in step; returns the tokens computed."""
        ranker, tokens = IRanker(thinking=thinking), 0
        waiting: list[tuple[Ranking, Request]] = []
        for example in examples:
            ranking = ranker.rank(example)
            waiting.append((ranking, next(ranking)))
        while waiting:
            prompts = [request.prompt for _, request in waiting]
            completions = self._generate(prompts, ANSWER + THOUGHT * thinking)
            tokens += sum(c.prompt_tokens + c.completion_tokens for c in completions)
            still = []
            for (ranking, _), completion in zip(waiting, completions, strict=True):
                try:
                    still.append((ranking, ranking.send(completion)))
                except StopIteration:
                    continue
            waiting = still
        return tokens

    @torch.no_grad()
    def _generate(self, prompts: Sequence[Prompt], new: int) -> list[Completion]:
        texts = []
        for prompt in prompts:
            messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
            chat = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            texts.append(chat + prompt.prefill)
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        out = self.model.generate(
            **batch,
            max_new_tokens=new,
            do_sample=False,
            stop_strings=["</answer>"],
            tokenizer=self.tokenizer,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        completions = []
        for ids, mask in zip(out[:, batch["input_ids"].shape[1] :], batch["attention_mask"], strict=True):
            written = int((ids != self.tokenizer.pad_token_id).sum())
            text = self.tokenizer.decode(ids[:written], skip_special_tokens=True)
            completions.append(Completion(text, prompt_tokens=int(mask.sum()), completion_tokens=written))
        return completions


class Ours:
    """This package."""

    def __init__(self, path: str) -> None:
        self.llm = TransformersLLM.load(path, device="cpu", dtype="float32", prefix_tokens=1 << 17)
        self.side = Side()
        self.side.watch(self.llm.model.get_decoder())

    def rank(self, examples: Sequence[RankingExample], kind: str) -> list[Trace]:
        """Rank all examples together, from scratch."""
        settings, thinking = KINDS[kind]
        self.llm.prefixes.clear()
        sampling = Sampling(max_tokens=ANSWER + THOUGHT if thinking else LABEL)
        ranker = IRanker(layout="append", **settings)
        return rank_all(ranker, examples, self.llm, sampling, concurrency=len(examples))

    def run(self, examples: Sequence[RankingExample], kind: str) -> int:
        """Rank them; returns the tokens computed."""
        return computed(self.rank(examples, kind))


def computed(traces: Sequence[Trace]) -> int:
    """Tokens that went through the model, or were drawn from it."""
    usages = [trace.usage for trace in traces]
    return sum(u.prompt_tokens - u.cached_tokens + u.completion_tokens for u in usages)


def films(candidates: int, limit: int) -> list[RankingExample]:
    """Queries with that many candidates."""
    return load_dataset("rec-movie", candidates=candidates, history=20).test[:limit]


def measure(ours: Ours, plain: Plain, kind: str, size: int, batch: int, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of both sides, each pair over the next `batch` queries; a short query warms both up."""
    examples, thinking = films(size, batch * pairs), KINDS[kind][1]
    if len(examples) < batch * pairs:
        raise SystemExit(f"{pairs} pairs of {batch} queries need {batch * pairs}; there are {len(examples)}")
    rounds = [films(3, 1), *(examples[k : k + batch] for k in range(0, len(examples), batch))]

    def side(watched: Side, run: Callable[[Sequence[RankingExample]], int]) -> Callable[[], float]:
        queue = iter(rounds)

        def timed() -> float:
            queries = next(queue)
            if queries is rounds[1]:  # what warmed up does not count
                watched.tokens = watched.positions = 0
            return watched.timed(partial(run, queries))

        return timed

    return in_turn(
        side(ours.side, partial(ours.run, kind=kind)), side(plain.side, partial(plain.run, thinking=thinking)), pairs
    )


def batched(ours: Ours, plain: Plain, kind: str, size: int, batch: int, pairs: int) -> None:
    """Several queries at once, on both sides."""
    times = measure(ours, plain, kind, size, batch, pairs)
    compare(f"elimination_{kind}_{size}", *times, batch=batch, queries=batch * pairs, **sides(ours.side, plain.side))


def sides(ours: Side, theirs: Side) -> dict[str, Any]:
    """What both computed in all pairs."""
    return {
        "token_ratio": round(theirs.tokens / ours.tokens, 2),
        "our_tokens": ours.tokens,
        "their_tokens": theirs.tokens,
        "position_ratio": round(theirs.positions / ours.positions, 2),
    }


def alone(ours: Ours, plain: Plain, size: int, pairs: int) -> None:
    """One query after another: a pair each, and percentiles over the queries."""
    a, b = measure(ours, plain, "off", size, 1, pairs)
    p50 = {"our_p50_ms": percentile(a, 0.5), "their_p50_ms": percentile(b, 0.5)}
    p95 = {"our_p95_ms": percentile(a, 0.95), "their_p95_ms": percentile(b, 0.95)}
    compare(f"elimination_alone_{size}", a, b, **p50, **p95, **sides(ours.side, plain.side))


def percentile(seconds: Sequence[float], share: float) -> int:
    """In ms: the value that this share of all does not exceed."""
    return round(1000 * sorted(seconds)[math.ceil(share * len(seconds)) - 1])


def growth(ours: Ours, kind: str, limit: int) -> None:
    """Tokens that a query takes, and the exponent of their growth with the number of candidates.

    The loop's are those of its prompts alone, counted along our exclusions.
    """
    sizes, mine, theirs = (10, 20, 50, 100), [], []
    ranker = IRanker(thinking=KINDS[kind][1])
    for size in sizes:
        examples = films(size, limit)
        traces = ours.rank(examples, kind)
        mine.append(computed(traces) / len(examples))
        lengths = [
            len(ours.llm.chat.encode(ranker.request(example, turn.remaining).prompt))
            for example, trace in zip(examples, traces, strict=True)
            for turn in trace.turns
        ]
        theirs.append(sum(lengths) / len(examples))
    line = {
        "bench": f"elimination_growth_{kind}",
        "ratio": round(theirs[-1] / mine[-1], 2),
        "ours": [round(x) for x in mine],
        "theirs": [round(x) for x in theirs],
        "candidates": sizes,
        "our_exponent": round(exponent(sizes, mine), 3),
        "their_exponent": round(exponent(sizes, theirs), 3),
        "queries": limit,
    }
    print(json.dumps(line), flush=True)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in values]).slope


def main() -> None:
    """Run what is asked for; one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="queries at once, in step on both sides")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=["off", "thought"])
    parser.add_argument("--alone", action="store_true", help="only one query after another: as many as there are pairs")
    parser.add_argument("--growth", action="store_true", help="only the growth with the number of candidates")
    args = parser.parse_args()
    path = str(fetch_model(args.model))
    ours = Ours(path)
    if args.growth:
        growth(ours, args.kinds[0], 4)
        return
    plain = Plain(path)
    if args.alone:
        alone(ours, plain, 20, args.pairs)
        return
    for size in args.sizes:
        for kind in args.kinds:
            batched(ours, plain, kind, size, args.batch, args.pairs)


if __name__ == "__main__":
    main()

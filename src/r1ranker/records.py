"""A ranking as plain JSON values: what `rank --json` writes, and what the server answers of a trace."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

from r1ranker.reranker import RankedDocument, RankResult
from r1ranker.types import Trace, Turn


def probabilities(turn: Turn, sharpness: float) -> dict[str, float]:
    """Candidate id -> probability of being excluded in this turn; empty where the model wrote freely."""
    factor = 1.0 if turn.request.answers else sharpness  # scored answers have log-probabilities already
    scores = [factor * value for value in turn.completion.choice_logprobs]
    if not scores:
        return {}
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return {i: weight / sum(weights) for i, weight in zip(turn.remaining, weights, strict=True)}


def chance_of_yes(turn: Turn) -> float | None:
    """How likely yes is against no, where a candidate was judged alone; None in other turns."""
    scores = turn.completion.choice_logprobs
    if (len(turn.remaining), len(scores)) != (1, 2):
        return None
    return (1 + math.tanh((scores[0] - scores[1]) / 2)) / 2


def statuses(trace: Trace) -> dict[str, int]:
    """How many turns have each parse status."""
    return dict(Counter(turn.parsed.status for turn in trace.turns))


def record(result: RankResult, sharpness: float | None) -> dict[str, Any]:
    """A result as plain JSON values; with a sharpness, also its trace."""
    row: dict[str, Any] = {
        "id": result.example.id,
        "ranking": list(result.trace.ranking),
        "results": [_told(ranked) for ranked in result],
        "usage": asdict(result.usage),
        "parse": statuses(result.trace),
        "truncated": result.trace.truncated,
        "cut_short": result.trace.cut_short,
    }
    if sharpness is not None:
        row["trace"] = [turn_record(turn, sharpness) for turn in result.trace.turns]
    return row


def _told(ranked: RankedDocument) -> dict[str, Any]:
    row = asdict(replace(ranked, document=None))
    del row["document"]  # an object of the caller's, and no JSON
    return row


def turn_record(turn: Turn, sharpness: float) -> dict[str, Any]:
    """A turn: what was left, what was excluded, and how likely each was, or the reply."""
    row: dict[str, Any] = {"remaining": list(turn.remaining), "status": turn.parsed.status}
    if turn.excluded_ids:
        row["excluded"] = turn.excluded if len(turn.excluded_ids) == 1 else list(turn.excluded_ids)
    if (yes := chance_of_yes(turn)) is not None:
        return row | {"yes": yes}
    if chances := probabilities(turn, sharpness):
        return row | {"probabilities": chances}
    return row | {"reply": turn.request.prompt.prefill + turn.completion.text}

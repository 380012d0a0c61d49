"""A ranking as a user reads it, and as JSON: the results, and every exclusion with its reason."""

from __future__ import annotations

import math
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from r1ranker.answers import one_line
from r1ranker.reranker import RankResult
from r1ranker.thoughts import context_of
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
        "results": [asdict(document) for document in result],
        "usage": asdict(result.usage),
        "parse": statuses(result.trace),
        "truncated": result.trace.truncated,
        "cut_short": result.trace.cut_short,
    }
    if sharpness is not None:
        row["trace"] = [_turn_record(turn, sharpness) for turn in result.trace.turns]
    return row


def _turn_record(turn: Turn, sharpness: float) -> dict[str, Any]:
    row: dict[str, Any] = {"remaining": list(turn.remaining), "status": turn.parsed.status}
    if turn.excluded_ids:
        row["excluded"] = turn.excluded if len(turn.excluded_ids) == 1 else list(turn.excluded_ids)
    if (yes := chance_of_yes(turn)) is not None:
        return row | {"yes": yes}
    if chances := probabilities(turn, sharpness):
        return row | {"probabilities": chances}
    return row | {"reply": turn.request.prompt.prefill + turn.completion.text}


def show(result: RankResult, sharpness: float | None, *, alone: bool) -> str:
    """The result as text, best first; with a sharpness, its trace comes before."""
    lines = [] if alone else [f"{result.example.id}: {_crop(context_of(result.example))}"]
    if sharpness is not None:
        for number, turn in enumerate(result.trace.turns, 1):
            lines += _turn_lines(result, turn, number, sharpness)
        nothing = "the budget allows no call" if result.trace.cut_short else "one candidate: nothing to exclude"
        lines.append("ranking, best first:" if result.trace.turns else nothing)
    width = len(str(len(result)))
    for document in result:
        lines.append(_crop(f"{document.rank:>{width}}. {_label(result, document.id)}"))
    return "\n".join(lines) + ("" if alone else "\n")


def _turn_lines(result: RankResult, turn: Turn, number: int, sharpness: float) -> list[str]:
    if (yes := chance_of_yes(turn)) is not None:
        title = ["each candidate's probability of yes, judged alone:"] if number == 1 else []
        return [*title, _crop(f"    {yes:6.1%}  {_label(result, turn.remaining[0])}")]
    chances = probabilities(turn, sharpness)
    scored = [_crop(f"    {chances[i]:6.1%}  {_label(result, i)}") for i in sorted(chances, key=lambda i: -chances[i])]
    if turn.excluded is None and chances:
        which = f" (pass {number} of {total})" if (total := len(result.trace.turns)) > 1 else ""
        return [f"each candidate's probability of being excluded{which}:", *scored]
    if turn.excluded is None:
        reply = turn.request.prompt.prefill + turn.completion.text
        return [f"the model's reply ({_status(turn)}):", *_indented(reply)]
    excluded = "; ".join(_label(result, i) for i in turn.excluded_ids)
    head = f"turn {number} of {len(result.trace.turns)}: excluded {excluded}"
    lines = [_crop(head, keep=f" ({_status(turn)})")]
    if chances:
        return lines + scored
    thought = turn.parsed.thought.strip()
    if thought:
        lines += _indented(thought)
    reply = turn.completion.text
    answer = reply.rpartition("<answer>")[2] if thought or "<answer>" in reply else reply
    if turn.parsed.status != "exact" and answer.strip() != thought:
        lines += ["    the answer as it stands:", *_indented(answer)]
    return lines


def _status(turn: Turn) -> str:
    """What came of the reply, in words; a scored choice has none."""
    words = {
        "exact": "exact",
        "repaired": "repaired: the answer was recovered",
        "defaulted": "defaulted: the answer names no candidate",
        "failed": "failed: there is no answer",
    }
    cut = ", cut at --max-tokens" if turn.completion.finish == "length" else ""
    return words[turn.parsed.status] + cut


def _label(result: RankResult, candidate_id: str) -> str:
    """[id] text; candidates without an id of their own are called by their index."""
    text = next(c.text for c in result.example.candidates if c.id == candidate_id)
    return f"[{candidate_id}] {one_line(text)}"


def _indented(text: str) -> list[str]:
    return [f"    {line.strip()}" for line in text.strip().splitlines() if line.strip()] or ["    (nothing)"]


def _crop(text: str, keep: str = "") -> str:
    """A text on one line of the terminal; whole where the output goes elsewhere."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    if len(text) + len(keep) <= width:
        return text + keep
    return text[: max(10, width - len(keep) - 1)].rstrip() + "…" + keep

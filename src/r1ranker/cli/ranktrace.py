"""A ranking as a user reads it: the results, and every exclusion with its reason."""

from __future__ import annotations

import shutil
import sys

from r1ranker.answers import one_line
from r1ranker.records import chance_of_yes, probabilities
from r1ranker.reranker import RankResult
from r1ranker.thoughts import context_of
from r1ranker.types import Turn


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

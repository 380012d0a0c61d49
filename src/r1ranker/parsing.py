"""Completion -> ParsedAnswer: the one parser for training, evaluation and serving.

It never guesses: a text that fits two candidates, or none, names no candidate. What it recovers is
marked `repaired`, so that the tables can say how often that was needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1ranker.answers import continues, normalise
from r1ranker.types import ParsedAnswer, ParseStatus

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_THOUGHT = re.compile(r"<think>(.*?)(?:</think>|<answer>|$)", re.DOTALL)
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d{1,4}[.):]|\[\d{1,4}\])\s+")
_MIN_PART = 4
"""Characters, once normalised, that a part of a label must have to stand for the label."""


def _layout(reply: str, thinking: bool) -> tuple[bool, int]:
    """Whether the reply has the asked layout and nothing else, and how many tags are missing or repeated."""
    tags = _TAGS if thinking else _TAGS[2:]
    wrong = sum(reply.count(tag) != 1 for tag in tags)
    pattern = r"\s*<think>.*</think>\s*<answer>.*</answer>\s*" if thinking else r"\s*<answer>.*</answer>\s*"
    return wrong == 0 and re.fullmatch(pattern, reply, re.DOTALL) is not None, wrong


def _answer_text(reply: str) -> tuple[str, bool]:
    """The text of the answer, and whether both of its tags stand around it."""
    _, opened, rest = reply.rpartition("<answer>")
    if opened:
        text, closed, _ = rest.partition("</answer>")
        return text.strip(), bool(closed)
    _, thought_closed, rest = reply.partition("</think>")
    return (rest.replace("</answer>", "").strip(), False) if thought_closed else ("", False)


def find_label(text: str, labels: Sequence[str]) -> tuple[int, bool] | None:
    """The one label that `text` names, as (index, letter for letter), or None if there is none or several.

    In turn: the label itself; the label but for the number that tells it from one that differs in punctuation
    ("C++ (2)" beside "C"); the label but for case, spacing and punctuation; the one label that stands inside the
    text; the one label that the text is a part of, or (without spaces) that either begins.
    """
    text = text.strip()
    for k, label in enumerate(labels):
        if text == label:
            return k, True
    key = normalise(text)
    if not key:
        return None
    keys = [normalise(label) for label in labels]
    if key in keys:
        names = {f"{text} ({n})" for n in range(2, len(labels) + 1)}
        numbered = [k for k, label in enumerate(labels) if label in names]
        return numbered[0] if len(numbered) == 1 else keys.index(key), False
    inside = _labels_in_order(text, labels)
    if inside:
        return (inside[0], False) if len(inside) == 1 else None
    around = [k for k, label in enumerate(keys) if len(key) >= _MIN_PART and f" {key} " in f" {label} "]
    around = around or [
        k
        for k, label in enumerate(labels)
        if continues(text, label) or (len(key) >= _MIN_PART and continues(label, text))
    ]
    return (around[0], False) if len(around) == 1 else None


def parse_choice(reply: str, labels: Sequence[str], ids: Sequence[str], *, thinking: bool) -> ParsedAnswer:
    """Parse a reply that names one candidate.

    reply: the prompt's prefill and the completion together.
    labels, ids: of the candidates that stand to choice, in the same order.
    """
    well_formed, wrong_tags = _layout(reply, thinking)
    text, closed = _answer_text(reply)
    found = find_label(text, labels)
    thought = _thought(reply)
    if found is None:
        return ParsedAnswer("defaulted" if text else "failed", (), thought, wrong_tags, well_formed)
    index, exact = found
    status: ParseStatus = "exact" if exact and closed else "repaired"
    return ParsedAnswer(status, (ids[index],), thought, wrong_tags, well_formed)


def parse_ranking(
    reply: str, labels: Sequence[str], ids: Sequence[str], *, thinking: bool, count: int | None = None
) -> ParsedAnswer:
    """Parse a reply that lists candidates, as they are asked for: one a line, or several on one line.

    count: how many labels are asked for; None: all. `exact` is so many, each once, one a line, and nothing
    else. Lines that name no candidate are passed over and a candidate counts where it is first named; both
    make the answer `repaired`.
    """
    well_formed, wrong_tags = _layout(reply, thinking)
    text, closed = _answer_text(reply)
    lines = [line for line in text.splitlines() if line.strip()]
    named: list[int] = []
    all_exact = closed and len(lines) == (len(labels) if count is None else count)
    for line in lines:
        found = find_label(line, labels)
        if found is None or not found[1]:
            all_exact = False
            found = find_label(_LIST_MARK.sub("", line), labels) or found
        if found is None:
            named += [k for k in _labels_in_order(line, labels) if k not in named]
        elif found[0] not in named:
            named.append(found[0])
        else:
            all_exact = False
    thought = _thought(reply)
    if not named:
        return ParsedAnswer("defaulted" if text else "failed", (), thought, wrong_tags, well_formed)
    chosen = tuple(ids[k] for k in named)
    return ParsedAnswer("exact" if all_exact else "repaired", chosen, thought, wrong_tags, well_formed)


def _labels_in_order(line: str, labels: Sequence[str]) -> list[int]:
    """Labels that stand whole in a line, in the order in which they first stand there ("a > b > c").

    Inside a longer label ("Toy Story 2") a shorter one ("Toy Story") does not count; it does where it stands alone.
    """
    text = f" {normalise(line)} "
    places = []
    for k, label in enumerate(labels):
        key = f" {normalise(label)} "
        at = text.find(key) if key.strip() else -1
        while at >= 0:
            places.append((at, -(at + len(key)), k))
            at = text.find(key, at + 1)
    found: dict[int, None] = {}
    covered = 0
    for _, minus_end, k in sorted(places):
        if -minus_end > covered:
            covered = -minus_end
            found[k] = None
    return list(found)


def _thought(reply: str) -> str:
    match = _THOUGHT.search(reply)
    return match.group(1).strip() if match else ""

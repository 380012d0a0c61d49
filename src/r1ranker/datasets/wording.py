"""The fixed wording around what varies in prompts that others have rendered: learned from them, and read back.

A prompt is taken to be: wording, a query or a history, wording, the candidates, wording. How the lists look
is known per scenario; the wording itself is whatever the prompts have in common.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import MappingProxyType

from r1ranker.types import Scenario

_AGREE = 0.9  # the share of prompts that must begin (or end) alike: a few odd ones do not spoil what is learned


@dataclass(frozen=True)
class Problem:
    """What varies in a prompt.

    labels: what each candidate is called there, in the order listed: a number (recommendation), the LLM's
        name, or "passage 3".
    """

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    query: str = ""
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Style:
    """How a list of candidates is written: opening, label mark text, between, label mark text, ..., closing."""

    label: re.Pattern[str]
    mark: str
    opening: str
    between: str
    closing: str

    def write(self, labels: Sequence[str], texts: Sequence[str]) -> str:
        items = self.between.join(f"{label}{self.mark}{text}" for label, text in zip(labels, texts, strict=True))
        return f"{self.opening}{items}{self.closing}"

    def labels_at(self, prompt: str, place: int, texts: Sequence[str]) -> tuple[str, ...] | None:
        """The labels, if a list of just these texts begins at `place`."""
        labels = []
        before = self.opening
        for text in texts:
            if not prompt.startswith(before, place):
                return None
            match = self.label.match(prompt, place + len(before))
            if match is None or not prompt.startswith(self.mark + text, match.end()):
                return None
            labels.append(match[0])
            place, before = match.end() + len(self.mark + text), self.between
        return tuple(labels) if prompt.startswith(self.closing, place) else None


_NUMBERED = _Style(re.compile(r"\d+"), ". ", "['", "', '", "']")  # no quote in a title is escaped
_STYLES: Mapping[Scenario, _Style] = MappingProxyType(
    {"recommendation": _NUMBERED, "passage": _Style(re.compile(r"passage \d+"), ": ", "", "\n", "")}
)


@dataclass(frozen=True)
class Wording:
    """The fixed wording of one task: before, between and after the two parts that vary."""

    scenario: Scenario
    start: str
    middle: str
    end: str

    def render(self, problem: Problem) -> str:
        """The prompt for a problem."""
        return f"{self.start}{_context(problem)}{self.middle}{_write(self.scenario, problem)}{self.end}"

    def parse(self, prompt: str, texts: Sequence[str]) -> Problem | None:
        """The problem that a prompt with these candidates states; None unless it renders to just that prompt."""
        if (found := _locate(self.scenario, prompt, texts)) is None:
            return None
        before, labels = found
        context = before[len(self.start) : len(before) - len(self.middle)]
        if self.scenario == "recommendation":
            problem = Problem(labels, tuple(texts), history=_history(context))
        else:
            problem = Problem(labels, tuple(texts), query=context)
        return problem if context.strip() and self.render(problem) == prompt else None


def learn_wording(scenario: Scenario, prompts: Sequence[tuple[str, Sequence[str]]]) -> Wording | None:
    """The wording that most of the prompts (each with its candidates' texts) share.

    None where it cannot be told from what varies: there are fewer than two different queries, or no list of
    candidates is found in the prompts.
    """
    befores: dict[str, None] = {}
    ends: Counter[str] = Counter()
    for prompt, texts in prompts:
        if (found := _locate(scenario, prompt, texts)) is not None:
            before, labels = found
            befores[before] = None
            ends[prompt[len(before) + len(_write(scenario, Problem(labels, tuple(texts)))) :]] += 1
    if not befores:
        return None
    end = ends.most_common(1)[0][0]
    if scenario == "recommendation":
        pairs = Counter(pair for before in befores if (pair := _around_history(before)) is not None)
        return Wording(scenario, *pairs.most_common(1)[0][0], end) if pairs else None
    if len(befores) < 2:
        return None
    start = _shared_start(list(befores))
    middle = _shared_start([before[::-1] for before in befores])[::-1]
    # What is shared may run on into the queries ("wh" of "what" and "who", a question mark): give that back.
    while start and start[-1].isalnum():
        start = start[:-1]
    while middle and (middle[0].isalnum() or middle[0] == "?"):
        middle = middle[1:]
    return Wording(scenario, start, middle, end)


def _context(problem: Problem) -> str:
    if problem.history:
        return _NUMBERED.write([str(number) for number in range(len(problem.history))], problem.history)
    return problem.query


def _write(scenario: Scenario, problem: Problem) -> str:
    if scenario == "routing":
        return repr(list(problem.texts))
    return _STYLES[scenario].write(problem.labels, problem.texts)


def _locate(scenario: Scenario, prompt: str, texts: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    """(what stands before the candidates, their labels) of the last list of just these texts in the prompt."""
    if scenario == "routing":
        place = prompt.rfind(repr(list(texts)))
        return None if place < 0 else (prompt[:place], tuple(texts))
    style = _STYLES[scenario]
    anchor = style.opening or "passage "
    place = prompt.rfind(anchor)
    while place >= 0:
        if (labels := style.labels_at(prompt, place, texts)) is not None:
            return prompt[:place], labels
        place = prompt.rfind(anchor, 0, place + len(anchor) - 1)
    return None


def _around_history(before: str) -> tuple[str, str] | None:
    """The wording on both sides of a history, the list whose numbers count up from 0."""
    first, last = before.find("['0. "), before.rfind("']")
    return None if first < 0 or last < first else (before[:first], before[last + 2 :])


def _history(block: str) -> tuple[str, ...]:
    """The items of "['0. one', '1. two']"; whatever is none of this shape does not render back to itself."""
    items: list[str] = []
    rest = block.removeprefix("['0. ").removesuffix("']")
    while True:
        item, between, rest = rest.partition(f"', '{len(items) + 1}. ")
        items.append(item)
        if not between:
            return tuple(items)


def _shared_start(texts: list[str]) -> str:
    """The longest beginning that at least _AGREE of the texts share."""
    ordered = sorted(texts)
    size = max(2, math.ceil(_AGREE * len(ordered) - 1e-9))
    # Sorted texts: what the first and the last of some neighbours share, all of them share.
    return max((_common(*pair) for pair in zip(ordered, ordered[size - 1 :], strict=False)), key=len)


def _common(one: str, other: str) -> str:
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))

"""The wording of every prompt: templates from a TOML file, filled in for one turn of one example.

The order is fixed: what stays the same over the turns of a ranking comes first (system, context,
candidates), what changes comes last, so that a backend can keep the common prefix.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Literal

from r1ranker.answers import AnswerForm, item_type, one_line
from r1ranker.errors import ConfigError
from r1ranker.fit import shorten
from r1ranker.types import Prompt, RankingExample, Thought

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Layout = Literal["rebuild", "append"]
"""`rebuild` (the paper): each turn lists the candidates that are left. `append`: the list stays whole and
the turn names what is already excluded, so the long prefix is the same in every turn."""

THINK, ANSWER = "<think>", "<answer>"
CONTEXT_BYTES, EXCLUDED_BYTES, THOUGHT_BYTES = 300, 100, 600
"""What is shown of another case: of its context, of what was excluded, and of the thought."""
_NUMBER = re.compile(r" \(\d+\)$")
_QUERY, _GOAL = (re.compile(rf"\$(?:{name}\b|\{{{name}\}})") for name in ("query", "goal"))
THOUGHT_TOKENS = 512
"""Tokens kept free for a thought that is shown: two bytes a token, which is little in any script."""


@dataclass(frozen=True, slots=True)
class PromptTemplates:
    """Wording by section and key; the sections and keys are those of `templates/default.toml`."""

    sections: Mapping[str, Mapping[str, str]]

    @classmethod
    def default(cls) -> PromptTemplates:
        """The wording that ships with the package."""
        return _default()

    @classmethod
    def load(cls, path: Path) -> PromptTemplates:
        """A user's own wording: the keys a file leaves out keep their default.

        Raises ConfigError for a file that is not TOML, or a section or key that does not exist.
        """
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
        sections = {name: dict(keys) for name, keys in _default().sections.items()}
        for name, keys in given.items():
            if name not in sections or not isinstance(keys, dict):
                raise ConfigError(f"{path}: there is no section [{name}]; there are {', '.join(sections)}")
            for key, text in keys.items():
                if key not in sections[name]:
                    raise ConfigError(f"{path}: [{name}] has no key '{key}'; it has {', '.join(sections[name])}")
                sections[name][key] = str(text)
        return cls(sections)

    def text(self, section: str, key: str, **values: object) -> str:
        """A template with its placeholders filled in once: text that comes in is never filled in again.

        Raises ConfigError for a placeholder that does not exist.
        """
        try:
            return Template(self.sections[section][key]).substitute({k: str(v) for k, v in values.items()})
        except (KeyError, ValueError) as error:
            known = ", ".join(f"${name}" for name in values)
            raise ConfigError(
                f"the wording [{section}] {key} has a placeholder that does not exist ({error}); "
                f"it may use {known}, and a dollar sign is $$"
            ) from error


@cache
def _default() -> PromptTemplates:
    raw: dict[str, Any] = tomllib.loads(
        files("r1ranker").joinpath("templates/default.toml").read_text(encoding="utf-8")
    )
    return PromptTemplates({section: dict(keys) for section, keys in raw.items()})


def _candidate_line(example: RankingExample, index: int, label: str, form: AnswerForm) -> str:
    candidate = example.candidates[index]
    text = one_line(candidate.text)
    name = one_line(candidate.name or "")
    own = _NUMBER.sub("", label)
    begins = form == "quote" or (form == "name" and name in ("", text))
    if begins and text.startswith(label):
        return text
    if form == "name" and text == name and text in ("", own):
        return label
    if begins and text != own and text.startswith(own):
        return f"{label}: {text.removeprefix(own).lstrip()}"  # what two long texts begin with stands in the label
    return f"{label}: {text}"


def build_prompt(
    templates: PromptTemplates,
    example: RankingExample,
    labels: Sequence[str],
    remaining: Sequence[str],
    *,
    ranker: Literal["iterative", "direct"],
    thinking: bool,
    form: AnswerForm,
    layout: Layout = "rebuild",
    count: int = 1,
    excluded: Sequence[str] | None = None,
    thoughts: Sequence[Thought] = (),
) -> Prompt:
    """The prompt of one turn.

    labels: one a candidate of the whole example, in its order.
    remaining: the ids that are left, a subset of the example's.
    count: how many are to be named in an iterative turn.
    excluded: the other ids in the order in which they were excluded, so that with `append` a prompt only grows
        from turn to turn; None lists them in the example's order (a training state is a set and has no other).
    thoughts: of other cases, shown first of all; with none the prompt says nothing of them.
    """
    item = item_type(example)
    left = set(remaining)
    shown = example.ids if layout == "append" else [i for i in example.ids if i in left]
    lines = [_candidate_line(example, k, labels[k], form) for k, i in enumerate(example.ids) if i in set(shown)]
    gone = [i for i in example.ids if i not in left] if excluded is None else excluded
    note = ""
    if layout == "append" and gone:
        label_of = dict(zip(example.ids, labels, strict=True))
        note = "\n\n" + templates.text("turn", "excluded", item=item, excluded="\n".join(label_of[i] for i in gone))
    wording = "several" if count > 1 else ranker
    question = templates.text(example.scenario, wording, item=item, count=count)
    if example.presorted:
        question = f"{question} {templates.text('turn', 'presorted', item=item)}"
    how = templates.text("answer", f"{wording}_{form}", item=item, n=len(left), count=count)
    user = templates.text(
        "turn",
        "user",
        context=_context(templates, example),
        candidates="\n".join(lines),
        excluded=note,
        question=question,
        how=how,
    )
    if thoughts:
        user = f"{_shown(templates, item, thoughts)}\n\n{user}"
    system = templates.text("system", "thinking" if thinking else "no_thinking", item=item)
    return Prompt(system=system, user=user, prefill=THINK if thinking else ANSWER)


def build_judgement(templates: PromptTemplates, example: RankingExample, candidate_id: str) -> Prompt:
    """The prompt that shows one candidate alone, at its end, and asks whether it is a good one: yes or no."""
    item = item_type(example)
    candidate = next(c for c in example.candidates if c.id == candidate_id)
    name, text = one_line(candidate.name or ""), one_line(candidate.text)
    yes, no = (templates.text("answer", word) for word in ("yes", "no"))
    user = templates.text(
        "turn",
        "pointwise",
        context=_context(templates, example),
        candidate=f"{name}: {text}" if name and name != text else text,
        question=templates.text(example.scenario, "pointwise", item=item),
        how=templates.text("answer", "pointwise", item=item, yes=yes, no=no),
    )
    return Prompt(system=templates.text("system", "no_thinking", item=item), user=user, prefill=ANSWER)


def _shown(templates: PromptTemplates, item: str, thoughts: Sequence[Thought]) -> str:
    """Thoughts of other cases, the nearest one last: beside the case they are to help with."""
    cases = [
        templates.text(
            "turn",
            "thought",
            item=item,
            context=_brief(thought.context, CONTEXT_BYTES),
            excluded=_brief(thought.excluded, EXCLUDED_BYTES),
            thought=_brief(thought.thought, THOUGHT_BYTES),
        )
        for thought in reversed(thoughts)
    ]
    return templates.text("turn", "thoughts", item=item, thoughts="\n\n".join(cases))


def _brief(text: str, most: int) -> str:
    """The text on one line, cut at a word's end where it takes more than `most` bytes."""
    line = one_line(text)
    return line if _bytes(line) <= most else shorten(line, most, _bytes)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8"))


def _context(templates: PromptTemplates, example: RankingExample) -> str:
    """The query, the history, or both, which every turn begins with."""
    item, query = item_type(example), one_line(example.query)
    history = "\n".join(one_line(h) for h in example.history)
    if example.scenario == "routing":
        goal = _goal(templates, example)
        return templates.text("routing", "context", item=item, query=query, history=history, goal=goal)
    if example.scenario == "passage":
        return templates.text("passage", "context", item=item, query=query, history=history)
    # Another wording than ours may have a place of its own for the query.
    if query and not example.history and not _QUERY.search(templates.sections["recommendation"]["context"]):
        return templates.text("recommendation", "request", item=item, query=query)
    asked = templates.text("recommendation", "asked", item=item, query=query) if query else ""
    return templates.text("recommendation", "context", item=item, query=query, history=history, asked=asked)


def _goal(templates: PromptTemplates, example: RankingExample) -> str:
    """How the query is to be answered, in the list's words or else the template's.

    Raises ConfigError where the list has words of its own and the template no place for them.
    """
    goal = one_line(example.goal)
    if goal and not _GOAL.search(templates.sections["routing"]["context"]):
        raise ConfigError(
            f"example '{example.id}' has a goal, and the wording [routing] context no place for it: write $goal there"
        )
    return goal or templates.text("routing", "goal")

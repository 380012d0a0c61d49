"""Examples as JSON lines: how users bring their own lists, and how examples are saved.

One object a line:

    {id?, scenario?, query | history | context, candidates: [text | {id?, text, name?, title?}],
     relevance?: {id: grade}, group?, item_type?, presorted?, unlisted?: {id: grade},
     achieved?: {id: {effect, cost?}}, goal?}

`context` is another word for either: a text is a query, a list of texts a history. Both together are what a user
chose and asks for now. `documents` is another word for the candidates, `_id` (BEIR's) for a candidate's id, and a
`title` is read before its text. `presorted` is true where the
candidates stand in the order of an earlier ranking, best first; `unlisted` are relevant documents that it missed;
`achieved` says in routing how good and how dear each LLM was, and `goal` how the query is to be answered.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from r1ranker.errors import InputError
from r1ranker.files import open_text, write_atomic
from r1ranker.types import Achieved, Candidate, RankingExample, Scenario

_KEYS = (
    "id",
    "scenario",
    "query",
    "history",
    "context",
    "candidates",
    "documents",
    "relevance",
    "group",
    "item_type",
    "presorted",
    "unlisted",
    "achieved",
    "goal",
)

_OTHER_IDS = ("doc_id", "docid", "document_id", "pid", "item_id", "ID")
"""What others call an id: without a word the candidate would be called by its place."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no example: where it stands (from 1) and what is wrong with it."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def read_examples(path: Path) -> tuple[list[RankingExample], list[BadLine]]:
    """Read examples, one a line (plain or .gz); lines that cannot be used are returned beside the good ones.

    An example without an id is called by its line number, a candidate without one by its place from 1 (in routing by
    its name or text, which tells an LLM from list to list; `relevance` may still say its place).
    Raises InputError where the file as a whole cannot be read.
    """
    examples: list[RankingExample] = []
    bad: list[BadLine] = []
    seen: dict[str, int] = {}
    with open_text(path, errors="surrogateescape") as lines:  # a line that is no UTF-8 is a bad line, not a bad file
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                if any("\udc80" <= character <= "\udcff" for character in line):
                    raise InputError("not UTF-8 text: save it as UTF-8")
                example = example_from_dict(decode(line), default_id=str(number))
                if example.id in seen:
                    raise InputError(f"the id '{example.id}' is also that of line {seen[example.id]}; ids must differ")
            except InputError as error:
                bad.append(BadLine(str(path), number, str(error)))
                continue
            seen[example.id] = number
            examples.append(example)
    return examples, bad


def write_examples(path: Path, examples: Iterable[RankingExample]) -> None:
    """Write examples so that `read_examples` returns them as they are. Raises R1RankerError if it cannot."""
    rows = (json.dumps(example_to_dict(e) | _told(e), ensure_ascii=False) + "\n" for e in examples)
    write_atomic(path, "".join(rows))


def example_to_dict(example: RankingExample) -> dict[str, Any]:
    """An example as plain JSON values; empty fields are left out, and what reports alone read (`achieved`)."""
    candidates = [
        {"id": c.id, "text": c.text} | ({} if c.name is None else {"name": c.name}) for c in example.candidates
    ]
    row: dict[str, Any] = {"id": example.id, "scenario": example.scenario}
    for key in ("query", "group", "item_type", "goal"):
        if value := getattr(example, key):
            row[key] = value
    if example.history:
        row["history"] = list(example.history)
    if example.presorted:
        row["presorted"] = True
    row["candidates"] = candidates
    if example.relevance:
        row["relevance"] = {key: float(grade) for key, grade in example.relevance.items()}
    if example.unlisted:
        row["unlisted"] = {key: float(grade) for key, grade in example.unlisted.items()}
    return row


def _told(example: RankingExample) -> dict[str, Any]:
    told = {key: {k: v for k, v in asdict(a).items() if v is not None} for key, a in example.achieved.items()}
    return {"achieved": told} if told else {}


def example_from_dict(row: Any, *, default_id: str = "1") -> RankingExample:
    """The example that a JSON object describes (see the module's text). Raises InputError naming the key."""
    if not isinstance(row, dict):
        raise InputError(f"an example is an object with 'candidates', not {_kind(row)}")
    for key in row:
        # A misspelt key would otherwise vanish without a word; unrelated keys are the user's own.
        if key not in _KEYS and (near := difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.8)):
            raise InputError(f"unknown key '{key}': did you mean '{near[0]}'?")
    query, history = _context(row)
    scenario = _given(row, "scenario", "recommendation" if history else "passage")
    if scenario not in get_args(Scenario):
        raise InputError(f"scenario is {scenario!r}; it must be one of {', '.join(get_args(Scenario))}")
    if not isinstance(presorted := _given(row, "presorted", False), bool):
        raise InputError(f"'presorted' must be true or false, not {_kind(presorted)}")
    listed = row.get("documents") if row.get("candidates") is None else row["candidates"]
    if not isinstance(listed, list):
        raise InputError(f"'candidates' must be a list, not {_kind(listed)}")
    candidates = tuple(_candidate(item, place) for place, item in enumerate(listed, 1))
    relevance = _grades("relevance", _given(row, "relevance", {}))
    achieved = _achieved(_given(row, "achieved", {}))
    if scenario == "routing":
        named, places = _called_by_name(listed, candidates)
        relevance = {places.get(key, key): grade for key, grade in relevance.items()}
        candidates, achieved = named, {places.get(key, key): value for key, value in achieved.items()}
    return RankingExample(
        id=_name(row, "id", default_id),
        scenario=scenario,
        candidates=candidates,
        query=query,
        history=history,
        relevance=relevance,
        unlisted=_grades("unlisted", _given(row, "unlisted", {})),
        group=_name(row, "group", ""),
        item_type=_name(row, "item_type", ""),
        presorted=presorted,
        achieved=achieved,
        goal=_name(row, "goal", ""),
    )


def decode(line: str) -> Any:
    """The JSON value of a line. Raises InputError for anything that is none, or that no UTF-8 file can hold."""
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair would crash a tokenizer later
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON ({error})") from error
    return value


def _context(row: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    query, history = _given(row, "query", ""), _given(row, "history", [])
    if row.get("context") is not None:
        if query or history:
            raise InputError("'context' stands beside 'query' or 'history': give only one of them")
        context = row["context"]
        query, history = ("", context) if isinstance(context, list) else (context, [])
    if not isinstance(query, str):
        raise InputError(f"the query must be a text, not {_kind(query)}")
    if not isinstance(history, list) or not all(isinstance(item, str) for item in history):
        raise InputError("the history must be a list of texts")
    if not query.strip() and not history:
        raise InputError("there is no context: give 'query' (a text) or 'history' (a list of texts)")
    return query, tuple(history)


def _candidate(item: Any, place: int) -> Candidate:
    if isinstance(item, str):
        return Candidate(str(place), item)
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise InputError(f"candidate {place} must be a text or an object with a 'text'")
    key = "_id" if item.get("id") is None else "id"
    if item.get(key) is None and (other := next((k for k in item if k in _OTHER_IDS), "")):
        raise InputError(f"candidate {place} has '{other}' and no 'id': call it 'id'")
    text = f"{_name(item, 'title', '')} {item['text']}".strip() if item.get("title") else item["text"]
    return Candidate(_name(item, key, str(place)), text, _name(item, "name", "") or None)


def _called_by_name(
    listed: Sequence[Any], candidates: tuple[Candidate, ...]
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """LLMs without an id are called by their name, or a plain text; where that tells no two apart, by their place.

    Also what is meant where another key says a place: place -> id.
    """
    nameless = [isinstance(item, str) or (item.get("id") is None and item.get("_id") is None) for item in listed]
    called = [
        (c.name or (c.text if isinstance(item, str) else c.id)) if own else c.id
        for item, c, own in zip(listed, candidates, nameless, strict=True)
    ]
    if len(set(called)) < len(called):
        return candidates, {}
    places = {c.id: key for c, key in zip(candidates, called, strict=True) if c.id not in called}
    named = tuple(replace(c, id=key) for c, key in zip(candidates, called, strict=True))
    return named, places


def _given(row: dict[str, Any], key: str, default: Any) -> Any:
    """The key's value; the default where it is absent or null, as exports of tables have what is missing."""
    value = row.get(key)
    return default if value is None else value


def _name(row: dict[str, Any], key: str, default: str) -> str:
    """A text or a whole number (ids often are), as text; the default where the key is absent or null."""
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"'{key}' must be a text, not {_kind(value)}")
    return str(value)


def _grades(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise InputError(f"'{name}' must be an object from candidate ids to grades, not {_kind(value)}")
    for key, grade in value.items():
        if isinstance(grade, bool) or not isinstance(grade, (int, float)):
            raise InputError(f"the grade of '{key}' must be a number, not {_kind(grade)}")
    try:
        return {key: float(grade) for key, grade in value.items()}
    except OverflowError as error:
        raise InputError(f"'{name}' holds a grade that is too large for a number") from error


def _achieved(value: Any) -> dict[str, Achieved]:
    if not isinstance(value, dict):
        raise InputError(f"'achieved' must be an object from candidate ids to effects and costs, not {_kind(value)}")
    found = {}
    for key, told in value.items():
        numbers = told if isinstance(told, dict) else {"effect": told}
        effect, cost = numbers.get("effect"), numbers.get("cost")
        for what, number in (("effect", effect), ("cost", 0 if cost is None else cost)):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < math.inf:
                raise InputError(f"the {what} of '{key}' must be a number, not {_kind(number)}")
        found[key] = Achieved(float(effect or 0), None if cost is None else float(cost))
    return found


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")

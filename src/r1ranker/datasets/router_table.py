"""What LLMs achieved on queries: GraphRouter's long table, and LLMRouter's JSON lines with a file of LLMs."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1ranker.datasets.base import json_lines, normalise, note
from r1ranker.errors import InputError
from r1ranker.files import open_text

# An estimate of a query's cost where the source has none: tokens a word of English, and tokens of a reply.
TOKENS_PER_WORD = 4 / 3
REPLY_TOKENS = 256

_COLUMNS = ("query", "llm", "effect")
_LONGEST_CELL = 1 << 27  # responses may be longer than csv's own limit of 131,072 characters


@dataclass
class RoutedQuery:
    """One query and what came of it; effects, costs: LLM -> number. Costs may be missing for some LLMs or all.

    split: the source's own side of it, where it tells one.
    """

    key: str
    query: str
    effects: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    split: str = ""


@dataclass(frozen=True)
class LLMInfo:
    """What is known of an LLM. prices: dollars per million tokens of (prompt, reply), where both are given."""

    description: str
    prices: tuple[float, float] | None = None


def read_router_table(path: Path, notes: list[str]) -> list[RoutedQuery]:
    """Read GraphRouter's long table, a row for each query and LLM (CSV with a header, plain or .gz).

    Needs the columns query, llm and effect; cost, q_id (else a query is told by its text) and task_id are used where
    they are there, and split, the source's own side of a query; others are ignored.
    Raises InputError with file and line for a missing column, an LLM without a name, a value that is no finite number,
    a cost below 0, or no rows.
    """
    queries: dict[str, RoutedQuery] = {}
    repeated = 0
    for line, row in _rows(path):
        key = ":".join(part for part in (row.get("task_id"), row.get("q_id") or row["query"]) if part)
        query = queries.setdefault(key, RoutedQuery(key, row["query"], split=row.get("split", "")))
        if query.query != row["query"]:
            raise InputError(f"{path}:{line}: q_id {row['q_id']!r} is also that of another query: make q_ids unique")
        if not row["llm"].strip():
            raise InputError(f"{path}:{line}: the LLM has no name: fill it in or drop the row")
        repeated += row["llm"] in query.effects
        query.effects.setdefault(row["llm"], _number(path, line, row, "effect"))
        if "cost" in row:
            cost = _number(path, line, row, "cost")
            if cost < 0:
                raise InputError(f"{path}:{line}: the cost of {row['llm']!r} is {cost:g}; it must be >= 0")
            query.costs.setdefault(row["llm"], cost)
    if not queries:
        raise InputError(f"{path} has a header but no rows: check that the download is complete")
    note(notes, repeated, "rows dropped whose query and LLM stand further up")
    return list(queries.values())


def read_router_scores(path: Path, notes: list[str]) -> list[RoutedQuery]:
    """Read LLMRouter's JSON lines, `{split, task, metric, query, scores: {llm: score}}` (plain or .gz).

    There are no costs in it. `metric` is ignored, `task` may be missing; a query is called by
    its task and line. Raises InputError with file and line for a malformed line, or no lines.
    """
    queries = []
    sides: dict[str, set[str]] = {}
    for number, row in json_lines(path):
        try:
            query = _scored(row, number)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}: repair or remove the line") from error
        queries.append(query)
        sides.setdefault(normalise(query.query), set()).add(str(row.get("split")))
    both = sum(len(splits) > 1 for splits in sides.values())
    note(notes, both, "queries stand in several of the source's own splits")
    return queries


def read_llms(path: Path) -> dict[str, LLMInfo]:
    """LLM name -> what is known of it, from a JSON object of descriptions or of objects.

    An object has a `feature` (the description) and may have `input_price` and `output_price`, in dollars per
    million tokens, as LLMRouter's llm_candidates.json has. Raises InputError for anything else.
    """
    with open_text(path) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            raise InputError(f"{path}:{line}: not valid JSON ({getattr(error, 'msg', error)}): repair it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object from LLM names to descriptions")
    llms = {}
    for name, value in content.items():
        known = value if isinstance(value, dict) else {"feature": value}
        if not isinstance(text := known.get("feature"), str):
            raise InputError(f"{path}: the description of '{name}' is not a text: give a text or {{'feature': text}}")
        llms[name] = LLMInfo(text, _prices(known, f"{path}: input_price and output_price of '{name}'"))
    return llms


def estimate_costs(queries: list[RoutedQuery], prices: Mapping[str, tuple[float, float]]) -> None:
    """Fill in the costs, in dollars, of the LLMs that have prices (see LLMInfo).

    A prompt is taken to have TOKENS_PER_WORD tokens a word, and every reply REPLY_TOKENS, whatever the LLM.
    """
    for query in queries:
        prompt = TOKENS_PER_WORD * len(query.query.split())
        for llm in query.effects:
            if llm in prices:
                price, reply_price = prices[llm]
                query.costs[llm] = (price * prompt + reply_price * REPLY_TOKENS) / 1e6


def _prices(known: Mapping[str, Any], what: str) -> tuple[float, float] | None:
    prices: list[Any] = [known.get(key) for key in ("input_price", "output_price")]
    if prices == [None, None]:
        return None
    prompt, reply = (float(price) if _finite(price) else -1.0 for price in prices)
    if min(prompt, reply) < 0:
        raise InputError(f"{what} are {prices[0]!r} and {prices[1]!r}: give both, in dollars per million tokens")
    return prompt, reply


def _scored(row: Any, number: int) -> RoutedQuery:
    if not isinstance(row, dict) or not isinstance(row.get("query"), str) or not isinstance(row.get("scores"), dict):
        raise InputError("no 'query' (a text) and 'scores' (an object from LLMs to numbers)")
    for llm, score in row["scores"].items():
        if not _finite(score):
            raise InputError(f"the score of {llm!r} is {score!r}; it must be a finite number")
    task = row.get("task")
    scores = {llm: float(score) for llm, score in row["scores"].items()}
    return RoutedQuery(
        f"{task}:{number}" if task else str(number), row["query"], scores, split=str(row.get("split") or "")
    )


def _finite(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of the line on which the row ends, column -> text)."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with open_text(path, newline="") as lines:
            reader = csv.reader(lines, strict=True)
            columns = next(reader, None)
            if columns is None:
                raise InputError(f"{path} is empty: check that the download is complete")
            missing = [column for column in _COLUMNS if column not in columns]
            if missing:
                raise InputError(
                    f"{path}:1: no column {', '.join(missing)} in the header ({', '.join(columns)}): "
                    "give GraphRouter's long table as CSV with a header"
                )
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise InputError(
                        f"{path}:{reader.line_num}: {len(cells)} cells where the header has {len(columns)}: "
                        "repair the row"
                    )
                yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not valid CSV ({error}): repair the row") from error
    finally:
        csv.field_size_limit(limit)


def _number(path: Path, line: int, row: Mapping[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{path}:{line}: {column} of {row['llm']!r} is {row[column]!r}; it must be a finite number: "
            "fill it in or drop the row"
        )
    return value

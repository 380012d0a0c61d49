"""GraphRouter's long table (a row for each query and LLM) -> routing examples: which LLM should answer?

Source: R1-Ranker (arXiv 2506.21638) on GraphRouter's data: the positive is the argmax of
effect_weight * effect - cost_weight * cost, with weights 1/0, 0.5/0.5 and 0.2/0.8. Unlike its code, queries
are split before anything is expanded, and LLMs that tie are all positive unless asked otherwise.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from r1ranker.datasets.base import Dataset, normalise, note, split_groups
from r1ranker.errors import InputError
from r1ranker.files import open_text
from r1ranker.types import Candidate, RankingExample

_COLUMNS = ("q_id", "query", "llm", "effect", "cost")
_LONGEST_CELL = 1 << 27  # responses may be longer than csv's own limit of 131,072 characters
_TIE = 1e-12


@dataclass
class RoutedQuery:
    """One query of the table; outcomes: LLM -> (effect, cost)."""

    key: str
    query: str
    outcomes: dict[str, tuple[float, float]] = field(default_factory=dict)


def read_router_table(path: Path) -> tuple[list[RoutedQuery], int]:
    """Read the table (CSV with a header, plain or .gz): its queries, and how many repeated rows were dropped.

    Needs the columns q_id, query, llm, effect, cost; task_id is used where it is there, others are ignored.
    Raises InputError with file and line for a missing column, a value that is no finite number, or no rows.
    """
    queries: dict[str, RoutedQuery] = {}
    repeated = 0
    for line, row in _rows(path):
        key = ":".join(part for part in (row.get("task_id"), row["q_id"]) if part)
        query = queries.setdefault(key, RoutedQuery(key, row["query"]))
        if query.query != row["query"]:
            raise InputError(f"{path}:{line}: q_id '{row['q_id']}' is also that of another query: make q_ids unique")
        outcome = (_number(path, line, row, "effect"), _number(path, line, row, "cost"))
        repeated += row["llm"] in query.outcomes
        query.outcomes.setdefault(row["llm"], outcome)
    if not queries:
        raise InputError(f"{path} has a header but no rows: check that the download is complete")
    return list(queries.values()), repeated


def read_descriptions(path: Path) -> dict[str, str]:
    """LLM name -> description, from a JSON object of texts or of objects with a `feature` (as in LLMRouter)."""
    with open_text(path) as file:
        try:
            content = json.load(file)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg}): repair it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object from LLM names to descriptions")
    texts: dict[str, Any] = {key: v.get("feature") if isinstance(v, dict) else v for key, v in content.items()}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise InputError(f"{path}: the description of '{key}' is not a text: give a text or {{'feature': text}}")
    return texts


def build_routing(
    path: Path,
    *,
    name: str,
    effect_weight: float = 1.0,
    cost_weight: float = 0.0,
    ties: Literal["set", "first"] = "set",
    descriptions: Mapping[str, str] | Path | str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """One example a query: the LLMs as candidates (shuffled), the best of them relevant with grade 1.

    An LLM's score is effect_weight * effect - cost_weight * cost, with the cost scaled to 0..1 by the
    smallest and the largest cost of the whole table, so that both weigh on the same scale.

    ties: "set" makes all LLMs with the best score relevant; "first" only the one that stands first in the
        table's order of LLMs (a single label, as in the paper).
    descriptions: what the model reads of an LLM, by its full name or the part after the last "/"; or a JSON
        file of them (see read_descriptions). Without one: its name and its mean cost on the train queries.
    Queries with the same text (case and spacing aside) stay on one side of the split. A query that lacks an
    LLM's row is ranked over those it has. Raises InputError for a table or numbers that cannot be used.
    """
    if ties not in ("set", "first"):
        raise InputError(f"ties is '{ties}'; it must be set or first")
    if min(effect_weight, cost_weight) < 0 or effect_weight == cost_weight == 0:
        raise InputError(f"the weights are {effect_weight} and {cost_weight}: give numbers >= 0, not both 0")
    table, repeated = read_router_table(path)
    llms = list(dict.fromkeys(llm for query in table for llm in query.outcomes))
    usable = [query for query in table if len(query.outcomes) > 1]
    if not usable:
        raise InputError(f"{path}: no query has rows of two LLMs, so there is nothing to rank")

    costs = [cost for query in table for _, cost in query.outcomes.values()]
    lowest, span = min(costs), (max(costs) - min(costs)) or 1.0

    def best(query: RoutedQuery) -> list[str]:
        scores = {
            llm: effect_weight * query.outcomes[llm][0] - cost_weight * (query.outcomes[llm][1] - lowest) / span
            for llm in llms
            if llm in query.outcomes
        }
        top = [llm for llm, score in scores.items() if score >= max(scores.values()) - _TIE]
        return top if ties == "set" else top[:1]

    groups: dict[str, list[RoutedQuery]] = {}
    for query in usable:
        groups.setdefault(normalise(query.query), []).append(query)
    train_groups, test_groups = split_groups(groups, test_fraction=test_fraction, rng=random.Random(f"{seed}:split"))
    train = [query for group in train_groups for query in groups[group]]
    if isinstance(descriptions, (str, Path)):
        descriptions = read_descriptions(Path(descriptions))
    texts = _describe(llms, train, descriptions or {})

    def example(query: RoutedQuery) -> RankingExample:
        listed = [llm for llm in llms if llm in query.outcomes]
        random.Random(f"{seed}:query:{query.key}").shuffle(listed)
        return RankingExample(
            id=f"{name}:query:{query.key}",
            scenario="routing",
            candidates=tuple(texts[llm] for llm in listed),
            query=query.query,
            relevance=dict.fromkeys(best(query), 1.0),
            group=normalise(query.query),
            item_type="LLM",
        )

    notes: list[str] = []
    note(notes, repeated, "rows dropped whose query and LLM stand further up")
    note(notes, len(table) - len(usable), "queries with rows of fewer than 2 LLMs dropped")
    note(
        notes,
        sum(len(q.outcomes) < len(llms) for q in usable),
        f"queries lack rows of some of the {len(llms)} LLMs",
    )
    note(notes, len(usable) - len(groups), "queries repeat another one's text and were split together with it")
    note(
        notes,
        sum(len(best(q)) == len(q.outcomes) for q in usable),
        "queries kept on which all LLMs tie as best",
    )
    return Dataset(
        name=name,
        train=tuple(map(example, train)),
        test=tuple(example(query) for group in test_groups for query in groups[group]),
        popularity=dict(Counter(llm for query in train for llm in best(query))),
        notes=tuple(notes),
    )


def _describe(llms: list[str], train: list[RoutedQuery], given: Mapping[str, str]) -> dict[str, Candidate]:
    """The candidate for each LLM; its name is what follows the last "/" where that is unambiguous."""
    short = {llm: llm.rsplit("/", 1)[-1] for llm in llms}
    times = Counter(short.values())
    candidates = {}
    for llm in llms:
        label = short[llm] if times[short[llm]] == 1 else llm
        costs = [query.outcomes[llm][1] for query in train if llm in query.outcomes]
        cost = f", about {sum(costs) / len(costs):.3g} cost units a query" if costs else ""
        text = given.get(llm) or given.get(short[llm]) or f"{label}{cost}"
        candidates[llm] = Candidate(llm, text, label)
    return candidates


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of the line on which the row ends, column -> text)."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with open_text(path, newline="") as lines:
            reader = csv.reader(lines, strict=True)
            columns = next(reader, [])
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
            f"{path}:{line}: {column} of '{row['llm']}' is '{row[column]}'; it must be a finite number: "
            "fill it in or drop the row"
        )
    return value

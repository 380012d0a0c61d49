"""A bank of thoughts: what a ranker reasoned before it rightly excluded a candidate, to be shown to other LLMs.

arXiv 2506.21638 records thoughts in training and gives those of similar queries to a model as templates.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from r1ranker.answers import normalise, one_line
from r1ranker.datasets.jsonl import decode
from r1ranker.errors import InputError, MissingExtraError
from r1ranker.files import open_text, write_atomic
from r1ranker.rewards import exclusion_reward, exclusion_values
from r1ranker.types import RankingExample, Scenario, Thought, Trace, Turn

PER_QUERY = 2
"""Thoughts of one query that a bank keeps."""


@dataclass(frozen=True, eq=False)
class ThoughtBank:
    """Thoughts, and how the nearest ones are found.

    Nearness is the BM25 score (as in `baselines/bm25.py`) of a thought's context for the example's, among the
    thoughts of the same scenario; a term's rarity is judged among these.
    """

    thoughts: tuple[Thought, ...]
    _indexes: dict[Scenario, tuple[tuple[Thought, ...], Any]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def read(cls, path: Path) -> ThoughtBank:
        """A bank that `save` wrote (or several, one after another), plain or gzipped.

        Raises InputError naming the file, and the line that holds no thought.
        """
        thoughts = []
        with open_text(path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    thoughts.append(_thought(decode(line)))
                except InputError as error:
                    raise InputError(
                        f"{path}:{number}: {error}; take the line out, or record the bank again"
                    ) from error
        if not thoughts:
            raise InputError(f"{path} holds no thoughts: record some with  r1ranker thoughts record")
        return cls(tuple(thoughts))

    def save(self, path: Path) -> None:
        """Write the bank as JSON lines. Raises R1RankerError where it cannot."""
        write_atomic(path, "".join(json.dumps(asdict(t), ensure_ascii=False) + "\n" for t in self.thoughts))

    def nearest(self, example: RankingExample, k: int) -> tuple[Thought, ...]:
        """At most `k` thoughts, the nearest first; of equally near ones the earlier one.

        Never one of this example, nor of another with the same context (a query may stand in several data sets), nor
        one whose context shares no word with it. Raises MissingExtraError without bm25s.
        """
        context = normalise(context_of(example))
        thoughts, index = self._index(example.scenario)
        if index is None or not (words := context.split()):
            return ()
        scores = index.get_scores(words)
        near = sorted(scores.nonzero()[0].tolist(), key=lambda i: -scores[i])
        others = (
            thoughts[i]
            for i in near
            if thoughts[i].example_id != example.id and normalise(thoughts[i].context) != context
        )
        return tuple(islice(others, k))

    def _index(self, scenario: Scenario) -> tuple[tuple[Thought, ...], Any]:
        """The scenario's thoughts and bm25s' index of their contexts; None in its place if these have no word."""
        if scenario not in self._indexes:
            thoughts = tuple(t for t in self.thoughts if t.scenario == scenario)
            self._indexes[scenario] = (thoughts, _bm25([normalise(t.context).split() for t in thoughts]))
        return self._indexes[scenario]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A bank, and how it came about: turns that were looked at, and how many were left out, by the reason."""

    bank: ThoughtBank
    turns: int
    left_out: Mapping[str, int]


def record(ranked: Iterable[tuple[RankingExample, Trace]], model: str, per_query: int = PER_QUERY) -> Recorded:
    """A bank of the thoughts in these traces that led to right exclusions.

    A turn counts whose reply is well formed, and whose exclusions all earn the full reward where others would have
    earned less. Of one query `per_query` are kept at most, those with the fewest candidates left: there chance helps
    least. A thought that stands in the bank of its scenario already is left out.

    model: what the thoughts' source is called.
    """
    kept: list[Thought] = []
    seen: set[tuple[str, str]] = set()
    queries: Counter[tuple[str, str]] = Counter()
    left_out: Counter[str] = Counter()
    turns = 0
    for example, trace in ranked:
        query = (example.scenario, normalise(context_of(example)))
        for turn in sorted(trace.turns, key=lambda turn: len(turn.remaining)):
            turns += 1
            thought = (example.scenario, normalise(turn.parsed.thought))
            if reason := _unfit(example, turn):
                left_out[reason] += 1
            elif thought in seen:
                left_out["repeated"] += 1
            elif queries[query] == per_query:
                left_out[f"beyond {per_query} of a query"] += 1
            else:
                seen.add(thought)
                queries[query] += 1
                kept.append(_kept(example, turn, model))
    return Recorded(ThoughtBank(tuple(kept)), turns, dict(left_out))


def context_of(example: RankingExample) -> str:
    """What thoughts are found by: the query, the history's entries, or both."""
    return "; ".join(one_line(text) for text in (example.query, *example.history) if text.strip())


def _unfit(example: RankingExample, turn: Turn) -> str:
    """Why a turn's thought is not to be kept; empty if it is."""
    parsed = turn.parsed
    if not (parsed.well_formed and parsed.ids and normalise(parsed.thought)):
        return "not well formed, or without a thought"
    values = dict(zip(turn.remaining, exclusion_values(example.relevance, turn.remaining), strict=True))
    if min(values.values()) == 1.0:
        return "no exclusion could be wrong"
    return "" if all(values[i] == 1.0 for i in parsed.ids) else "wrong exclusion"


def _kept(example: RankingExample, turn: Turn, model: str) -> Thought:
    names = {c.id: one_line(c.called) for c in example.candidates}
    return Thought(
        example_id=example.id,
        scenario=example.scenario,
        context=context_of(example),
        thought=one_line(turn.parsed.thought),
        excluded="; ".join(names[i] for i in turn.parsed.ids),
        reward=exclusion_reward(turn.parsed, example.relevance, turn.remaining).total,
        model=model,
    )


def _thought(row: Any) -> Thought:
    """The thought that a JSON object describes. Raises InputError naming the key."""
    keys = [f.name for f in fields(Thought)]
    if not isinstance(row, dict) or set(row) != set(keys):
        raise InputError(f"a thought is an object with the keys {', '.join(keys)}")
    for key in keys:
        if key != "reward" and not isinstance(row[key], str):
            raise InputError(f"'{key}' must be a text")
    if isinstance(row["reward"], bool) or not isinstance(row["reward"], (int, float)):
        raise InputError("'reward' must be a number")
    if row["scenario"] not in get_args(Scenario):
        raise InputError(f"scenario is '{row['scenario']}'; it must be one of {', '.join(get_args(Scenario))}")
    return Thought(**row)


def _bm25(texts: list[list[str]]) -> Any:
    """bm25s' index of tokenized texts; None where there is no word: it divides by their average length."""
    if not any(texts):
        return None
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError("A bank of thoughts", "bm25s", "eval") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index it builds
    index = bm25s.BM25(method="lucene")
    index.index(texts, show_progress=False)
    return index

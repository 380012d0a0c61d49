"""Results kept by content: the same ranker on the same lists is never asked twice, also after a kill.

A file holds one ranker's results, one line a chunk of lists that were ranked together. A line is written when its
chunk is finished, so a run that was stopped at any moment repeats at most one chunk. And since a chunk is always
ranked as a whole, what a model computes in one batch is the same whether the run was stopped or not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1ranker.datasets import example_to_dict
from r1ranker.errors import InputError, R1RankerError
from r1ranker.evaluation import Outcome
from r1ranker.files import write_problem
from r1ranker.fingerprints import digest
from r1ranker.types import RankingExample


@dataclass(frozen=True, slots=True)
class Chunk:
    """What came of some lists: an outcome each, the seconds they took and the operations they cost together.

    notes: what the LLM's backend told, such as a setting that a server refuses.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float
    flops: float = 0.0
    notes: tuple[str, ...] = ()


def chunk_key(identity: Mapping[str, Any], seed: int, examples: Sequence[RankingExample]) -> str:
    """The key of a chunk: everything that decides what comes out.

    Relevance is no part of it, so grades can be corrected without asking again.
    """
    lists = [example_to_dict(replace(e, unlisted={})) | {"relevance": None, "group": None} for e in examples]
    return digest([dict(identity), seed, lists])


class ResultCache:
    """The results of one ranker in the folder `folder`; `identity` is what tells it from others.

    broken: lines that could not be read and are passed over; a kill in mid-line leaves one.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.identity = dict(identity)
        self.path = folder / f"{digest(self.identity)[:16]}.jsonl"
        self.broken = 0
        self._known: dict[str, Chunk] = {}
        self._read()

    def get(self, seed: int, examples: Sequence[RankingExample]) -> Chunk | None:
        """The chunk if it is known."""
        return self._known.get(chunk_key(self.identity, seed, examples))

    def put(self, seed: int, examples: Sequence[RankingExample], chunk: Chunk) -> None:
        """Keep a chunk; on disk when this returns. Raises R1RankerError where it cannot be written."""
        key = chunk_key(self.identity, seed, examples)
        row = {
            "key": key,
            "seconds": chunk.seconds,
            "flops": chunk.flops,
            "notes": chunk.notes,
            "outcomes": [outcome.to_dict() for outcome in chunk.outcomes],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # After a kill the last line may lack its end.
                start = b"\n" if file.tell() and not self._ends_with_newline() else b""
                file.write(start + json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise R1RankerError(write_problem(self.path, error)) from error
        self._known[key] = chunk

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            raise InputError(f"cannot read {self.path} ({error.strerror or error}): check the path") from error
        for line in filter(None, lines):
            try:
                row = json.loads(line)
                outcomes = tuple(map(Outcome.from_dict, row["outcomes"]))
                self._known[row["key"]] = Chunk(outcomes, row["seconds"], row["flops"], tuple(row["notes"]))
            except (ValueError, KeyError, TypeError, InputError):
                self.broken += 1

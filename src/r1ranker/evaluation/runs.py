"""Rankings as TREC run files, beside the qrels that go with them: for trec_eval and other tools."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from r1ranker.datasets.trec_files import write_qrels, write_run
from r1ranker.errors import ConfigError, InputError
from r1ranker.types import RankingExample


def save_run(folder: Path, name: str, examples: Sequence[RankingExample], rankings: Mapping[str, Sequence[str]]) -> str:
    """Write `folder`/NAME.run and qrels.txt; returns why that cannot be, or nothing.

    examples: all that any run in this folder ranks, so that each is judged by the same qrels; runs that an earlier call
    with others left there are removed.
    rankings: example id -> candidate ids, best first, of all examples or some. Ids with white space cannot stand in a
    TREC file; such rankings are in the report alone.
    """
    qrels = folder / "qrels.txt"
    try:
        before = qrels.read_bytes() if qrels.exists() else b""
        write_qrels(qrels, examples)
        if qrels.read_bytes() != before:
            for old in folder.glob("*.run"):
                old.unlink()
        write_run(folder / f"{file_name(name)}.run", rankings, tag=file_name(name))
    except InputError as error:
        return f"no run file for '{name}': {error}"
    return ""


def file_name(name: str) -> str:
    """A row's name as a file's, in letters, digits, dots and hyphens."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "row"


def check_file_names(what: str, names: Iterable[str]) -> None:
    """Raises ConfigError for two names that would be one file; what: "rows" or "data sets"."""
    files: dict[str, str] = {}
    for name in names:
        if (other := files.setdefault(file_name(name), name)) != name:
            raise ConfigError(
                f"the {what} '{other}' and '{name}' would share their run files: tell their names further apart"
            )

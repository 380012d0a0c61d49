"""The official release of R1-Ranker's data, ulab-ai/Ranking-bench: its prompts, read back into examples.

Source: R1-Ranker (arXiv 2506.21638). `direct` has a list a row; `iterative` has a state a row, the positive and
some of the negatives. Each row is a rendered prompt with the columns problem, candidates, gt and task_name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from r1ranker.datasets.base import Dataset, normalise, note
from r1ranker.datasets.duplicates import near_duplicate_groups
from r1ranker.datasets.parquet import read_parquet
from r1ranker.datasets.wording import Problem, Wording, learn_wording
from r1ranker.errors import InputError
from r1ranker.files import open_text
from r1ranker.types import Candidate, RankingExample, Scenario

HUB_ID = "ulab-ai/Ranking-bench"
TASKS: Mapping[str, tuple[Scenario, str]] = MappingProxyType(
    {
        "Rec-Movie": ("recommendation", "movie"),
        "Rec-Music": ("recommendation", "album"),
        "Rec-Game": ("recommendation", "video game"),
        **{f"Router-{name}": ("routing", "LLM") for name in ("Performance", "Balance", "Cost")},
        **{f"Passage-{count}": ("passage", "passage") for count in (5, 7, 9)},
    }
)
"""Task -> (scenario, what a candidate is called)."""

_CONFIGURATIONS = ("direct", "iterative")
_COLUMNS = ("problem", "candidates", "gt", "task_name")
_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Row:
    """A row of the release, and where it stands ("file:row")."""

    where: str
    problem: str
    candidates: tuple[str, ...]
    gt: str
    task: str


def build_ranking_bench(
    source: Path,
    *,
    name: str,
    configuration: Literal["direct", "iterative"] = "direct",
    task: str | None = None,
    split: Literal["clean", "official"] = "clean",
    near_duplicates: float | None = 0.8,
) -> Dataset:
    """An example for each row that reads back exactly; a Dataset's `popularity` and `sequences` as elsewhere.

    source: a folder of .parquet or .jsonl files, or one of them. Files with `train` in their name, or in
        their folder's, are the train side, others the test side.
    configuration: which rows, told by the same names; where no name tells, all files are taken.
    task: one of TASKS; None takes all nine. Counts of best LLMs are only meaningful for one of them.
    split: the release tests on queries that it also trains on, above all in routing, where states rather than
        queries were divided. "clean" drops the train rows whose query (a near-duplicate too, see
        near_duplicate_groups) or history is tested; "official" keeps the split as it is, with no groups.
    The positives of a recommendation are all candidates with the title in `gt`. Rows that do not read back
    are dropped, and counted in the notes. Raises InputError for files or options that cannot be used.
    """
    if configuration not in _CONFIGURATIONS:
        raise InputError(f"configuration is '{configuration}'; it must be direct or iterative")
    if split not in ("clean", "official"):
        raise InputError(f"split is '{split}'; it must be clean or official")
    if task is not None and task not in TASKS:
        raise InputError(f"task is '{task}'; it must be one of {', '.join(TASKS)}")
    rows: dict[str, list[tuple[str, Row]]] = {}
    for side, path in find_files(source, configuration):
        for row in read_rows(path):
            if task in (None, row.task):
                rows.setdefault(row.task, []).append((side, row))
    notes: list[str] = []
    examples: dict[str, list[RankingExample]] = {"train": [], "test": []}
    for task_name, task_rows in rows.items():
        for side, example in _examples(name, task_name, task_rows, notes):
            examples[side].append(example)
    if not any(examples.values()):
        said = f" ({'; '.join(notes)})" if notes else ""
        raise InputError(f"{source}: no row of {task or 'any task'} can be read{said}: check that it is the release")
    train, test = _divide(examples["train"], examples["test"], split, near_duplicates, notes)
    asked = {(e.query, e.history) for e in test}
    note(notes, len(test) - len(asked), "test rows repeat a query or history, and count as independent in every test")
    sequences = tuple(dict.fromkeys((*e.history, *_positives(e)) for e in train if e.history))
    counts = Counter(title for sequence in sequences for title in dict.fromkeys(sequence))
    routed = {(e.query, *_positives(e)) for e in train if e.scenario == "routing"}
    counts.update(name for _, *best in routed for name in best)
    return Dataset(name=name, train=train, test=test, popularity=dict(counts), notes=tuple(notes), sequences=sequences)


def fetch_ranking_bench() -> Path:
    """The folder with the release's files, from the hub. Raises AssetError where it cannot be had."""
    from r1ranker.assets.hub import fetch_data_snapshot

    return fetch_data_snapshot(HUB_ID, [f"*{ending}" for ending in _ENDINGS], print)


def find_files(source: Path, configuration: str) -> list[tuple[str, Path]]:
    """(side, file) of the release below a folder, or of a single file. Raises InputError where there is none."""
    if source.is_file():
        return [(_side(source.name), source)]
    names = {
        path.relative_to(source).as_posix().lower(): path
        for path in sorted(source.rglob("*"))
        if path.name.endswith(_ENDINGS) and path.is_file()
    }
    told = {word: [n for n in names if word in n] for word in _CONFIGURATIONS}
    chosen = told[configuration] if any(told.values()) else list(names)
    if not chosen:
        others = f"; there is {' and '.join(w for w in told if told[w])}" if names else ""
        raise InputError(f"{source} holds no {configuration} {' or '.join(_ENDINGS)} file{others}: check the source")
    return [(_side(n), names[n]) for n in chosen]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .parquet or .jsonl file. Raises InputError with file and row for a malformed one."""
    for number, row in _raw_rows(path):
        where = f"{path}:{number}"
        problem, listed, gt, task = (row.get(column) for column in _COLUMNS)
        if isinstance(listed, str):  # a list as JSON text
            try:
                listed = json.loads(listed)
            except (ValueError, RecursionError):
                listed = None
        if not isinstance(listed, list) or not listed or not all(isinstance(text, str) for text in listed):
            raise InputError(f"{where}: 'candidates' must be a list of texts, or one as JSON: repair the row")
        if not isinstance(problem, str) or not isinstance(gt, str) or not isinstance(task, str):
            raise InputError(f"{where}: 'problem', 'gt' and 'task_name' must be texts: repair the row")
        yield Row(where, problem, tuple(listed), gt, task)


def _raw_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix == ".parquet":
        yield from read_parquet(path, _COLUMNS)
        return
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}:{number}: not valid JSON ({error}): repair or remove the line") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: not a JSON object: repair or remove the line")
                yield number, row


def _side(name: str) -> str:
    """By the file's own name, else by its folders'."""
    for part in reversed(name.lower().split("/")):
        words = re.split(r"[\W\d_]+", part)
        for side in ("train", "test"):
            if side in words:
                return side
    return "test"


def _examples(
    name: str, task: str, rows: list[tuple[str, Row]], notes: list[str]
) -> Iterator[tuple[str, RankingExample]]:
    """(side, example) for each row that reads back; the others are noted, the first one by its place."""
    unread: list[str] = []
    unlabelled: list[str] = []
    if task not in TASKS:
        note(notes, len(rows), f"rows of the unknown task '{task}' dropped, the first at {rows[0][1].where}")
        return
    scenario, item_type = TASKS[task]
    wording = learn_wording(scenario, [(row.problem, row.candidates) for _, row in rows])
    descriptions = _descriptions(wording, {text for _, row in rows for text in row.candidates})
    number = Counter[str]()
    for side, row in rows:
        number[side] += 1
        problem = wording.parse(row.problem, row.candidates) if wording else None
        candidates = _candidates(problem, scenario, descriptions) if problem else ()
        if problem is None or len({c.id for c in candidates}) < len(candidates):
            unread.append(row.where)
            continue
        keys = problem.texts if scenario == "recommendation" else problem.labels
        relevance = {c.id: 1.0 for c, key in zip(candidates, keys, strict=True) if key == row.gt}
        if not relevance:
            unlabelled.append(row.where)
            continue
        yield (
            side,
            RankingExample(
                id=f"{name}:{task}:{side}:{number[side]}",
                scenario=scenario,
                candidates=candidates,
                query=problem.query,
                history=problem.history,
                relevance=relevance,
                item_type=item_type,
            ),
        )
    for what, places in (("that do not read back", unread), ("whose gt is no candidate", unlabelled)):
        if places:
            note(notes, len(places), f"rows of {task} dropped {what}, the first at {places[0]}")


def _candidates(problem: Problem, scenario: Scenario, descriptions: Mapping[str, str]) -> tuple[Candidate, ...]:
    if scenario == "routing":
        return tuple(Candidate(text, descriptions.get(text, text), text) for text in problem.texts)
    if scenario == "passage":
        return tuple(map(Candidate, problem.labels, problem.texts))
    # Titles tell items apart over all lists, as numbers do not; only a title that stands twice gets its number.
    times = Counter(problem.texts)
    pairs = zip(problem.labels, problem.texts, strict=True)
    return tuple(Candidate(text if times[text] == 1 else f"{text} [{label}]", text) for label, text in pairs)


def _descriptions(wording: Wording | None, llms: Iterable[str]) -> dict[str, str]:
    """LLM -> what the wording before the query says of it, in a line "# name: description"."""
    found = {}
    if wording is not None and wording.scenario == "routing":
        for llm in llms:
            line = re.search(rf"^[ \t#]*{re.escape(llm)}:[ \t]*(\S.*?)[ \t]*$", wording.start, re.MULTILINE)
            if line:
                found[llm] = line[1]
    return found


def _positives(example: RankingExample) -> tuple[str, ...]:
    """The texts (of an LLM, the name) of the relevant candidates, each once."""
    return tuple(dict.fromkeys(c.called for c in example.candidates if example.grade(c.id) > 0))


def _divide(
    train: list[RankingExample],
    test: list[RankingExample],
    split: str,
    near_duplicates: float | None,
    notes: list[str],
) -> tuple[tuple[RankingExample, ...], tuple[RankingExample, ...]]:
    """Both sides, with groups and without leaks unless the split is to be the official one."""
    if split == "official":
        return tuple(train), tuple(test)
    queries = list(dict.fromkeys(e.query for e in (*train, *test) if e.query))
    group = dict(zip(queries, near_duplicate_groups(queries, near_duplicates), strict=True))

    def grouped(examples: list[RankingExample]) -> list[RankingExample]:
        return [replace(e, group=group[e.query] if e.query else normalise(" | ".join(e.history))) for e in examples]

    test = grouped(test)
    tested = {e.group for e in test}
    clean = [e for e in grouped(train) if e.group not in tested]
    note(notes, len(train) - len(clean), "train rows dropped: their query or history is tested too")
    return tuple(clean), tuple(test)

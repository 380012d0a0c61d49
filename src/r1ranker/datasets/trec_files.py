"""The files of retrieval experiments: TREC runs and qrels, BEIR's JSON lines and TSV. Plain or .gz."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from r1ranker.errors import InputError
from r1ranker.files import open_text, write_atomic
from r1ranker.types import RankingExample

_QRELS_LINES = "a line is 'query 0 document grade' (TREC) or 'query<TAB>document<TAB>grade' (BEIR)"


def read_run(path: Path) -> dict[str, list[str]]:
    """A TREC run (`query Q0 document rank score tag`) as query -> documents, best first.

    The order is trec_eval's: by score, compared in 32 bits, and where scores tie the alphabetically later
    document first. The rank column is ignored. Raises InputError with file and line for a malformed line.
    """
    scored: dict[str, dict[str, float]] = {}
    for where, line in _lines(path):
        cells = line.split()
        if len(cells) != 6:
            raise InputError(
                f"{where}: {len(cells)} columns; a run has 6 (query Q0 document rank score tag): repair it"
            )
        query, _, document, _, score, _ = cells
        documents = scored.setdefault(query, {})
        if document in documents:
            raise InputError(f"{where}: the run lists document '{document}' twice for query '{query}': remove one")
        documents[document] = ctypes.c_float(_number(where, "score", score)).value
    return {
        query: [document for _, document in sorted(((s, d) for d, s in documents.items()), reverse=True)]
        for query, documents in scored.items()
    }


def read_qrels(path: Path) -> dict[str, dict[str, float]]:
    """Judgements as query -> document -> grade; negative grades are returned as they are.

    Reads TREC's four columns (`query 0 document grade`) and BEIR's three, separated by tabs, below a header.
    Raises InputError with file and line for a malformed line.
    """
    grades: dict[str, dict[str, float]] = {}
    for number, (where, line) in enumerate(_lines(path)):
        cells = line.split("\t") if line.count("\t") == 2 else line.split()
        if len(cells) not in (3, 4):
            raise InputError(f"{where}: {len(cells)} columns; {_QRELS_LINES}: repair it")
        query, document, grade = cells[0], cells[-2], cells[-1].strip()
        if number == 0 and len(cells) == 3 and grade in ("score", "relevance"):
            continue
        documents = grades.setdefault(query, {})
        if document in documents:
            raise InputError(f"{where}: document '{document}' is judged twice for query '{query}': remove one")
        documents[document] = _number(where, "grade", grade)
    return grades


def read_texts(path: Path, wanted: Collection[str] | None = None) -> dict[str, str]:
    """Queries or documents as id -> text; of a large collection only `wanted` is kept.

    Reads JSON lines (`_id`, `text` and where there is one `title`, which goes before the text) where the
    name says .jsonl or .json, else lines of `id<TAB>text`. Raises InputError with file and line for a
    malformed line or an id that stands twice.
    """
    parse: Callable[[str, str], tuple[str, str]]
    parse = _json_text if {".jsonl", ".json"} & set(path.suffixes) else _tab_text
    texts: dict[str, str] = {}
    for where, line in _lines(path):
        key, text = parse(where, line)
        if wanted is not None and key not in wanted:
            continue
        if key in texts:
            raise InputError(f"{where}: the id '{key}' stands further up: make ids unique")
        texts[key] = text
    return texts


def write_run(path: Path, rankings: Mapping[str, Sequence[str]], tag: str = "r1ranker") -> None:
    """Write rankings (query -> documents, best first) as a TREC run that trec_eval sorts the same way.

    The scores count down to 1, so no two of a query tie, in 32 bits neither. Raises InputError for an id
    or a tag that is empty or holds white space, or a document that stands twice.
    """
    write_atomic(path, "".join(run_lines(query, documents, tag) for query, documents in rankings.items()))


def run_lines(query: str, documents: Sequence[str], tag: str = "r1ranker") -> str:
    """A query's lines of a run, as `write_run` writes them. Raises InputError as it does."""
    _require_word("tag", tag)
    _require_word("query id", query)
    if len(set(documents)) < len(documents):
        raise InputError(f"the ranking of query '{query}' lists a document twice: rank each once")
    rows = []
    for rank, document in enumerate(documents, 1):
        _require_word("document id", document)
        rows.append(f"{query} Q0 {document} {rank} {len(documents) - rank + 1} {tag}\n")
    return "".join(rows)


def write_qrels(path: Path, examples: Iterable[RankingExample]) -> None:
    """Write each example's grades as TREC qrels: a line for every candidate, grade 0 too, and for what is unlisted.

    trec_eval takes whole grades alone. An example with other ones gets all of its grades times 1,000,
    rounded, which no measure here notices: nDCG's gain is linear. Raises InputError as `write_run` does.
    """
    rows = []
    for example in examples:
        _require_word("example id", example.id)
        grades = (*example.relevance.values(), *example.unlisted.values())
        scale = 1 if all(float(grade).is_integer() for grade in grades) else 1000
        for key in (*example.ids, *example.unlisted):
            _require_word("candidate id", key)
            grade = example.unlisted.get(key, example.grade(key))
            rows.append(f"{example.id} 0 {key} {max(1, round(grade * scale)) if grade > 0 else 0}\n")
    write_atomic(path, "".join(rows))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """("file:line", line without its end) for each line that is not blank."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", line.rstrip("\r\n")


def _number(where: str, what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: the {what} is '{text}'; it must be a finite number: repair it")
    return value


def _json_text(where: str, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        key, title, text = row["_id"], row.get("title") or "", row["text"]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: not a JSON object with '_id' and 'text': repair it") from error
    if (
        isinstance(key, bool)
        or not isinstance(key, (str, int))
        or not isinstance(text, str)
        or not isinstance(title, str)
    ):
        raise InputError(f"{where}: '_id', 'title' and 'text' must be texts: repair it")
    return str(key), f"{title} {text}".strip()


def _tab_text(where: str, line: str) -> tuple[str, str]:
    key, tab, text = line.partition("\t")
    if not tab:
        raise InputError(f"{where}: no tab; a line is 'id<TAB>text': repair it, or call JSON lines .jsonl")
    return key.strip(), text.strip()


def _require_word(what: str, text: str) -> None:
    if not text or text.split() != [text]:
        raise InputError(f"the {what} '{text}' cannot stand in a TREC file: give one that has no white space")

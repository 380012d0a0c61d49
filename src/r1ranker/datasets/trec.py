"""Any run, qrels and texts -> passage examples with graded relevance: what a first stage found is put in order.

Reads a folder in BEIR's layout, files named one by one, or a data set of the ir_datasets package.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from r1ranker.datasets.base import Dataset, note, split_groups
from r1ranker.datasets.duplicates import near_duplicate_groups
from r1ranker.datasets.trec_files import read_qrels, read_run, read_texts
from r1ranker.errors import InputError, MissingExtraError
from r1ranker.types import Candidate, RankingExample

_PATTERNS = {
    "corpus": ("corpus.jsonl", "corpus.jsonl.gz", "corpus.tsv", "corpus.tsv.gz"),
    "queries": ("queries.jsonl", "queries.jsonl.gz", "queries.tsv", "queries.tsv.gz"),
    "qrels": ("qrels/test.tsv", "qrels/*.tsv", "qrels/*.txt", "qrels", "qrels.*", "*.qrels", "*.qrels.gz"),
    "run": ("run.trec", "run.trec.gz", "*.run", "*.run.gz", "*.trec", "*.trec.gz"),
}


@dataclass(frozen=True)
class JudgedCollection:
    """What retrieval is judged on.

    queries: id -> text. grades: query -> document -> grade. run: query -> documents, best first, or None.
    documents: ids -> the texts of those of them that have one.
    """

    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, float]]
    run: Mapping[str, Sequence[str]] | None
    documents: Callable[[Collection[str]], Mapping[str, str]]


def build_trec(
    folder: Path | None = None,
    *,
    name: str,
    corpus: Path | str | None = None,
    queries: Path | str | None = None,
    qrels: Path | str | None = None,
    run: Path | str | None = None,
    ir_dataset: str | None = None,
    depth: int = 20,
    presorted: bool = False,
    unjudged: Literal["keep", "drop"] = "drop",
    test_fraction: float = 1.0,
    near_duplicates: float | None = 0.8,
    seed: int = 0,
) -> Dataset:
    """One example a query, under the query's own id; its candidates' ids are the documents' own.

    corpus, queries, qrels, run: the files; those that are not named are looked for in `folder` under BEIR's
        names, a run as run.trec, *.run or *.trec. Without a run the judged documents, shuffled, are the
        candidates; without qrels a run can be ranked and not measured.
    ir_dataset: instead of files, an id of the ir_datasets package, such as "beir/scifact/test"; without `run`,
        its own first-stage scores are the run where it has them.
    depth: the first so many documents of a query are its candidates, in the run's order.
    presorted: rankers are told that lists are in the run's order (see RankingExample); else they see that order, and
        are not told that it means something.
    unjudged: queries that the qrels do not name, where there are qrels: "drop" leaves them out, so that figures are
        means over the judged queries, as trec_eval's are; "keep" ranks them too, and they count 0. A judged query whose
        relevant documents the run missed counts 0 in any case.
    test_fraction: the share of queries to test on; near-duplicate queries (see near_duplicate_groups) stay on
        one side.
    Whatever is dropped, or left although it looks odd, is counted in the notes. Raises InputError for files
    that are missing or malformed, MissingExtraError for `ir_dataset` without the package.
    """
    if depth < 1:
        raise InputError(f"depth is {depth}; it must be at least 1")
    if unjudged not in ("keep", "drop"):
        raise InputError(f"unjudged is '{unjudged}'; it must be keep or drop")
    if not isinstance(presorted, bool):
        raise InputError(f"presorted is {presorted!r}; it must be true or false")
    files = {"corpus": corpus, "queries": queries, "qrels": qrels, "run": run}
    source = _from_files(folder, files, name) if ir_dataset is None else _from_ir_datasets(ir_dataset, files, name)
    if presorted and source.run is None:
        raise InputError(f"data set '{name}': without a run lists are in no order: give one, or leave presorted out")
    notes: list[str] = []
    negative = sum(grade < 0 for judged in source.grades.values() for grade in judged.values())
    note(notes, negative, "judgements with a negative grade count as 0")
    listed = _judged(source.grades, seed) if source.run is None else source.run
    note(notes, sum(q not in listed for q in source.grades), "judged queries left out: the run does not have them")
    asked = {q: list(listed[q])[:depth] for q in listed if source.queries.get(q, "").strip()}
    note(notes, len(listed) - len(asked), "queries dropped: they have no text")

    if unjudged == "drop" and source.grades:
        judged = {q: keys for q, keys in asked.items() if q in source.grades}
        note(notes, len(asked) - len(judged), "queries left out: the qrels do not name them (unjudged=keep ranks them)")
        asked = judged
    examples = [replace(e, presorted=presorted) for e in _examples(source, asked, near_duplicates, notes)]
    if not examples:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise InputError(f"data set '{name}': no query is left{said}: check that the files belong together")
    rng = random.Random(f"{seed}:split")
    _, test = split_groups((e.group for e in examples), test_fraction=test_fraction, rng=rng)
    held_out = set(test)
    return Dataset(
        name=name,
        train=tuple(e for e in examples if e.group not in held_out),
        test=tuple(e for e in examples if e.group in held_out),
        notes=tuple(notes),
        as_ranked=source.run is not None,
    )


def _examples(
    source: JudgedCollection, asked: Mapping[str, Sequence[str]], near_duplicates: float | None, notes: list[str]
) -> list[RankingExample]:
    """An example for each query with a candidate that has a text, in the order of `asked`."""
    texts = source.documents({key for keys in asked.values() for key in keys})
    groups = near_duplicate_groups([source.queries[query] for query in asked], near_duplicates)
    examples = []
    without_text = lost = unknown = missed = 0
    for (query, keys), group in zip(asked.items(), groups, strict=True):
        candidates = tuple(Candidate(key, texts[key]) for key in keys if texts.get(key, "").strip())
        without_text += len(keys) - len(candidates)
        if not candidates:
            continue
        relevant = {key: grade for key, grade in source.grades.get(query, {}).items() if grade > 0}
        relevance = {c.id: relevant[c.id] for c in candidates if c.id in relevant}
        unknown += query not in source.grades
        missed += query in source.grades and not relevance
        lost += len(relevant) - len(relevance)
        examples.append(
            RankingExample(
                id=query,
                scenario="passage",
                candidates=candidates,
                query=source.queries[query],
                relevance=relevance,
                group=group,
                item_type="passage",
                unlisted={key: grade for key, grade in relevant.items() if key not in relevance},
            )
        )
    note(notes, without_text, "documents dropped from lists: they have no text")
    note(notes, len(asked) - len(examples), "queries dropped: none of their documents has a text")
    if source.grades:
        note(notes, unknown, "queries have no relevant candidate: the qrels do not name them")
    else:
        notes.append("there are no qrels: the lists can be ranked, and not measured")
    note(notes, missed, "queries have no relevant candidate, although they are judged")
    note(notes, lost, "relevant documents are not among the candidates, out of a ranking's reach; nDCG counts them")
    flat = sum(bool(e.relevance) and len({e.grade(i) for i in e.ids}) == 1 for e in examples)
    note(notes, flat, "queries on which any order is perfect: all candidates have the same grade")
    return examples


def _judged(grades: Mapping[str, Mapping[str, float]], seed: int) -> dict[str, list[str]]:
    """Each query's judged documents, in an order that says nothing of their grades."""
    lists = {query: sorted(documents) for query, documents in grades.items()}
    for query, documents in lists.items():
        random.Random(f"{seed}:query:{query}").shuffle(documents)
    return lists


def _from_files(folder: Path | None, files: Mapping[str, Path | str | None], name: str) -> JudgedCollection:
    paths = {role: Path(path) if path else _find(folder, role) for role, path in files.items()}
    corpus, queries, qrels, run = paths["corpus"], paths["queries"], paths["qrels"], paths["run"]
    if corpus is None or queries is None or (qrels is None and run is None):
        role = next(role for role, path in paths.items() if path is None)
        where = f"{folder} holds no {' or '.join(_PATTERNS[role][:2])}" if folder else "there is no source"
        raise InputError(f"data set '{name}': {where}: give the option {role}=FILE")
    return JudgedCollection(
        read_texts(queries),
        {} if qrels is None else read_qrels(qrels),
        None if run is None else read_run(run),
        lambda wanted: read_texts(corpus, wanted),
    )


def _find(folder: Path | None, role: str) -> Path | None:
    """The file for the first pattern that matches in the folder. Raises InputError where several match it."""
    if folder is None:
        return None
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one in BEIR's layout, or the files as options ({role}=FILE)")
    for pattern in _PATTERNS[role]:
        found = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(
                f"{folder} holds several files for {pattern} ({names}): give one of them as the option {role}=FILE"
            )
        if found:
            return found[0]
    return None


def _from_ir_datasets(dataset_id: str, files: Mapping[str, Path | str | None], name: str) -> JudgedCollection:
    if other := [role for role, path in files.items() if path and role != "run"]:
        raise InputError(f"data set '{name}': {other[0]} stands beside an ir_datasets id: give only one of them")
    try:
        import ir_datasets
    except ImportError as error:
        raise MissingExtraError(f"The data set '{name}'", "ir_datasets", "trec") from error
    try:
        source: Any = ir_datasets.load(dataset_id)
    except KeyError as error:
        raise InputError(f"ir_datasets has no '{dataset_id}': look its id up on ir-datasets.com") from error
    for part in ("queries", "qrels", "docs"):
        if not getattr(source, f"has_{part}")():
            raise InputError(f"'{dataset_id}' of ir_datasets has no {part}: choose a part that has, such as its test")
    grades: dict[str, dict[str, float]] = {}
    for row in source.qrels_iter():
        grades.setdefault(row.query_id, {})[row.doc_id] = float(row.relevance)
    run: dict[str, list[str]] | None = None
    if files["run"]:
        run = read_run(Path(files["run"]))
    elif source.has_scoreddocs():
        scored: dict[str, list[tuple[float, str]]] = {}
        for row in source.scoreddocs_iter():
            scored.setdefault(row.query_id, []).append((row.score, row.doc_id))
        run = {query: [key for _, key in sorted(pairs, reverse=True)] for query, pairs in scored.items()}
    store = source.docs_store()
    return JudgedCollection(
        {row.query_id: row.default_text() for row in source.queries_iter()},
        grades,
        run,
        lambda wanted: {key: doc.default_text() for key, doc in store.get_many(sorted(wanted)).items()},
    )

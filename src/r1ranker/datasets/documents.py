"""A folder of documents -> passage examples without any judgements: which paragraph stands under this heading?"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from r1ranker.datasets.base import Dataset, normalise, note, split_groups
from r1ranker.datasets.document_files import MARKDOWN, RESTRUCTURED, Section, read_sections
from r1ranker.datasets.duplicates import near_duplicate_groups, note_near_duplicates
from r1ranker.datasets.hard_negatives import ranked_by_bm25
from r1ranker.errors import InputError
from r1ranker.types import Candidate, RankingExample

DocumentNegatives = Literal["same", "random", "hard"]

_SHORTEST, _LONGEST = 80, 600  # characters of a paragraph: below, it seldom says much; above, few fit in a prompt
_SUFFIXES = (*MARKDOWN, *RESTRUCTURED)


@dataclass(frozen=True)
class _Passage:
    """A paragraph, and the query it answers. key: its document and the heading's line, "guide/start.md:12"."""

    document: str
    key: str
    heading: str
    query: str
    text: str


def build_documents(
    folder: Path,
    *,
    name: str,
    candidates: int = 5,
    negatives: DocumentNegatives = "same",
    max_characters: int | None = 2600,
    near_duplicates: float | None = 0.8,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """One example a section: its first paragraph of prose and `candidates - 1` paragraphs of other sections, shuffled.

    folder: searched with its subfolders, hidden ones aside, for .md, .markdown, .rst and .txt (the last is read
        as .rst is: an underlined heading is one).
    The query is "title: heading", or the title alone where that is the heading; a document's title is its first
    heading, or its front matter's. A candidate's id tells where it stands, "guide/start.md:12". Sections are left
    out, and counted, that have no such paragraph of 80 to 600 characters, whose heading has fewer than two words
    or stands over several sections (of any document), or whose paragraph stands, nearly, under another heading.
    negatives: "same" draws from the same document, and where that has too few the rest from all; "random" draws
        from all; "hard" takes those with the highest BM25 score for the query, ties in order (needs bm25s).
        "All" are the kept sections on the same side of the split: each candidate answers one query of its side.
    max_characters: drop lists whose candidates are longer in all; None keeps them.
    near_duplicates: paragraphs, and queries, that share this part of their words (Jaccard similarity, see
        duplicates) are near-duplicates; None: only the same text (case and spacing aside).
    test_fraction: the part of the documents that is held out; those with near-duplicate queries count as one.
    seed: decides the split, the draws, and the order in which each example lists the paragraphs.
    Raises InputError for a folder or numbers that cannot be used, MissingExtraError for "hard" without bm25s.
    """
    if candidates < 2:
        raise InputError(f"candidates is {candidates}; it must be at least 2")
    if negatives not in get_args(DocumentNegatives):
        raise InputError(f"negatives is '{negatives}'; it must be one of {', '.join(get_args(DocumentNegatives))}")
    notes: list[str] = []
    passages = _distinct(_passages(folder, notes), near_duplicates, notes)
    groups = _document_groups(passages, near_duplicates)
    sides = split_groups(groups.values(), test_fraction=test_fraction, rng=random.Random(f"{seed}:split"))
    built: list[list[RankingExample]] = []
    for keys in sides:
        place = {key: number for number, key in enumerate(keys)}
        side = [passage for passage in passages if groups[passage.document] in place]
        side.sort(key=lambda passage: place[groups[passage.document]])
        built.append(list(_examples(side, groups, name, candidates, negatives, seed)))
    count = len(built[0]) + len(built[1])
    if not count:
        raise InputError(
            f"{folder}: {len(passages)} sections can be used ({'; '.join(notes) or 'none left out'}), too few for "
            f"lists of {candidates}: give more documents, or lower candidates"
        )
    note(notes, len(passages) - count, f"lists dropped: fewer than {candidates} sections on their side of the split")
    train, test = ([e for e in side if max_characters is None or _characters(e) <= max_characters] for side in built)
    kept = [*train, *test]
    if not kept:
        shortest = min(_characters(e) for side in built for e in side)
        raise InputError(
            f"{folder}: no list of {candidates} paragraphs has at most {max_characters} characters, the shortest has "
            f"{shortest}: raise max_characters"
        )
    note(notes, count - len(kept), f"lists dropped: more than {max_characters} characters in all")
    by_id = {f"{name}:{passage.key}": passage for passage in passages}
    said = sum(f" {_words(by_id[e.id].heading)} " in f" {_words(by_id[e.id].text)} " for e in kept)
    note(notes, said, "lists kept although the paragraph holds its heading word for word")
    queries = [e.query for e in kept]
    note_near_duplicates(notes, queries, near_duplicate_groups(queries, near_duplicates))
    return Dataset(name=name, train=tuple(train), test=tuple(test), notes=tuple(notes))


def _passages(folder: Path, notes: list[str]) -> list[_Passage]:
    """What can be asked of the folder's documents, near-duplicates among it, in the order of their paths."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the folder that holds the documents")
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES}
    seen = [path for path in sorted(paths) if paths[path].is_file() and not any(p.startswith(".") for p in path.parts)]
    if not seen:
        raise InputError(f"{folder} holds no {', '.join(f'*{suffix}' for suffix in _SUFFIXES)}: check the source")
    documents: dict[str, list[Section]] = {}
    unreadable = 0
    for path in seen:
        try:
            text = paths[path].read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            unreadable += 1
        except OSError as error:
            raise InputError(f"cannot read {paths[path]} ({error.strerror or error}): check the path") from error
        else:
            documents[path.as_posix()] = read_sections(text, path.suffix.lower())
    note(notes, unreadable, "files left out: not UTF-8 text")
    note(notes, sum(not sections for sections in documents.values()), "files left out: no heading is found in them")
    times = Counter(normalise(section.heading) for sections in documents.values() for section in sections)
    reasons: dict[str, Callable[[Section], bool]] = {
        "the heading stands over several sections": lambda s: times[normalise(s.heading)] > 1,
        "the heading has fewer than two words": lambda s: len(re.findall(r"[^\W\d_]+", s.heading)) < 2,
        "no paragraph of prose is under the heading": lambda s: not s.paragraph,
        f"the paragraph has fewer than {_SHORTEST} characters": lambda s: len(s.paragraph) < _SHORTEST,
        f"the paragraph has more than {_LONGEST} characters": lambda s: len(s.paragraph) > _LONGEST,
    }
    left_out: Counter[str] = Counter()
    passages = []
    for document, sections in documents.items():
        for section in sections:
            if reason := next((text for text, applies in reasons.items() if applies(section)), None):
                left_out[reason] += 1
                continue
            title = sections[0].heading.rstrip(" :")
            query = section.heading if section == sections[0] else f"{title}: {section.heading}"
            key = f"{document}:{section.line}"
            passages.append(_Passage(document, key, section.heading, query, section.paragraph))
    for reason in reasons:
        note(notes, left_out[reason], f"sections left out: {reason}")
    return passages


def _distinct(passages: Sequence[_Passage], threshold: float | None, notes: list[str]) -> list[_Passage]:
    """The passages without those that stand under several headings, nearly: they would be right and wrong at once."""
    groups = near_duplicate_groups([passage.text for passage in passages], threshold)
    times = Counter(groups)
    kept = [passage for passage, group in zip(passages, groups, strict=True) if times[group] == 1]
    note(notes, len(passages) - len(kept), "sections left out: another one has the paragraph too, or nearly")
    return kept


def _document_groups(passages: Sequence[_Passage], threshold: float | None) -> dict[str, str]:
    """Each document's group, by the path of its first one: documents that near-duplicate queries connect."""
    leader = {passage.document: passage.document for passage in passages}

    def find(document: str) -> str:
        while leader[document] != document:
            document = leader[document]
        return document

    holder: dict[str, str] = {}
    keys = near_duplicate_groups([passage.query for passage in passages], threshold)
    for key, passage in zip(keys, passages, strict=True):
        first, second = sorted((find(holder.setdefault(key, passage.document)), find(passage.document)))
        leader[second] = first
    return {document: find(document) for document in leader}


def _examples(
    side: Sequence[_Passage],
    groups: dict[str, str],
    name: str,
    candidates: int,
    negatives: DocumentNegatives,
    seed: int,
) -> Iterator[RankingExample]:
    """One example a passage of a side of the split; none where there are fewer than `candidates` of them."""
    if len(side) < candidates:
        return
    # Begins its work with the first next(), for hard negatives only.
    ranked = ranked_by_bm25([passage.query for passage in side], [passage.text for passage in side])
    for place, passage in enumerate(side):
        rng = random.Random(f"{seed}:section:{passage.key}")
        if negatives == "hard":
            taken = [other for other in next(ranked) if other != place][: candidates - 1]
        else:
            near = [k for k, p in enumerate(side) if p.document == passage.document and k != place]
            near = near if negatives == "same" else []
            taken = rng.sample(near, min(len(near), candidates - 1))
            rest = sorted(set(range(len(side))) - {place, *near})
            taken += rng.sample(rest, candidates - 1 - len(taken))
        listed = sorted([place, *taken])
        rng.shuffle(listed)
        yield RankingExample(
            id=f"{name}:{passage.key}",
            scenario="passage",
            candidates=tuple(Candidate(side[k].key, side[k].text) for k in listed),
            query=passage.query,
            relevance={passage.key: 1.0},
            group=groups[passage.document],
            item_type="passage",
        )


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _characters(example: RankingExample) -> int:
    return sum(len(candidate.text) for candidate in example.candidates)

"""RecBole's atomic files (.inter, .item) -> recommendation examples: a user's history, and what came next.

Source: R1-Ranker (arXiv 2506.21638), section on data: 20 items of history, the 21st among 19 random items.
Unlike its code, negatives come from outside the user's whole history, and users are split before expansion.
"""

from __future__ import annotations

import html
import math
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from r1ranker.datasets.base import Dataset, normalise, note, split_groups
from r1ranker.datasets.neighbours import Neighbours
from r1ranker.errors import InputError
from r1ranker.files import open_text
from r1ranker.types import Candidate, RankingExample

_TITLE_COLUMNS = ("title", "movie_title", "name", "item_name", "book_title", "track_name")
_UNTITLED = {
    "",
    "nan",
    "none",
    "null",
    "unknown",
    "unkonwn",
}  # the last is RecBole's own spelling, in ml-100k
_ENTITY = re.compile(r"&#?\w+;")
_DIRECTION = re.compile("[\u200e\u200f]")  # invisible marks, which no model would write into its answer
_TRAILING_ARTICLE = re.compile(r"^(.+), (The|A|An|Le|La|Les|L'|Il|El|Das|Der|Die)( \(.*)?$")


@dataclass(frozen=True)
class Interactions:
    """sequences: user id -> distinct item ids, oldest first; titles: item id -> title, no title twice."""

    sequences: Mapping[str, tuple[str, ...]]
    titles: Mapping[str, str]
    notes: tuple[str, ...] = ()


def read_recbole(inter: Path, item: Path, min_rating: float | None = None) -> Interactions:
    """Read RecBole atomic files (tab separated, header `name:type`, plain or .gz).

    Titles read as people write them: "Matrix, The" becomes "The Matrix", "&amp;" becomes "&", and
    a release year is appended.
    Items with the same title (case aside) count as one, under the first one's id, since a reader of titles
    cannot tell them apart; of a user's repeated interactions with an item the first counts. Interactions are
    ordered by (timestamp, place in the file). min_rating: those with a lower `rating` are left out.
    Raises InputError with file and line for a malformed row.
    """
    notes: list[str] = []
    titles, merged = _read_titles(item, notes)
    timed: dict[str, list[tuple[float, str]]] = {}
    untitled = low = rated = untimed = 0
    needed = ("user_id", "item_id") if min_rating is None else ("user_id", "item_id", "rating")
    for line, row in _rows(inter, needed):
        rated += "rating" in row
        untimed += "timestamp" not in row
        if min_rating is not None and _rating(inter, line, row["rating"]) < min_rating:
            low += 1
            continue
        if (key := merged.get(row["item_id"])) is None:
            untitled += 1
            continue
        try:
            when = float(row.get("timestamp", 0.0))
        except ValueError:
            when = math.nan
        if not math.isfinite(when):
            raise InputError(
                f"{inter}:{line}: the timestamp is {row['timestamp']!r}; it must be a finite number: "
                "fill it in or drop the row"
            )
        timed.setdefault(row["user_id"], []).append((when, key))
    if not timed and low:
        raise InputError(f"{inter} has no interaction with a rating of {min_rating:g} or more: lower min_rating")
    if not timed and not untitled:
        raise InputError(f"{inter} has a header but no rows: check that the download is complete")
    if not timed:
        raise InputError(f"{inter} has no interaction with an item that {item} gives a title: check both files")
    note(notes, untitled, "interactions with items without a title dropped")
    if min_rating is not None:
        note(notes, low, f"interactions with a rating below {min_rating:g} dropped")
    elif rated:
        notes.append("ratings are not looked at, as in the paper: low ones count too (min_rating leaves them out)")
    note(notes, untimed, "interactions have no 'timestamp': they stand in the order of the file")
    sequences = {
        user: tuple(dict.fromkeys(key for _, key in sorted(events, key=lambda event: event[0])))
        for user, events in timed.items()
    }
    repeats = sum(map(len, timed.values())) - sum(map(len, sequences.values()))
    note(notes, repeats, "repeated interactions of a user with the same title dropped")
    return Interactions(sequences, titles, tuple(notes))


def build_recommendation(
    inter_path: Path,
    item_path: Path,
    *,
    name: str,
    item_type: str = "item",
    history: int = 20,
    candidates: int = 20,
    target: Literal["next", "random"] = "next",
    train_target: Literal["next", "random"] | None = None,
    test_fraction: float = 0.2,
    test_users: int | None = None,
    examples_per_user: int = 1,
    min_rating: float | None = None,
    neighbours: int = 0,
    plain_share: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """One positive and `candidates - 1` random negatives, shuffled, for each user with `history + 1` items.

    inter_path, item_path: RecBole's atomic files (see read_recbole); columns may stand in any order.
    item_type: what one item is called in a prompt ("movie").
    history: how many items of a user are the context.
    candidates: how many items are listed, the positive among them.
    target: "next" (the paper) takes a user's first `history` items and the one after them; "random" takes a
        random later place instead, and the `history` items before it.
    train_target: the same for the train side alone; None: as on the test side.
    test_fraction: the part of the users that is held out.
    test_users: the number of test users; overrides `test_fraction`.
    examples_per_user: on the train side only, each with its own target ("random": different places as long
        as there are any) and its own negatives; a test user has one.
    min_rating: interactions with a lower `rating` are left out, as if the user had never met these items; None (the
        paper): a rating of any height is an interaction.
    neighbours: each candidate's text says which items of the history other train users chose along with it, so many
        at most and the nearest first (see Neighbours); its title becomes its name. 0 (the paper): titles alone.
        A train user's own choices are not counted in what their lists say.
    plain_share: the part of the train lists that is of titles alone in spite of `neighbours`: a ranker learns both.
    seed: decides the split, the negatives and their order, and random targets.
    Negatives are uniform over all titled items that the user never touches. Raises InputError for files or
    numbers that cannot be used.
    """
    if history < 1 or candidates < 2 or examples_per_user < 1:
        raise InputError(
            f"history is {history}, candidates {candidates}, examples_per_user {examples_per_user}: "
            "they must be at least 1, 2 and 1"
        )
    if neighbours < 0 or not 0 <= plain_share <= 1:
        raise InputError(
            f"neighbours is {neighbours}, plain_share {plain_share:g}: they must be at least 0, and between 0 and 1"
        )
    if plain_share and not neighbours:
        raise InputError(f"plain_share is {plain_share:g}, and neighbours 0: all lists are plain; leave it out")
    for key, value in (("target", target), ("train_target", train_target or target)):
        if value not in ("next", "random"):
            raise InputError(f"{key} is '{value}'; it must be next or random")
    data = read_recbole(inter_path, item_path, min_rating)
    catalogue = list(data.titles)
    notes = list(data.notes)
    long = [user for user, items in data.sequences.items() if len(items) > history]
    note(notes, len(data.sequences) - len(long), f"users with fewer than {history + 1} items dropped")
    if not long:
        longest = max(map(len, data.sequences.values()))
        raise InputError(
            f"{inter_path}: no user has {history + 1} titled items (history {history} and the next), the longest "
            f"sequence has {longest}: " + (f"set history to at most {longest - 1}" if longest > 1 else "give more data")
        )
    rich = [user for user in long if len(catalogue) - len(data.sequences[user]) >= candidates - 1]
    note(notes, len(long) - len(rich), f"users dropped to whom fewer than {candidates - 1} items are new")
    if not rich:
        new = len(catalogue) - min(len(data.sequences[user]) for user in long)
        raise InputError(
            f"{item_path}: {candidates - 1} negatives are asked for, but of its {len(catalogue)} titles at most {new} "
            f"are new to a user: " + (f"set candidates to at most {new + 1}" if new else "give more items")
        )
    train_users, test = split_groups(
        rich, test_fraction=test_fraction, test_size=test_users, rng=random.Random(f"{seed}:split")
    )

    def expand(user: str, target: str, count: int) -> Iterator[RankingExample]:
        # A generator of their own keeps a user's examples the same whatever the other users are.
        rng = random.Random(f"{seed}:user:{user}")
        items = data.sequences[user]
        for number, place in enumerate(_places(len(items), history, target, count, rng), 1):
            listed = [items[place], *_negatives(catalogue, set(items), candidates - 1, rng)]
            rng.shuffle(listed)
            yield RankingExample(
                id=f"{name}:user:{user}" + (f":{number}" if number > 1 else ""),
                scenario="recommendation",
                candidates=tuple(Candidate(i, data.titles[i]) for i in listed),
                history=tuple(data.titles[i] for i in items[place - history : place]),
                relevance={items[place]: 1.0},
                group=user,
                item_type=item_type,
            )

    train = [example for user in train_users for example in expand(user, train_target or target, examples_per_user)]
    held_out = [example for user in test for example in expand(user, target, 1)]
    sequences = {user: tuple(data.titles[i] for i in data.sequences[user]) for user in train_users}
    if neighbours:
        near = Neighbours(list(sequences.values()))
        owns = {user: frozenset(items) for user, items in sequences.items()}
        plain = {e.id for e in train if random.Random(f"{seed}:plain:{e.id}").random() < plain_share}
        train = [e if e.id in plain else _told(e, near, neighbours, owns[e.group]) for e in train]
        held_out = [_told(e, near, neighbours) for e in held_out]
        note(notes, len(plain), "train lists are of titles alone")
        silent = sum(e.id not in plain and not any(c.name for c in e.candidates) for e in (*train, *held_out))
        note(notes, silent, "lists, of whose candidates nobody else chose any along with the history, tell nothing")
    return Dataset(
        name=name,
        train=tuple(train),
        test=tuple(held_out),
        popularity=dict(Counter(i for user in train_users for i in data.sequences[user])),
        notes=tuple(notes),
        sequences=tuple(sequences.values()),
    )


def _told(example: RankingExample, near: Neighbours, most: int, own: Collection[str] = ()) -> RankingExample:
    told = tuple(near.told(candidate, example.history, most, own) for candidate in example.candidates)
    return replace(example, candidates=told)


def _rating(path: Path, line: int, text: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        rating = math.nan
    if not math.isfinite(rating):
        raise InputError(
            f"{path}:{line}: the rating is {text!r}; it must be a finite number: fill it in, drop the row, or leave "
            "min_rating out"
        )
    return rating


def _places(length: int, history: int, target: str, count: int, rng: random.Random) -> list[int]:
    """Where the positives stand in a user's sequence: distinct places first, then the same ones again."""
    if target == "next":
        return [history] * count
    places = list(range(history, length))
    rng.shuffle(places)
    return [places[i % len(places)] for i in range(count)]


def _negatives(catalogue: Sequence[str], seen: set[str], count: int, rng: random.Random) -> list[str]:
    """`count` distinct items outside `seen`, uniformly; the caller has made sure that there are as many."""
    drawn: dict[str, None] = {}  # ordered, unlike a set of texts, whose order differs from run to run
    while len(drawn) < count:
        key = rng.choice(catalogue)
        if key not in seen:
            drawn[key] = None
    return list(drawn)


def _read_titles(path: Path, notes: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(item id -> title without double titles, every titled item's id -> the id it counts under)."""
    titles: dict[str, str] = {}
    merged: dict[str, str] = {}
    by_title: dict[str, str] = {}
    untitled = repeated = 0
    for _, row in _rows(path, ("item_id",), one_of=_TITLE_COLUMNS):
        title = row[next(column for column in _TITLE_COLUMNS if column in row)]
        if normalise(title) in _UNTITLED:
            untitled += 1
            continue
        if row["item_id"] in merged:
            repeated += 1
            continue
        title = _readable(title, row.get("release_year", ""))
        key = by_title.setdefault(normalise(title), row["item_id"])
        merged[row["item_id"]] = key
        titles.setdefault(key, title)
    if not titles:
        what = f"titles for none of its {untitled} items" if untitled else "a header but no rows"
        raise InputError(f"{path} has {what}: check that the download is complete")
    note(notes, untitled, "items without a title dropped")
    note(notes, repeated, "rows dropped whose item id stands further up")
    note(notes, len(merged) - len(titles), "items merged into an earlier one with the same title")
    return titles, merged


def _readable(title: str, year: str) -> str:
    """ "Matrix, The" and "1999" -> "The Matrix (1999)"."""
    title = _ENTITY.sub(lambda match: html.unescape(match[0]), title)
    title = " ".join(_DIRECTION.sub("", title).split())
    if match := _TRAILING_ARTICLE.match(title):
        rest, article, tail = match.groups(default="")
        title = f"{article}{'' if article.endswith(chr(39)) else ' '}{rest}{tail}"
    year = year.strip()
    return f"{title} ({year})" if re.fullmatch(r"\d{4}", year) and f"({year})" not in title else title


def _rows(path: Path, required: Sequence[str], one_of: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number from 1, column -> text) of an atomic file."""
    with open_text(path) as lines:
        if not (header := next(lines, "")):
            raise InputError(f"{path} is empty: check that the download is complete")
        columns = [cell.rpartition(":")[0] or cell for cell in header.rstrip("\r\n").split("\t")]
        missing = [column for column in required if column not in columns]
        if one_of and not any(column in columns for column in one_of):
            missing.append(" or ".join(one_of))
        if missing:
            raise InputError(
                f"{path}:1: no column {', '.join(missing)} in the header ({', '.join(columns)}): "
                "a RecBole atomic file is tab separated and starts with name:type"
            )
        for number, line in enumerate(lines, 2):
            if not line.strip():
                continue
            cells = line.rstrip("\r\n").split("\t")
            if len(cells) != len(columns):
                raise InputError(
                    f"{path}:{number}: {len(cells)} cells where the header has {len(columns)}: repair the row"
                )
            yield number, dict(zip(columns, cells, strict=True))

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ranker.datasets import Dataset, build_recommendation, read_recbole
from r1ranker.errors import InputError
from r1ranker.types import Candidate

ITEMS = "item_id:token\tmovie_title:token_seq\trelease_year:token\n" + "".join(
    f"{row}\n"
    for row in (
        "1\tMatrix, The\t1999",
        "2\tToy Story\t1995",
        "3\t\t1990",
        "4\ttoy  story\t1995",
        "5\tEnfer, L'\t1994",
        "6\tSeven (1995)\t1995",
        "7\tunkonwn\tunkonwn",
        "8\tRoof, The (Toit, Le)\tV",
        "9\tSalt &lrm;&amp; Pepper &copy\t1968",
    )
)
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
    f"{row}\n"
    for row in (
        "u\t2\t5\t30",
        "u\t1\t5\t10",
        "u\t6\t5\t20",
        "u\t5\t5\t20",
        "u\t4\t5\t5",
        "u\t3\t5\t1",
        "v\t9\t1\t0",
    )
)


def write(folder: Path, inter: str, item: str) -> tuple[Path, Path]:
    paths = folder / "a.inter", folder / "a.item"
    paths[0].write_text(inter)
    paths[1].write_text(item)
    return paths


def made(folder: Path, users: int = 12, length: int = 8, items: int = 40) -> tuple[Path, Path]:
    """Users with random histories over titled items; user 0 is short."""
    rng = random.Random(5)
    rows = [
        f"{user}\t{key}\t{when}"
        for user in range(users)
        for when, key in enumerate(rng.sample(range(items), 3 if user == 0 else length))
    ]
    inter = "user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows)
    item = "item_id:token\ttitle:token_seq\n" + "\n".join(f"{i}\tTitle {i}" for i in range(items))
    return write(folder, inter, item)


def build(paths: tuple[Path, Path], **options: Any) -> Dataset:
    settings = {"name": "rec", "item_type": "movie", "history": 4, "candidates": 5, **options}
    return build_recommendation(*paths, **settings)


def test_titles_are_readable_and_double_ones_merged(tmp_path: Path) -> None:
    data = read_recbole(*write(tmp_path, INTER, ITEMS))
    assert data.titles == {
        "1": "The Matrix (1999)",
        "2": "Toy Story (1995)",
        "5": "L'Enfer (1994)",
        "6": "Seven (1995)",
        "8": "The Roof (Toit, Le)",
        "9": "Salt & Pepper &copy (1968)",
    }
    # Item 4 is item 2 under another id: the earlier of both interactions counts. 6 and 5 tie: file order.
    assert data.sequences == {"u": ("2", "1", "6", "5"), "v": ("9",)}
    assert data.notes == (
        "2 items without a title dropped",
        "1 items merged into an earlier one with the same title",
        "1 interactions with items without a title dropped",
        "ratings are not looked at, as in the paper: low ones count too (min_rating leaves them out)",
        "1 repeated interactions of a user with the same title dropped",
    )


def test_low_ratings_are_left_out_where_asked(tmp_path: Path) -> None:
    rated = INTER + "v\t1\t4.5\t1\nv\t2\t2\t2\n"
    data = read_recbole(*write(tmp_path, rated, ITEMS), min_rating=4)
    assert data.sequences == {"u": ("2", "1", "6", "5"), "v": ("1",)}
    assert "2 interactions with a rating below 4 dropped" in data.notes
    assert not any("not looked at" in text for text in data.notes)
    paths = write(tmp_path, rated + "v\t5\tgood\t3\n", ITEMS)
    with pytest.raises(InputError, match=r"a\.inter:11: the rating is 'good'; it must be a finite number"):
        read_recbole(*paths, min_rating=4)
    assert len(read_recbole(*paths).sequences) == 2
    with pytest.raises(InputError, match="no interaction with a rating of 6 or more: lower min_rating"):
        read_recbole(*write(tmp_path, INTER, ITEMS), min_rating=6)
    unrated = "user_id:token\titem_id:token\nu\t2\n"
    with pytest.raises(InputError, match="no column rating"):
        read_recbole(*write(tmp_path, unrated, ITEMS), min_rating=4)


def test_gzipped_files_and_files_without_times_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.inter.gz").write_bytes(gzip.compress(b"user_id:token\titem_id:token\nu\t2\nu\t1\n"))
    (tmp_path / "a.item.gz").write_bytes(gzip.compress(b"item_id:token\tname:token\r\n1\tA\r\n2\tB\r\n"))
    data = read_recbole(tmp_path / "a.inter.gz", tmp_path / "a.item.gz")
    assert data.sequences == {"u": ("2", "1")}
    assert data.titles == {"1": "A", "2": "B"}
    assert data.notes == ("2 interactions have no 'timestamp': they stand in the order of the file",)


@pytest.mark.parametrize(
    ("inter", "item", "message"),
    [
        (INTER + "w\t1\n", ITEMS, r"a\.inter:9: 2 cells where the header has 4"),
        (INTER + "w\t1\t5\tsoon\n", ITEMS, r"a\.inter:9: the timestamp is 'soon'"),
        (INTER + "w\t1\t5\tnan\n", ITEMS, r"a\.inter:9: the timestamp is 'nan'"),
        (INTER, ITEMS + "10\tX\n", r"a\.item:11: 2 cells where the header has 3"),
        ("", ITEMS, r"a\.inter is empty"),
        ("\nu\t1\n", ITEMS, r"a\.inter:1: no column user_id, item_id in the header \(\)"),
        (INTER.splitlines()[0], ITEMS, r"a\.inter has a header but no rows"),
        (INTER, "item_id:token\tbrand:token\n", r"a\.item:1: no column title or movie_title"),
        (INTER, ITEMS.splitlines()[0], r"a\.item has a header but no rows"),
        (INTER, "item_id:token\ttitle:token_seq\n1\tnan\n2\t\n", r"a\.item has titles for none of its 2 items"),
        (INTER, "item_id:token\ttitle:token_seq\n77\tX\n", "no interaction with an item that"),
    ],
)
def test_malformed_files_are_told_with_file_and_line(tmp_path: Path, inter: str, item: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recbole(*write(tmp_path, inter, item))


def test_next_takes_the_first_items_and_the_one_after_them(tmp_path: Path) -> None:
    paths = made(tmp_path)
    sequences = read_recbole(*paths).sequences
    data = build(paths, test_users=3)
    assert (len(data.train), len(data.test)) == (8, 3)
    assert data.notes == ("1 users with fewer than 5 items dropped",)
    for example in data.train + data.test:
        items = sequences[example.group]
        assert example.id == f"rec:user:{example.group}"
        assert example.history == tuple(f"Title {i}" for i in items[:4])
        assert dict(example.relevance) == {items[4]: 1.0}
        assert (example.scenario, example.item_type, len(example.candidates)) == ("recommendation", "movie", 5)
        assert all(c.text == f"Title {c.id}" for c in example.candidates)
    places = {example.ids.index(next(iter(example.relevance))) for example in data.train}
    assert len(places) > 1  # the positive does not always stand in the same place


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), target=st.sampled_from(["next", "random"]), count=st.integers(1, 6))
def test_negatives_are_new_to_the_user_and_users_do_not_leak(
    tmp_path_factory: pytest.TempPathFactory, seed: int, target: str, count: int
) -> None:
    paths = made(tmp_path_factory.getbasetemp(), items=14)
    sequences = read_recbole(*paths).sequences
    data = build(paths, seed=seed, target=target, examples_per_user=count, candidates=7)
    assert not {e.group for e in data.train} & {e.group for e in data.test}
    assert (len(data.train), len(data.test)) == (9 * count, 2)
    for example in data.train + data.test:
        (positive,) = example.relevance
        items = sequences[example.group]
        place = items.index(positive)
        assert example.history == tuple(f"Title {i}" for i in items[place - 4 : place])
        assert set(example.ids) & set(items) == {positive}
        assert len(set(example.ids)) == 7


def test_random_targets_of_a_user_differ_as_long_as_there_are_any(tmp_path: Path) -> None:
    data = build(made(tmp_path), target="random", examples_per_user=6)
    user = data.train[0].group
    mine = [e for e in data.train if e.group == user]
    assert [e.id for e in mine] == [f"rec:user:{user}", *(f"rec:user:{user}:{n}" for n in range(2, 7))]
    targets = [next(iter(e.relevance)) for e in mine]
    assert len(set(targets[:4])) == 4  # 8 items, 4 of history: 4 places
    assert targets[4:] == targets[:2]
    assert set(mine[0].ids) != set(mine[4].ids)


def test_random_targets_of_the_train_side_leave_the_test_side_as_it_is(tmp_path: Path) -> None:
    paths = made(tmp_path)
    data, random = build(paths, test_users=9), build(paths, test_users=9, train_target="random")
    assert random.test == data.test
    assert random.train == build(paths, test_users=9, target="random").train
    assert random.train != data.train


def test_popularity_counts_train_users_only(tmp_path: Path) -> None:
    paths = made(tmp_path)
    sequences = read_recbole(*paths).sequences
    data = build(paths, test_users=9)
    first, second = (sequences[e.group] for e in data.train)
    assert data.popularity == {i: (i in first) + (i in second) for i in {*first, *second}}


def test_sequences_are_the_titles_of_train_users_whole_and_in_order(tmp_path: Path) -> None:
    paths = made(tmp_path)
    by_user = read_recbole(*paths).sequences
    data = build(paths, test_users=9, examples_per_user=3, target="random")
    users = dict.fromkeys(e.group for e in data.train)
    assert data.sequences == tuple(tuple(f"Title {i}" for i in by_user[user]) for user in users)
    assert [len(s) for s in data.sequences] == [8, 8]


def test_the_seed_decides_and_users_do_not_depend_on_each_other(tmp_path: Path) -> None:
    paths = made(tmp_path)
    assert build(paths).fingerprint() == build(paths).fingerprint()
    assert build(paths).fingerprint() != build(paths, seed=1).fingerprint()
    assert build(paths, test_users=0).train[-2:] == build(paths, test_users=9).train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": 0}, "history is 0"),
        ({"candidates": 1}, "candidates 1"),
        ({"examples_per_user": 0}, "examples_per_user 0"),
        ({"target": "last"}, "target is 'last'"),
        ({"train_target": "last"}, "train_target is 'last'"),
        ({"history": 8}, r"no user has 9 titled items .* the longest sequence has 8: set history to at most 7"),
        (
            {"candidates": 34},
            "33 negatives .* of its 40 titles at most 32 are new to a user: set candidates to at most 33",
        ),
        ({"test_users": 12}, "12 test groups are asked for, but there are 11"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(made(tmp_path), **options)


TASTES = ["0 1 2 3 4 5", "0 1 2 3 5 4", "1 0 2 3 4 5", "6 7 8 9 10 11", "7 6 8 9 10 11", "6 7 9 8 11 10"]
"""Two tastes, three users of each."""


def tastes(folder: Path) -> tuple[Path, Path]:
    rows = [f"{u}\t{i}\t{when}" for u, items in enumerate(TASTES) for when, i in enumerate(items.split())]
    inter = "user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows)
    return write(folder, inter, "item_id:token\ttitle:token_seq\n" + "\n".join(f"{i}\tTitle {i}" for i in range(12)))


def test_candidates_tell_what_others_chose_with_them(tmp_path: Path) -> None:
    paths = tastes(tmp_path)
    told = build(paths, candidates=3, test_users=1, neighbours=2)
    plain = build(paths, candidates=3, test_users=1)
    assert [e.ids for e in (*told.train, *told.test)] == [e.ids for e in (*plain.train, *plain.test)]
    assert [e.history for e in told.train] == [e.history for e in plain.train]
    assert len(told.train) == 5
    assert told.sequences == plain.sequences
    for example, bare in zip((*told.train, *told.test), (*plain.train, *plain.test), strict=True):
        for candidate, title in zip(example.candidates, (c.text for c in bare.candidates), strict=True):
            if example.grade(candidate.id) > 0:  # of the user's own taste, which two others or more share
                assert candidate.name == title
                said = candidate.text.removeprefix("others chose it with ").split("; ")
                assert len(said) == 2
                assert set(said) <= set(example.history)
            else:  # of the other taste, which nobody mixes with this one
                assert candidate == Candidate(candidate.id, title)


def test_a_train_users_own_choices_are_not_told(tmp_path: Path) -> None:
    # One user alone has each taste: what they chose next nobody else chose with what they have
    rows = "\n".join(f"{u}\t{5 * u + i}\t{i}" for u in range(4) for i in range(5))
    inter = f"user_id:token\titem_id:token\ttimestamp:float\n{rows}"
    paths = write(tmp_path, inter, "item_id:token\ttitle:token_seq\n" + "\n".join(f"{i}\tTitle {i}" for i in range(20)))
    data = build(paths, candidates=3, test_users=1, neighbours=3)
    assert len(data.train) == 3
    assert not any(c.name for e in (*data.train, *data.test) for c in e.candidates)


def test_a_share_of_the_train_lists_stays_plain(tmp_path: Path) -> None:
    paths = tastes(tmp_path)
    options = {"candidates": 3, "test_users": 2, "target": "random", "examples_per_user": 20, "neighbours": 2}
    data = build(paths, **options, plain_share=0.5)
    every = build(paths, **options)
    plain = [not any(c.name for c in e.candidates) for e in data.train]
    silent = [not any(c.name for c in e.candidates) for e in every.train]
    kept = [a == b for a, b in zip(data.train, every.train, strict=True)]
    assert kept == [is_silent or not is_plain for is_plain, is_silent in zip(plain, silent, strict=True)]
    assert 10 < len(kept) - sum(kept) < 50  # half of those of 80 that have something to tell
    assert all(any(c.name for c in e.candidates) for e in data.test)
    (count,) = (int(text.split()[0]) for text in data.notes if "train lists are of titles alone" in text)
    assert len(kept) - sum(kept) <= count < 60
    assert any(f"{sum(silent)} lists, of whose candidates nobody else chose any" in text for text in every.notes)
    assert build(paths, **options, plain_share=0.5).fingerprint() == data.fingerprint() != every.fingerprint()


@pytest.mark.parametrize("options", [{"neighbours": -1}, {"neighbours": 1, "plain_share": 1.5}, {"plain_share": -0.1}])
def test_neighbours_out_of_range_are_told(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="they must be at least 0, and between 0 and 1"):
        build(tastes(tmp_path), candidates=3, **options)


def test_a_plain_share_of_lists_that_tell_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plain_share is 0\.5, and neighbours 0: all lists are plain"):
        build(tastes(tmp_path), candidates=3, plain_share=0.5)

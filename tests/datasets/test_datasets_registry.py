from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from r1ranker import assets
from r1ranker.baselines import fit_baseline
from r1ranker.datasets import DATASETS, Dataset, load_dataset
from r1ranker.errors import ConfigError, InputError

INTER = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"u\t{i}\t{i}\n" for i in range(21))
ITEM = "item_id:token\ttitle:token_seq\n" + "".join(f"{i}\tTitle {i}\n" for i in range(50))
LIST = json.dumps({"query": "q", "passages": {"passage_text": list("abcdefghi"), "is_selected": [1] + [0] * 8}})
TABLE = "q_id,query,llm,effect,cost\n0,q,a,1,100\n0,q,b,0.5,0\n"


def recommendation_folder(folder: Path) -> Path:
    (folder / "x.inter").write_text(INTER)
    (folder / "x.item").write_text(ITEM)
    return folder


def test_the_nine_names_have_the_papers_settings() -> None:
    assert list(DATASETS)[:9] == [
        *("rec-movie", "rec-music", "rec-game"),
        *("router-performance", "router-balance", "router-cost"),
        *("passage-5", "passage-7", "passage-9"),
    ]
    assert list(DATASETS)[9:] == ["ranking-bench", "trec", "passage-docs", "rec-own", "router-own"]
    assert {k: v for k, v in DATASETS["rec-movie"].defaults.items() if k != "item_type"} == {
        "history": 20,
        "candidates": 20,
    }
    weights = [tuple(DATASETS[f"router-{n}"].defaults.values()) for n in ("performance", "balance", "cost")]
    assert weights == [(1.0, 0.0), (0.5, 0.5), (0.2, 0.8)]
    assert [DATASETS[f"passage-{n}"].defaults["candidates"] for n in (5, 7, 9)] == [5, 7, 9]
    for info in DATASETS.values():
        assert set(info.defaults) <= set(info.options)
        assert all((info.description, info.source, info.licence, info.needs))


def test_rec_movie_fetches_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recommendation_folder(tmp_path)
    monkeypatch.setattr(assets, "fetch_data", lambda name: {"ml-100k": folder}[name])
    data = load_dataset("rec-movie", test_fraction=1.0)
    assert (data.name, len(data.test), data.test[0].item_type) == ("rec-movie", 1, "movie")
    assert data.test[0].history == tuple(f"Title {i}" for i in range(20))


def test_the_titled_interactions_are_preferred(tmp_path: Path) -> None:
    folder = recommendation_folder(tmp_path)
    (folder / "x.inter").rename(folder / "x.titled.inter")
    (folder / "x.all.inter.gz").write_text("broken")
    assert len(load_dataset("rec-music", source=folder, test_fraction=1.0).test) == 1
    assert len(load_dataset("rec-music", source=folder / "x.titled.inter").train) == 1
    with pytest.raises(InputError, match=r"x\.all\.inter\.gz is not a whole gzip file"):
        load_dataset("rec-music", source=folder / "x.all.inter.gz")


def test_router_weights_come_from_the_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    best = {
        name: list(load_dataset(f"router-{name}", source=tmp_path, test_fraction=1).test[0].relevance)
        for name in ("performance", "balance", "cost")
    }
    # balance: a .5 - .5 = 0, b .25 - 0; cost: a .2 - .8, b .1 - 0
    assert best == {"performance": ["a"], "balance": ["b"], "cost": ["b"]}


def test_a_pair_of_passage_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "x_dev.jsonl").write_text(LIST)
    single = load_dataset("passage-7", source=tmp_path, test_fraction=1.0)
    assert [e.id for e in single.test] == ["passage-7:x_dev:1"]
    (tmp_path / "x_test.jsonl").write_text(LIST.replace('"q"', '"other"'))
    pair = load_dataset("passage-7", source=tmp_path)
    assert [e.id for e in pair.train + pair.test] == ["passage-7:x_dev:1", "passage-7:x_test:1"]
    assert len(pair.train) == len(pair.test) == 1
    assert len(load_dataset("passage-5", source=tmp_path / "x_test.jsonl").train[0].candidates) == 5
    (tmp_path / "x_train.jsonl").write_text(LIST.replace('"q"', '"third"'))
    assert load_dataset("passage-9", source=tmp_path).train[0].query == "third"  # train goes before dev


def test_a_word_of_a_passage_files_name_tells_its_side(tmp_path: Path) -> None:
    (tmp_path / "latest-train.jsonl").write_text(LIST)
    for k in range(2):
        (tmp_path / f"test-0000{k}-of-00002.jsonl").write_text(LIST.replace('"q"', f'"other {"ab"[k] * 5}"'))
    data = load_dataset("passage-5", source=tmp_path)
    assert [e.query for e in data.train] == ["q"]  # no test file, although "latest" holds the word
    assert sorted(e.query for e in data.test) == ["other aaaaa", "other bbbbb"]


def test_a_path_of_a_users_own_file_is_read_for_testing(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [json.dumps({"query": f"q{i}", "candidates": ["a", "b"], "group": str(i // 2)}) for i in range(8)]
    path.write_text("\n".join([*rows, "{"]))
    data = load_dataset(str(path))
    assert (len(data.train), [e.id for e in data.test]) == (0, [str(i) for i in range(1, 9)])
    assert data.notes[0].startswith(f"line dropped: {path}:9: not valid JSON")
    split = load_dataset(str(path), test_fraction=0.5)
    assert (len(split.train), len(split.test)) == (4, 4)  # Dataset itself checks that groups stay together
    contexts = [{"query": "Who wrote Emma?"}, {"query": "who  wrote emma"}, {"history": ["x"]}, {"history": ["X"]}]
    path.write_text("\n".join(json.dumps({**c, "candidates": ["a"], "id": str(k)}) for k, c in enumerate(contexts)))
    split = load_dataset(str(path), test_fraction=0.5)
    assert {tuple(e.id for e in side) for side in (split.train, split.test)} == {("0", "1"), ("2", "3")}
    assert split.notes == ("2 lists stay on the side of an earlier one with nearly the same context",)
    queries = [f"which of these films is like number {k} of them" for k in (1, 2)]
    path.write_text("\n".join(json.dumps({"query": query, "candidates": ["a"]}) for query in queries))
    with pytest.raises(InputError, match="all 2 lists stay together"):
        load_dataset(str(path), test_fraction=0.5)
    assert len(load_dataset(str(path), test_fraction=0.5, near_duplicates=1).train) == 1
    path.write_text("{")
    with pytest.raises(InputError, match="holds no example"):
        load_dataset(str(path))


def own(path: Path, rows: list[dict[str, object]], **options: object) -> Dataset:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_dataset(str(path), **options)


def test_own_lists_are_shuffled_unless_their_order_means_something(tmp_path: Path) -> None:
    """Positives often stand first in a file: whoever keeps the order of ties would be right."""
    rows: list[dict[str, object]] = [
        {"id": str(k), "query": f"{k}", "candidates": list("abcde"), "relevance": {"1": 1}, "presorted": k == 7}
        for k in range(60)
    ]
    data = own(tmp_path / "mine.jsonl", rows)
    assert all(e.relevance == {"1": 1.0} and {c.id: c.text for c in e.candidates}["1"] == "a" for e in data.test)
    first = [e.ids[0] for e in data.test if not e.presorted]
    assert 4 < first.count("1") < 22  # of 59, a fifth: 12
    assert data.test[7].ids == tuple("12345")
    assert data == own(tmp_path / "mine.jsonl", rows)
    assert data != own(tmp_path / "mine.jsonl", rows, seed=1)
    assert {e.ids for e in own(tmp_path / "mine.jsonl", rows, shuffle=False).test} == {tuple("12345")}
    with pytest.raises(InputError, match="shuffle is 'no'; it must be true or false"):
        own(tmp_path / "mine.jsonl", rows, shuffle="no")


def test_a_users_lists_without_groups_stay_together(tmp_path: Path) -> None:
    """Sliding windows over each user's items: five in a row tell that two lists are of one user."""
    rows = [
        {"id": f"{user}{start}", "history": [f"{user}{n}" for n in range(start, start + 6)], "candidates": ["a", "b"]}
        for user in "pqrstu"
        for start in (0, 1, 2)
    ]
    data = own(tmp_path / "mine.jsonl", rows, test_fraction=0.5, near_duplicates=None)
    sides = [{e.id[0] for e in side} for side in (data.train, data.test)]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert any("12 lists, or several, stay on the side of an earlier one with 5" in text for text in data.notes)
    far = [{**row, "history": [*row["history"][:4], *"vw"]} for row in rows]  # type: ignore[index]
    assert not any("in a row" in text for text in own(tmp_path / "far.jsonl", far, test_fraction=0.5).notes)


def test_own_lists_have_counts_where_ids_tell_the_items(tmp_path: Path) -> None:
    items = [{"id": i, "text": f"Item {i}"} for i in "abc"]
    rows = [
        {"id": "1", "group": "u", "history": ["item A", "Item x"], "candidates": items, "relevance": {"b": 1}},
        {"id": "2", "group": "u", "history": ["Item a"], "candidates": items[1:], "relevance": {"b": 1}},
        {"id": "3", "group": "v", "history": ["Item x"], "candidates": items, "relevance": {"b": 1}},
        {"id": "4", "group": "w", "history": ["Item c"], "candidates": items, "relevance": {"c": 1}},
    ]
    data = own(tmp_path / "mine.jsonl", rows, test_fraction=0.3)
    tested = {e.group for e in data.test}
    assert len(tested) == 1
    expected = {"u": {"a": 1, "b": 1}, "v": {"b": 1}, "w": {"c": 1}}  # once for each user
    counts = Counter[str]()
    for user in {"u", "v", "w"} - tested:
        counts.update(expected[user])
    assert data.popularity == counts
    named = [{"id": i, "name": f"Item {i}", "text": "others chose it with Item x"} for i in "abc"]
    told = [{**row, "candidates": [item for item in named if item["id"] in "bc" or row["id"] != "2"]} for row in rows]
    assert own(tmp_path / "told.jsonl", told, test_fraction=0.3).popularity == counts
    plain = [{**row, "candidates": ["Item a", "Item b"], "relevance": {"2": 1}} for row in rows]
    assert own(tmp_path / "plain.jsonl", plain, test_fraction=0.3).popularity == {}


def test_own_lists_have_a_label_prior(tmp_path: Path) -> None:
    """`large` was asked twice, and was best both times: the prior is no count of what a log asks most."""
    rows = [
        {
            "id": str(k),
            "scenario": "routing",
            "query": f"{'abcdefgh'[k] * 4} question",
            "candidates": [{"name": n, "text": n} for n in (("small", "large") if k in large else ("small", "mid"))],
            "relevance": {"large" if k in large else "small": 1},
        }
        for large in [{0, 1}]
        for k in range(6)
    ]
    data = own(tmp_path / "mine.jsonl", [*rows, {**rows[5], "id": "6", "query": "other"}], test_fraction=0.15)
    assert len(data.test) == 1
    large = sum("large" in e.ids for e in data.train)
    assert data.popularity == {"large": 6.0, "small": 6 - large}
    assert fit_baseline("label-prior", data, data.test).order(data.test[0])[0] in ("large", "small")


def test_unknown_names_and_options_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'rec-movies' \(did you mean 'rec-movie'"):
        load_dataset("rec-movies")
    with pytest.raises(ConfigError, match=r"no option 'candidate' \(did you mean 'candidates'"):
        load_dataset("passage-5", source=tmp_path, candidate=3)
    for option, value, said in [
        ("history", "four", "history is 'four'; it must be a whole number"),
        ("history", 4.5, r"history is 4\.5; it must be a whole number"),
        ("candidates", True, "candidates is True; it must be a whole number"),
        ("test_fraction", "half", "test_fraction is 'half'; it must be a number"),
    ]:
        with pytest.raises(ConfigError, match=said):
            load_dataset("rec-own", source=recommendation_folder(tmp_path), **{option: value})
    assert len(load_dataset("rec-own", source=tmp_path, test_fraction=1).test) == 1
    with pytest.raises(InputError, match=r"is a file of lists, which needs no source"):
        load_dataset("mine.jsonl", source=tmp_path)
    with pytest.raises(ConfigError, match="no option 'history'; it has test_fraction, near_duplicates, shuffle, seed"):
        load_dataset("mine.jsonl", history=3)


@pytest.mark.parametrize("name", [name for name, info in DATASETS.items() if info.fetch is None])
def test_a_missing_source_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' needs a source: the folder that holds "):
        load_dataset(name)
    with pytest.raises(InputError, match="nowhere, does not exist"):
        load_dataset(name, source=tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no "):
        load_dataset(name, source=tmp_path)


def test_several_files_of_a_kind_are_not_guessed_among(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(TABLE)
    with pytest.raises(InputError, match=r"several files for \*\.csv \(a\.csv, b\.csv\)"):
        load_dataset("router-cost", source=tmp_path)
    assert len(load_dataset("router-cost", source=tmp_path / "b.csv").train) == 1

"""The official release's layout, in wording of our own: read back, divided without leaks, or as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ranker.assets import hub
from r1ranker.datasets import Dataset, load_dataset
from r1ranker.datasets.ranking_bench import find_files, read_rows
from r1ranker.errors import AssetError, InputError

LLMS = ["Big (70b)", "Small-7b", "It's"]
Row = dict[str, Any]


def rec(history: list[str], candidates: dict[int, str], gt: str) -> Row:
    seen, left = ("[" + ", ".join(f"'{n}. {t}'" for n, t in x) + "]" for x in (enumerate(history), candidates.items()))
    problem = (
        f"Films seen, oldest first:\n{seen}\n\nFilms to choose from:\n{left}\n\nWhich is the next? Give its title."
    )
    return {"problem": problem, "candidates": list(candidates.values()), "gt": gt, "task_name": "Rec-Movie"}


def router(query: str, llms: list[str], gt: str, task: str = "Router-Cost") -> Row:
    about = "## The models\n    # Big (70b): Price 0.9. Knows much. \n    # Small-7b: Price 0.2.\n"
    return {
        "problem": f"{about}    ## Task: {query} and models: {llms}. Name the worst.\n    ",
        "candidates": llms,
        "gt": gt,
        "task_name": task,
    }


def passage(query: str, passages: dict[int, str], gt: int) -> Row:
    listed = "\n".join(f"passage {n}: {text}" for n, text in passages.items())
    problem = f"Question: {query} with the texts:\n{listed}\n\nOrder them, as in\npassage 1\npassage 0"
    return {"problem": problem, "candidates": list(passages.values()), "gt": f"passage {gt}", "task_name": "Passage-5"}


TRAIN = [
    rec(["Heat", "It's Alive"], {0: "Babe", 1: "M"}, "M"),
    rec(["Heat", "Casino"], {0: "Babe", 1: "Fargo"}, "Babe"),
    router("Add 1 and 2", LLMS, "Small-7b"),
    router("Translate this", LLMS, "Big (70b)"),
    passage("who wrote emma", {0: "Austen", 1: "Verdi"}, 0),
    passage("where is rome", {0: "Italy", 1: "Peru"}, 0),
]
TEST = [
    rec(["Heat", "Casino"], {3: "Alien", 0: "Babe"}, "Babe"),
    router("add 1  and 2", LLMS[::-1], "It's"),
    passage("how far is the moon", {2: "very", 0: "not", 1: "a: b"}, 1),
]


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write(tmp_path / "direct" / "train.jsonl", TRAIN)
    write(tmp_path / "direct" / "test.jsonl", TEST)
    return tmp_path


def load(source: Path, **options: Any) -> Dataset:
    return load_dataset("ranking-bench", source=source, **options)


def test_rows_become_examples(release: Path) -> None:
    film, route, text = load(release, split="official").test
    assert (film.id, film.scenario, film.item_type) == ("ranking-bench:Rec-Movie:test:1", "recommendation", "movie")
    assert (film.history, film.ids, film.relevance) == (("Heat", "Casino"), ("Alien", "Babe"), {"Babe": 1.0})
    assert (route.query, route.ids, route.relevance) == ("add 1  and 2", tuple(LLMS[::-1]), {"It's": 1.0})
    assert [(c.name, c.text) for c in route.candidates] == [
        ("It's", "It's"),  # no line describes it
        ("Small-7b", "Price 0.2."),
        ("Big (70b)", "Price 0.9. Knows much."),
    ]
    assert text.query == "how far is the moon"
    assert [(c.id, c.text) for c in text.candidates] == [
        ("passage 2", "very"),
        ("passage 0", "not"),
        ("passage 1", "a: b"),
    ]
    assert text.relevance == {"passage 1": 1.0}


def test_the_clean_split_drops_train_rows_that_are_tested(release: Path) -> None:
    data = load(release)
    assert [e.id.removeprefix("ranking-bench:") for e in data.train] == [
        *("Rec-Movie:train:1", "Router-Cost:train:2", "Passage-5:train:1", "Passage-5:train:2")
    ]
    assert len(data.test) == 3
    assert data.notes == ("2 train rows dropped: their query or history is tested too",)
    assert data.sequences == (("Heat", "It's Alive", "M"),)
    assert data.popularity == {"Heat": 1, "It's Alive": 1, "M": 1, "Big (70b)": 1}
    official = load(release, split="official")
    assert (len(official.train), official.notes, official.train[0].group) == (6, (), "")
    assert official.popularity["Heat"] == 2


def test_a_near_duplicate_query_is_a_leak_too(tmp_path: Path) -> None:
    query = "who was the first man that walked on the surface of the moon"
    write(tmp_path / "train.jsonl", [passage(query + " please", {0: "a", 1: "b"}, 0), passage("other", {0: "a"}, 0)])
    write(tmp_path / "test.jsonl", [passage(query, {0: "a", 1: "b"}, 0)])
    assert [e.query for e in load(tmp_path).train] == ["other"]
    assert len(load(tmp_path, near_duplicates=None).train) == 2


def test_one_task_alone(release: Path) -> None:
    data = load(release, task="Router-Cost", split="official")
    assert (len(data.train), len(data.test)) == (2, 1)
    assert data.popularity == {"Small-7b": 1, "Big (70b)": 1}


def test_states_of_the_iterative_configuration(tmp_path: Path) -> None:
    states = [
        rec(["Heat", "Casino"], {7: "M", 2: "Babe"}, "Babe"),
        rec(["Heat", "Casino"], {2: "Babe", 0: "Up", 7: "M"}, "Babe"),
    ]
    write(tmp_path / "data" / "iterative_train-00000.jsonl", states)
    write(tmp_path / "data" / "direct_train-00000.jsonl", TRAIN)
    data = load(tmp_path, configuration="iterative")
    assert [e.ids for e in data.train] == [("M", "Babe"), ("Babe", "Up", "M")]
    assert data.sequences == (("Heat", "Casino", "Babe"),)  # the user counts once


def test_a_title_that_stands_twice_is_positive_twice(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [rec(["Heat"], {0: "M", 4: "Up", 5: "M"}, "M")])
    example = load(tmp_path).test[0]
    assert (example.ids, example.relevance) == (("M [0]", "Up", "M [5]"), {"M [0]": 1.0, "M [5]": 1.0})


def test_rows_that_do_not_read_back_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    broken = rec(["Heat"], {0: "M", 1: "Up"}, "M") | {"candidates": ["M", "Down"]}
    wrong = rec(["Heat"], {0: "M", 1: "Up"}, "Babe")
    double = passage("one", {0: "a", 1: "b"}, 0)
    double["problem"] = double["problem"].replace("passage 1: ", "passage 0: ")
    rows = [*TRAIN, broken, wrong, broken, double, TRAIN[0] | {"task_name": "Rec-Book"}]
    path = write(tmp_path / "train.jsonl", rows)
    data = load(tmp_path)
    assert len(data.train) == 6
    assert data.notes == (
        f"2 rows of Rec-Movie dropped that do not read back, the first at {path}:7",
        f"1 rows of Rec-Movie dropped whose gt is no candidate, the first at {path}:8",
        f"1 rows of Passage-5 dropped that do not read back, the first at {path}:10",
        f"1 rows of the unknown task 'Rec-Book' dropped, the first at {path}:11",
    )
    with pytest.raises(InputError, match=r"no row of Router-Cost can be read \(1 rows of Router-Cost dropped"):
        load(write(tmp_path / "one.jsonl", [router("only one query", LLMS, "It's")]), task="Router-Cost")


def test_parquet_and_lists_as_json_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(TEST), tmp_path / "test-00000-of-00001.parquet")
    write(tmp_path / "train.jsonl", [row | {"candidates": json.dumps(row["candidates"])} for row in TRAIN])
    data = load(tmp_path, split="official")
    assert (len(data.train), len(data.test)) == (6, 3)
    parquet.write_table(pyarrow.table({"problem": ["x"]}), tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match="no column candidates, gt, task_name"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r":2: not valid JSON \(.*\): repair or remove the line"),
        ("[]", ":2: not a JSON object: repair"),
        ('{"problem": "x", "gt": "y", "task_name": "z"}', ":2: 'candidates' must be a list of texts"),
        ('{"problem": "x", "candidates": "[1]", "gt": "y", "task_name": "z"}', ":2: 'candidates' must be a list"),
        ('{"problem": "x", "candidates": "[", "gt": "y", "task_name": "z"}', ":2: 'candidates' must be a list"),
        ('{"problem": "x", "candidates": ["a"], "gt": 1, "task_name": "z"}', ":2: 'problem', 'gt' and 'task_name'"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(TRAIN[0]) + "\n" + line)
    with pytest.raises(InputError, match=message) as caught:
        list(read_rows(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["configuration", "split", "task"])
def test_options_that_cannot_be_used(release: Path, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} is 'x'; it must be"):
        load(release, **{option: "x"})


def test_sides_and_configurations_are_told_by_names(tmp_path: Path) -> None:
    for name in ("direct/train-0.parquet", "direct/b_Test.jsonl", "iterative/test/x.jsonl.gz", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {c: [(side, p.name) for side, p in find_files(tmp_path, c)] for c in ("direct", "iterative")}
    assert found == {
        "direct": [("test", "b_Test.jsonl"), ("train", "train-0.parquet")],
        "iterative": [("test", "x.jsonl.gz")],
    }
    assert find_files(tmp_path / "iterative", "direct") == [("test", tmp_path / "iterative/test/x.jsonl.gz")]
    assert find_files(tmp_path / "direct/train-0.parquet", "direct")[0][0] == "train"
    (tmp_path / "direct/train-0.parquet").rename(tmp_path / "latest-train.parquet")
    assert find_files(tmp_path / "latest-train.parquet", "direct")[0][0] == "train"
    (tmp_path / "latest-train.parquet").rename(tmp_path / "direct/train-0.parquet")
    (tmp_path / "iterative/test/x.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"holds no iterative .*; there is direct: check the source"):
        find_files(tmp_path, "iterative")
    with pytest.raises(InputError, match="file: check the source"):
        find_files(tmp_path / "iterative", "iterative")


def test_without_a_source_the_release_comes_from_the_hub(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[dict[str, Any]] = []

    def snapshot(hub_id: str, **options: Any) -> str:
        asked.append({"id": hub_id, **options})
        if not release.exists():
            raise LocalEntryNotFoundError("nothing cached")
        return str(release)

    def unreachable() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr(hub, "_reach_hub", lambda: None)
    assert len(load_dataset("ranking-bench").test) == 3
    assert (asked[0]["id"], asked[0]["repo_type"], asked[0]["local_files_only"]) == (
        *("ulab-ai/Ranking-bench", "dataset"),
        False,
    )
    assert "*.parquet" in asked[0]["allow_patterns"]
    monkeypatch.setattr(hub, "_reach_hub", unreachable)
    assert len(load_dataset("ranking-bench").test) == 3
    assert asked[1]["local_files_only"]
    release.rename(release.with_name("gone"))
    with pytest.raises(
        AssetError, match=r"could not fetch ulab-ai/Ranking-bench .*\(no route to host\).*a local folder"
    ):
        load_dataset("ranking-bench")

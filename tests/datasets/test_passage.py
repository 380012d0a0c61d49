from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from r1ranker.datasets import Dataset, build_passage, load_dataset
from r1ranker.errors import InputError, MissingExtraError


def row(query: str, count: int, selected: tuple[int, ...], **more: Any) -> dict[str, Any]:
    marks = [int(i in selected) for i in range(count)]
    return {
        "query": query,
        "passages": {"passage_text": [f"{query} {i}" for i in range(count)], "is_selected": marks},
    } | more


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(r) for r in rows))
    return path


def build(path: Path, **options: Any) -> Dataset:
    return build_passage([path], **{"name": "passage", "candidates": 3, "test_fraction": 0.0, **options})


def test_given_takes_the_first_passages_and_always_the_selected_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("early", 6, (1,)), row("late", 6, (4,)))
    by_query = {e.query: e for e in build(path).train}
    assert sorted(by_query["early"].ids) == ["p1", "p2", "p3"]
    assert dict(by_query["early"].relevance) == {"p2": 1.0}
    assert sorted(by_query["late"].ids) == ["p1", "p2", "p5"]
    assert dict(by_query["late"].relevance) == {"p5": 1.0}
    assert {c.id: c.text for c in by_query["late"].candidates}["p5"] == "late 4"
    assert by_query["late"].id == "passage:a:2"
    assert by_query["late"].scenario == by_query["late"].item_type == "passage"


def test_random_draws_from_the_whole_list(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(row(f"q{n}", 6, (2,)) for n in range(60)))
    examples = build(path, negatives="random").train
    assert {i for e in examples for i in e.ids} == {f"p{n}" for n in range(1, 7)}
    assert all(len(e.ids) == 3 and "p3" in e.ids for e in examples)
    assert {e.ids.index("p3") for e in examples} == {0, 1, 2}  # shuffled


def test_hard_takes_the_passages_that_look_most_like_the_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["nothing", "red whale", "red", "the answer", "whale", "red whale song", "", "blue"]
    marks = [int(text == "the answer") for text in texts]
    path = write(
        tmp_path / "a.jsonl",
        {"query": "Red whale?", "passages": {"passage_text": texts, "is_selected": marks}},
        {"query": "?!", "passages": {"passage_text": texts, "is_selected": marks}},
        {"query": "blank", "passages": {"passage_text": ["", "?", "!", ".", "-"], "is_selected": marks[:5]}},
    )
    hard = {e.query: set(e.ids) for e in build(path, negatives="hard").train}
    # Both words before one, and the shorter text first; without a word in common the list's order counts.
    assert hard == {"Red whale?": {"p2", "p4", "p6"}, "?!": {"p1", "p2", "p4"}, "blank": {"p1", "p2", "p4"}}
    (more,) = (e for e in build(path, negatives="hard", candidates=6).train if e.query == "Red whale?")
    assert set(more.ids) == {"p2", "p6", "p3", "p5", "p4", "p1"}  # p1, p7 and p8 tie at 0
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(
        MissingExtraError, match=r"Choosing hard negatives needs the package 'bm25s': .*r1ranker\[eval\]"
    ):
        build(path, negatives="hard")


def test_lists_that_do_not_qualify_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        row("good", 3, (0,)),
        row("none", 3, ()),
        row("two", 3, (0, 1)),
        row("few", 2, (0,)),
        row("long" * 100, 3, (0,)),
        {"query": "blank", "passages": {"passage_text": ["", "b", "c"], "is_selected": [0, 1, 0]}},
    )
    data = build(path, max_characters=1000)
    assert {e.query for e in data.train} == {"good", "blank"}
    assert data.notes == (
        "2 lists dropped: not exactly one passage is selected",
        "1 lists dropped: fewer than 3 passages",
        "1 lists dropped: more than 1000 characters in all",
        "1 lists kept although a passage is blank",
    )
    assert len(build(path, max_characters=None).train) == 3
    # "good 0" and its like have 6 characters: 18 in all still fit.
    assert [len(build(path, max_characters=n).train) for n in (17, 18)] == [1, 2]


def test_the_official_layout_is_read_too(tmp_path: Path) -> None:
    passages = [{"is_selected": n == 1, "passage_text": f"t{n}", "url": "u"} for n in range(3)]
    path = write(tmp_path / "a.v1.jsonl", {"query_id": 19, "query": "q", "answers": ["a"], "passages": passages})
    (example,) = build(path).train
    assert (example.id, dict(example.relevance)) == ("passage:a:19", {"p2": 1.0})
    assert {c.id: c.text for c in example.candidates} == {"p1": "t0", "p2": "t1", "p3": "t2"}


def test_exact_takes_lists_of_that_length_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("two", 2, (0,)), row("three", 3, (0,)), row("four", 4, (0,)))
    data = build(path, exact=True)
    assert [e.query for e in data.train] == ["three"]
    assert data.notes == (
        "1 lists dropped: fewer than 3 passages",
        "1 lists dropped: more than 3 passages",
    )
    with pytest.raises(InputError, match=r"a\.jsonl: no list has exactly 3 passages: change candidates or drop exact"):
        build(write(tmp_path / "a.jsonl", row("four", 4, (0,))), exact=True)


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

    def hub(side: str, *rows: dict[str, Any]) -> None:
        schema = pa.schema(
            {
                "answers": pa.list_(pa.string()),
                "passages": pa.struct(
                    {
                        "is_selected": pa.list_(pa.int32()),
                        "passage_text": pa.list_(pa.string()),
                        "url": pa.list_(pa.string()),
                    }
                ),
                "query": pa.string(),
                "query_id": pa.int32(),
                "query_type": pa.string(),
            }
        )
        full = [r | {"passages": r["passages"] | {"url": []}, "answers": [], "query_type": "entity"} for r in rows]
        pq.write_table(pa.Table.from_pylist(full, schema=schema), tmp_path / f"{side}-00000-of-00001.parquet")

    rows = [row("early", 3, (1,), query_id=19), row("late", 4, (3,), query_id=20)]
    hub("train", *rows)
    hub("validation", row("other", 5, (0,), query_id=7))
    folder = load_dataset("passage-5", source=tmp_path, candidates=3)
    assert [e.id for e in folder.test] == ["passage-5:validation-00000-of-00001:7"]
    by_query = {e.query: e for e in folder.train}
    assert set(by_query) == {"early", "late"}
    assert {c.id: c.text for c in by_query["late"].candidates} == {"p1": "late 0", "p2": "late 1", "p4": "late 3"}
    assert dict(by_query["late"].relevance) == {"p4": 1.0}
    hub("test", row("a", 3, (2,), query_id=1))
    assert [e.query for e in load_dataset("passage-5", source=tmp_path, candidates=3).test] == ["a"]
    assert len(load_dataset("passage-5", source=tmp_path, candidates=3).train) == 2  # validation stays out
    same = write(tmp_path / "train-00000-of-00001.jsonl", *rows)
    assert build(same).fingerprint() == build(tmp_path / "train-00000-of-00001.parquet").fingerprint()


def test_equal_queries_stay_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("Who?", 3, (0,)), row(" who? ", 4, (1,)), row("where?", 3, (2,)))
    for seed in range(8):
        data = build(path, test_fraction=0.5, seed=seed)
        sides = [{e.id[-1] for e in side} for side in (data.train, data.test)]
        assert sorted(sides, key=len) == [{"3"}, {"1", "2"}]


def test_near_duplicates_stay_together_and_leave_train(tmp_path: Path) -> None:
    old, very_old, other = (row(q, 3, (0,)) for q in ("who wrote the old book", "who wrote the very old book", "x"))
    path = write(tmp_path / "a.jsonl", old, other, very_old)
    for seed in range(8):
        data = build(path, test_fraction=0.5, seed=seed)
        sides = [{e.id[-1] for e in side} for side in (data.train, data.test)]
        assert sorted(sides, key=len) == [{"2"}, {"1", "3"}]
        assert data.notes == ("2 queries have a near-duplicate with other words and were split together with it",)
    train = write(tmp_path / "dev.jsonl", very_old, other, row("Who wrote the  old book", 3, (0,)))
    test = write(tmp_path / "test.jsonl", old)
    data = build(train, test_paths=[test])
    assert [e.query for e in data.train] == ["x"]
    assert data.notes == (
        "1 train lists dropped: the query is a test query",
        "1 train lists dropped: the query is a near-duplicate of a test query",
    )
    assert len(build(train, test_paths=[test], near_duplicates=None).train) == 2


def test_a_test_file_is_used_whole_and_its_queries_leave_train(tmp_path: Path) -> None:
    train = write(tmp_path / "dev.jsonl", row("a", 3, (0,)), row("b", 3, (0,)), row("none", 3, ()))
    test = write(tmp_path / "test.jsonl", row("B", 3, (0,)), row("c", 3, (0,)), row("few", 2, (0,)))
    data = build(train, test_paths=[test])
    assert [e.id for e in data.train] == ["passage:dev:1"]
    assert {e.id for e in data.test} == {"passage:test:1", "passage:test:2"}
    assert data.popularity == {}
    assert data.notes == (
        "1 train lists dropped: not exactly one passage is selected",
        "1 test lists dropped: fewer than 3 passages",
        "1 train lists dropped: the query is a test query",
    )


def test_the_seed_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *(row(f"q{n}", 6, (2,)) for n in range(6)))
    prints = [build(path, seed=s, test_fraction=0.5).fingerprint() for s in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, r"a\.jsonl is empty"),
        ("\n{", {}, r"a\.jsonl:2: not valid JSON .*: repair or remove the line"),
        ("3", {}, r"a\.jsonl:1: no 'query' .*: repair or remove it"),
        ('{"query": "q"}', {}, r"a\.jsonl:1: no 'query' \(a text\) and 'passages'"),
        ('{"query": "q", "passages": {"passage_text": ["a"], "is_selected": []}}', {}, "of the same length"),
        ('{"query": "q", "passages": {"passage_text": [1], "is_selected": [0]}}', {}, "must hold texts"),
        ('{"query": "q", "passages": {"passage_text": ["a"], "is_selected": [2]}}', {}, "'is_selected' 0 or 1"),
        (json.dumps(row("q", 2, (0,))), {}, "no list has 3 passages, the longest has 2: lower candidates"),
        (json.dumps(row("q", 3, (0, 1))), {}, "no list has exactly one selected passage: give a file that marks one"),
        (json.dumps(row("q", 3, (0,))), {"max_characters": 8}, "at most 8 characters, the shortest has 9: raise max_c"),
        (json.dumps(row("q", 3, (0,))), {"candidates": 1}, "candidates is 1"),
        (
            json.dumps(row("q", 3, (0,))),
            {"negatives": "soft"},
            "negatives is 'soft'; it must be one of given, random, hard",
        ),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, content: str, options: dict[str, Any], message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        build(tmp_path / "a.jsonl", **options)


def test_a_passage_that_repeats_another_is_no_candidate(tmp_path: Path) -> None:
    texts = ["one", "the answer", "The  Answer", "two", "one", "three"]
    path = write(
        tmp_path / "a.jsonl",
        {"query": "q", "passages": {"passage_text": texts, "is_selected": [0, 0, 1, 0, 0, 0]}},
        {"query": "too few", "passages": {"passage_text": ["a", "A", "b"], "is_selected": [0, 1, 0]}},
    )
    data = build(path)
    (example,) = data.train
    assert set(example.ids) == {"p1", "p3", "p4"}  # p2 says what the answer says, and p5 what p1 says
    assert example.relevance == {"p3": 1.0}
    assert "3 passages left out that repeat another one of their list" in data.notes
    assert "1 lists dropped: fewer than 3 passages" in data.notes
    assert set(build(path, candidates=4).train[0].ids) == {"p1", "p3", "p4", "p6"}

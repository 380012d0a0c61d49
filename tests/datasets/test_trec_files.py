"""TREC and BEIR files: what is read, what is written, and that trec_eval agrees with our measures."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ranker.datasets.trec_files import read_qrels, read_run, read_texts, write_qrels, write_run
from r1ranker.errors import InputError
from r1ranker.evaluation.measures import per_query
from r1ranker.types import Candidate, RankingExample


def example(key: str, ids: str, relevance: dict[str, float]) -> RankingExample:
    return RankingExample(key, "passage", tuple(Candidate(i, f"text {i}") for i in ids), "q", relevance=relevance)


def test_a_run_is_sorted_as_trec_eval_sorts_it(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    # b and c tie: the later document goes first. The rank column and the order of lines say otherwise.
    path.write_text(
        "2 Q0 x 1 -1e3 t\n\n1 Q0 a 1 0.5 t\n1\tQ0\tb\t2\t2\tt\r\n1 Q0 c 3 2.0 t\n2 Q0 y 9 7 t\n", encoding="utf-8"
    )
    assert read_run(path) == {"2": ["y", "x"], "1": ["c", "b", "a"]}
    assert list(read_run(path)) == ["2", "1"]


def test_scores_that_differ_in_64_bits_alone_tie(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("1 Q0 a 1 1.00000000002 t\n1 Q0 b 2 1.00000000001 t\n")
    assert read_run(path) == {"1": ["b", "a"]}


def test_qrels_of_both_layouts(tmp_path: Path) -> None:
    trec, beir, bare = tmp_path / "a.txt", tmp_path / "b.tsv.gz", tmp_path / "c.tsv"
    trec.write_text("1 0 a 2\n1 0 b -1\n2 0 a 0\n")
    beir.write_bytes(gzip.compress(b"query-id\tcorpus-id\tscore\n1\ta b\t2\n"))
    bare.write_text("1\ta\t1\n")
    assert read_qrels(trec) == {"1": {"a": 2.0, "b": -1.0}, "2": {"a": 0.0}}
    assert read_qrels(beir) == {"1": {"a b": 2.0}}
    assert read_qrels(bare) == {"1": {"a": 1.0}}


def test_texts_of_both_layouts(tmp_path: Path) -> None:
    lines = [{"_id": "d1", "title": "Title", "text": "body"}, {"_id": 2, "text": "no title", "metadata": {}}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress((tmp_path / "corpus.jsonl").read_bytes()))
    (tmp_path / "corpus.tsv").write_text("d1\tTitle\tbody\nd2\t\n")
    assert read_texts(tmp_path / "corpus.jsonl") == {"d1": "Title body", "2": "no title"}
    assert read_texts(tmp_path / "corpus.jsonl.gz", {"2", "absent"}) == {"2": "no title"}
    assert read_texts(tmp_path / "corpus.tsv") == {"d1": "Title\tbody", "d2": ""}


@pytest.mark.parametrize(
    ("read", "name", "content", "message"),
    [
        (read_run, "r", "1 Q0 a 1 3 t\n1 Q0 b 2 2\n", r"r:2: 5 columns; a run has 6 .*: repair it"),
        (read_run, "r", "1 Q0 a 1 nan t\n", r"r:1: the score is 'nan'; .*: repair it"),
        (read_run, "r", "1 Q0 a 1 3 t\n\n1 Q0 a 2 2 t\n", r"r:3: the run lists document 'a' twice for query '1'"),
        (read_qrels, "q", "1 a\n", r"q:1: 2 columns; a line is .*: repair it"),
        (read_qrels, "q", "1 0 a high\n", r"q:1: the grade is 'high'; .*: repair it"),
        (read_qrels, "q", "1 0 a 1\n1 0 a 0\n", r"q:2: document 'a' is judged twice for query '1': remove one"),
        (read_qrels, "q", "1 0 a 1\nquery-id\tcorpus-id\tscore\n", r"q:2: the grade is 'score'"),
        (read_texts, "c.jsonl", '{"_id": "1", "text": "a"}\n{"id": 1}', r"c\.jsonl:2: not a JSON object with '_id'"),
        (read_texts, "c.jsonl", "[1]", r"c\.jsonl:1: not a JSON object with '_id' and 'text': repair it"),
        (read_texts, "c.jsonl", '{"_id": "1", "text": 5}', r"c\.jsonl:1: '_id', 'title' and 'text' must be texts"),
        (read_texts, "c.tsv", "1\ta\n1 b\n", r"c\.tsv:2: no tab; .*: repair it"),
        (read_texts, "c.tsv", "1\ta\n1\tb\n", r"c\.tsv:2: the id '1' stands further up: make ids unique"),
        (read_run, "r.gz", "1 Q0 a 1 3 t", r"r\.gz is not a whole gzip file .*: fetch it again"),
    ],
)
def test_a_malformed_line_is_named(
    tmp_path: Path, read: Callable[[Path], Any], name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rankings = {"q2": ["b", "a", "c"], "q1": [f"d{n}" for n in range(1000)]}
    write_run(tmp_path / "run.trec", rankings, "mine")
    assert read_run(tmp_path / "run.trec") == rankings
    assert (tmp_path / "run.trec").read_text().splitlines()[:3] == [
        "q2 Q0 b 1 3 mine",
        "q2 Q0 a 2 2 mine",
        "q2 Q0 c 3 1 mine",
    ]
    write_qrels(tmp_path / "qrels", [example("q", "abc", {"b": 2.0}), example("r", "ab", {"a": 0.25, "b": 0.0001})])
    assert read_qrels(tmp_path / "qrels") == {"q": {"a": 0, "b": 2, "c": 0}, "r": {"a": 250, "b": 1}}


@pytest.mark.parametrize(
    ("rankings", "tag"),
    [
        ({"a b": ["x"]}, "t"),
        ({"q": ["x\ty"]}, "t"),
        ({"q": [""]}, "t"),
        ({"q": ["x"]}, "my run"),
        ({"q": ["x"] * 2}, "t"),
    ],
)
def test_ids_that_would_break_the_columns_are_refused(tmp_path: Path, rankings: dict[str, list[str]], tag: str) -> None:
    with pytest.raises(InputError):
        write_run(tmp_path / "run", rankings, tag)
    assert not (tmp_path / "run").exists()


def test_qrels_refuse_ids_with_white_space(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the example id 'a b' cannot stand in a TREC file"):
        write_qrels(tmp_path / "qrels", [example("a b", "x", {})])
    with pytest.raises(InputError, match="the candidate id ' ' cannot stand"):
        write_qrels(tmp_path / "qrels", [example("a", " ", {})])


def test_trec_eval_gives_the_same_figures_as_ours(tmp_path: Path) -> None:
    import ir_measures
    from ir_measures import RR, nDCG

    graded = example("graded", "abcd", {"a": 1, "c": 3})
    rng = random.Random(3)
    examples = [graded, example("none", "abc", {}), example("half", "abcdef", {"b": 0.5, "e": 1.0})]
    examples += [example(f"q{n}", "abcdefghijkl", {i: rng.randint(0, 3) for i in "adgk"}) for n in range(20)]
    rankings = {e.id: rng.sample(e.ids, len(e.ids)) for e in examples} | {"graded": ["b", "c", "a", "d"]}
    write_run(tmp_path / "run", rankings)
    write_qrels(tmp_path / "qrels", examples)
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels")))
    run = list(ir_measures.read_trec_run(str(tmp_path / "run")))
    theirs = {(m.query_id, str(m.measure)): m.value for m in ir_measures.iter_calc([RR, nDCG @ 10], qrels, run)}
    ours = per_query(rankings, examples)
    for number, e in enumerate(examples):
        assert ours["MRR"][number] == pytest.approx(theirs[e.id, "RR"], abs=1e-9)
        assert ours["nDCG@10"][number] == pytest.approx(theirs[e.id, "nDCG@10"], abs=1e-9)
    # By hand: c (3) on place 2 and a (1) on place 3; the ideal is 3 on place 1 and 1 on place 2.
    log3 = 1.5849625007211562
    assert theirs["graded", "RR"] == pytest.approx(0.5)
    assert theirs["graded", "nDCG@10"] == pytest.approx((3 / log3 + 1 / 2) / (3 + 1 / log3))
    assert theirs["none", "RR"] == 0

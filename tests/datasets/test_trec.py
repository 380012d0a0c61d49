"""Runs, qrels and texts as a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from math import log2
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from r1ranker.datasets import Dataset, load_dataset
from r1ranker.errors import ConfigError, InputError, MissingExtraError
from r1ranker.evaluation import per_query
from r1ranker.evaluation.runs import save_run

CORPUS = {"d1": "one", "d2": "two", "d3": "three", "d4": "four", "blank": " "}
QUERIES = {"q1": "what is one", "q2": "where is two", "q3": "who is three", "unasked": "not in the run"}
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t1\nq1\td4\t-1\nq2\td4\t1\nq9\td1\t1\n"
RUN = """\
q1 Q0 d2 1 9 t
q1 Q0 d1 2 8 t
q1 Q0 blank 3 7 t
q1 Q0 d4 4 6 t
q1 Q0 d3 5 5 t
q2 Q0 d1 1 1 t
q2 Q0 missing 2 0 t
q3 Q0 d1 1 1 t
q3 Q0 d2 1 1 t
textless Q0 d1 1 1 t
"""


def folder(path: Path, *, run: str | None = RUN) -> Path:
    (path / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", CORPUS), ("queries", QUERIES)):
        rows = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (path / f"{name}.jsonl").write_text("".join(rows))
    (path / "qrels" / "train.tsv").write_text("not read")
    (path / "qrels" / "test.tsv").write_text(QRELS)
    if run is not None:
        (path / "run.trec").write_text(run)
    return path


def lists(data: Dataset) -> dict[str, str]:
    return {e.id: " ".join(e.ids) for e in data.test}


def test_a_beir_folder_with_a_run(tmp_path: Path) -> None:
    data = load_dataset("trec", source=folder(tmp_path), depth=4, unjudged="keep")
    # The run's order; q1's fifth document is too deep; q3's two documents tie, so the later id goes first.
    assert lists(data) == {"q1": "d2 d1 d4", "q2": "d1", "q3": "d2 d1"}
    first = data.test[0]
    assert (first.query, first.scenario, first.relevance) == ("what is one", "passage", {"d1": 2.0})
    assert [c.text for c in first.candidates] == ["two", "one", "four"]
    assert [e.unlisted for e in data.test] == [{"d3": 1.0}, {"d4": 1.0}, {}]
    assert data.notes == (
        "1 judgements with a negative grade count as 0",
        "1 judged queries left out: the run does not have them",
        "1 queries dropped: they have no text",
        "2 documents dropped from lists: they have no text",
        "1 queries have no relevant candidate: the qrels do not name them",
        "1 queries have no relevant candidate, although they are judged",
        "2 relevant documents are not among the candidates, out of a ranking's reach; nDCG counts them",
    )


def test_figures_are_those_of_the_whole_qrels(tmp_path: Path) -> None:
    """nDCG of q1 by hand: d1 (grade 2) at rank 2; the ideal has d3 (grade 1) too, which the run's first four lack."""
    data = load_dataset("trec", source=folder(tmp_path), depth=4, unjudged="keep")
    found = per_query({e.id: e.ids for e in data.test}, data.test)
    assert found["nDCG@10"] == pytest.approx([(2 / log2(3)) / (2 + 1 / log2(3)), 0, 0])
    assert found["MRR"] == [0.5, 0, 0]
    save_run(tmp_path / "out", "as-run", data.test, {e.id: e.ids for e in data.test})
    again = load_dataset(
        "trec", source=tmp_path, qrels=tmp_path / "out/qrels.txt", run=tmp_path / "out/as-run.run", unjudged="keep"
    )
    assert [e.unlisted for e in again.test] == [e.unlisted for e in data.test]


def test_a_run_without_qrels_can_be_ranked(tmp_path: Path) -> None:
    (folder(tmp_path) / "qrels/test.tsv").unlink()
    (tmp_path / "qrels/train.tsv").unlink()
    data = load_dataset("trec", source=tmp_path)
    assert lists(data) == {"q1": "d2 d1 d4 d3", "q2": "d1", "q3": "d2 d1"}
    assert not any(e.relevance for e in data.test)
    assert data.notes[-1] == "there are no qrels: the lists can be ranked, and not measured"
    (tmp_path / "run.trec").unlink()
    with pytest.raises(InputError, match="give the option qrels=FILE"):
        load_dataset("trec", source=tmp_path)


def test_the_runs_order_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    source = folder(tmp_path / "with")
    assert {e.presorted for e in load_dataset("trec", source=source).test} == {False}
    assert {e.presorted for e in load_dataset("trec", source=source, presorted=True).test} == {True}
    with pytest.raises(InputError, match="presorted is 'no'; it must be true or false"):
        load_dataset("trec", source=source, presorted="no")
    with pytest.raises(InputError, match="without a run lists are in no order"):
        load_dataset("trec", source=folder(tmp_path / "without", run=None), presorted=True)


def test_figures_are_means_over_the_judged_queries(tmp_path: Path) -> None:
    """q3 is in the run and not in the qrels, as trec_eval leaves out; q2 is judged, and what is relevant was missed."""
    data = load_dataset("trec", source=folder(tmp_path))
    assert lists(data) == {"q1": "d2 d1 d4 d3", "q2": "d1"}
    assert [e.relevance for e in data.test] == [{"d1": 2.0, "d3": 1.0}, {}]
    assert "1 queries left out: the qrels do not name them (unjudged=keep ranks them)" in data.notes
    assert per_query({e.id: e.ids for e in data.test}, data.test)["MRR"] == [0.5, 0]
    assert data.as_ranked
    assert not load_dataset("trec", source=folder(tmp_path / "judged", run=None)).as_ranked


def test_without_a_run_the_judged_documents_are_shuffled(tmp_path: Path) -> None:
    source = folder(tmp_path, run=None)
    orders = {lists(load_dataset("trec", source=source, seed=seed))["q1"] for seed in range(30)}
    assert len(orders) == 6  # d1, d3 and d4 in every order
    data = load_dataset("trec", source=source)
    assert [e.id for e in data.test] == ["q1", "q2"]  # q9 has no text, and q3 is not judged
    assert "1 queries on which any order is perfect: all candidates have the same grade" in data.notes
    assert data.fingerprint() == load_dataset("trec", source=source).fingerprint()


def test_files_can_be_named_one_by_one(tmp_path: Path) -> None:
    source = folder(tmp_path / "beir")
    (tmp_path / "mine").write_text("q1 Q0 d4 1 1 t\n")
    (tmp_path / "q.tsv").write_text("q1\tanother wording\n")
    data = load_dataset("trec", source=source, run=str(tmp_path / "mine"), queries=tmp_path / "q.tsv")
    assert [(e.id, e.query, e.ids) for e in data.test] == [("q1", "another wording", ("d4",))]
    files = {"corpus": source / "corpus.jsonl", "queries": source / "queries.jsonl", "qrels": source / "qrels/test.tsv"}
    assert len(load_dataset("trec", **files).test) == 2


def test_near_duplicate_queries_stay_on_one_side(tmp_path: Path) -> None:
    near = "how do i make good bread at home without an oven"
    texts = [near, near + " please", "far apart", "another thing", "more words here"]
    rows = [json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)]
    source = folder(tmp_path, run="".join(f"{n} Q0 d1 1 1 t\n" for n in range(5)))
    (source / "queries.jsonl").write_text("".join(rows))
    sides = set()
    for seed in range(20):
        data = load_dataset("trec", source=source, test_fraction=0.5, unjudged="keep", seed=seed)
        assert len(data.train) + len(data.test) == 5
        sides.add(len({e.id for e in data.test} & {"0", "1"}))
    assert sides == {0, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"unjudged": "no"}, "unjudged is 'no'; it must be keep or drop"),
        ({"queries": "nowhere.tsv"}, r"nowhere\.tsv does not exist: check the path"),
        ({"ir_dataset": "x", "qrels": "y"}, "qrels stands beside an ir_datasets id: give only one of them"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset("trec", source=folder(tmp_path), **options)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "beir", run="q1 Q0 other 1 1 t\n")
    with pytest.raises(InputError, match=r"no query is left \(.*\): check that the files belong together"):
        load_dataset("trec", source=source)
    (source / "qrels" / "test.tsv").rename(source / "qrels" / "dev.tsv")
    with pytest.raises(
        InputError, match=r"several files for qrels/\*\.tsv \(dev\.tsv, train\.tsv\).*option qrels=FILE"
    ):
        load_dataset("trec", source=source)
    (source / "corpus.jsonl").unlink()
    with pytest.raises(InputError, match=r"holds no corpus\.jsonl or corpus\.jsonl\.gz: give the option corpus=FILE"):
        load_dataset("trec", source=source, qrels=source / "qrels" / "dev.tsv")
    with pytest.raises(InputError, match="there is no source: give the option corpus=FILE"):
        load_dataset("trec")
    with pytest.raises(InputError, match=r"queries\.jsonl is no folder: give one in BEIR's layout"):
        load_dataset("trec", source=source / "queries.jsonl")


class Row(NamedTuple):
    """A query, document, judgement or score as ir_datasets gives it."""

    query_id: str = ""
    doc_id: str = ""
    text: str = ""
    relevance: int = 0
    score: float = 0.0

    def default_text(self) -> str:
        return self.text


class FakeSource:
    """A data set of ir_datasets with two queries; scores rank d2 before d1."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __getattr__(self, name: str) -> Any:
        if name.startswith("has_"):
            return lambda: name.removeprefix("has_") in self.parts
        raise AttributeError(name)

    def queries_iter(self) -> Iterator[Row]:
        return iter([Row(query_id="q1", text="what is one"), Row(query_id="q2", text="other")])

    def qrels_iter(self) -> Iterator[Row]:
        return iter([Row("q1", "d1", relevance=3), Row("q2", "d2", relevance=1)])

    def scoreddocs_iter(self) -> Iterator[Row]:
        return iter([Row("q1", "d1", score=1.0), Row("q1", "d2", score=2.0)])

    def docs_store(self) -> FakeSource:
        return self

    def get_many(self, ids: list[str]) -> Mapping[str, Row]:
        return {key: Row(doc_id=key, text=CORPUS[key]) for key in ids if key in CORPUS}


@pytest.fixture
def ir_datasets(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeSource]:
    """A package ir_datasets with the data sets that a test puts into it."""
    known: dict[str, FakeSource] = {}
    module = ModuleType("ir_datasets")
    module.load = known.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ir_datasets", module)
    return known


def test_ids_of_ir_datasets(ir_datasets: dict[str, FakeSource], tmp_path: Path) -> None:
    ir_datasets["beir/x/test"] = FakeSource("queries", "qrels", "docs")
    ir_datasets["scored"] = FakeSource("queries", "qrels", "docs", "scoreddocs")
    data = load_dataset("ir_datasets:beir/x/test")
    assert (data.name, lists(data)) == ("ir_datasets:beir/x/test", {"q1": "d1", "q2": "d2"})
    assert data.test[0].relevance == {"d1": 3.0}
    assert lists(load_dataset("trec", ir_dataset="scored")) == {"q1": "d2 d1"}
    (tmp_path / "run").write_text("q2 Q0 d3 1 1 t\n")
    assert lists(load_dataset("ir_datasets:scored", run=str(tmp_path / "run"))) == {"q2": "d3"}
    with pytest.raises(InputError, match="ir_datasets has no 'beir/y': look its id up"):
        load_dataset("ir_datasets:beir/y")
    with pytest.raises(ConfigError, match=r"no option 'depht' \(did you mean 'depth'"):
        load_dataset("ir_datasets:scored", depht=3)
    ir_datasets["corpus-only"] = FakeSource("docs", "queries")
    with pytest.raises(InputError, match="'corpus-only' of ir_datasets has no qrels: choose a part"):
        load_dataset("ir_datasets:corpus-only")


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingExtraError, match=r"'ir_datasets': install it with  pip install 'r1ranker\[trec\]'"):
        load_dataset("ir_datasets:beir/scifact/test")

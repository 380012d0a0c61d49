"""A benchmark as it runs: what it reports, and what is asked again and what is not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchruns import SCORING, WRITING, Listening, Lists, bench_of, row
from r1ranker.baselines import BM25
from r1ranker.benchmark import contenders
from r1ranker.benchmark.contenders import BaselineRow, ModelRow
from r1ranker.benchmark.report import BenchReport
from r1ranker.benchmark.run import run_bench
from r1ranker.benchmark.tables import cost_table
from r1ranker.datasets import read_qrels, read_run
from r1ranker.errors import AssetError, ConfigError, InputError, MissingExtraError
from r1ranker.evaluation.harness import run_ranker
from r1ranker.fingerprints import model_fingerprint
from r1ranker.types import RankingExample


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ...]]]:
    """The ids of each chunk that is ranked rather than taken from the cache, in turn."""
    chunks: list[tuple[str, ...]] = []

    def watched(rank: Any) -> Any:
        def ranked(self: Any, dataset: Any, examples: Any, *rest: Any) -> Any:
            chunks.append(tuple(e.id for e in examples))
            return rank(self, dataset, examples, *rest)

        return ranked

    monkeypatch.setattr(ModelRow, "rank", watched(ModelRow.rank))
    monkeypatch.setattr(BaselineRow, "rank", watched(BaselineRow.rank))
    yield chunks
    model_fingerprint.cache_clear()


def test_the_report_holds_every_row_and_nothing_is_asked_twice(
    lists: Lists, tiny_folder: Path, tmp_path: Path, asked: list[tuple[str, ...]]
) -> None:
    path = lists(7)
    bench = bench_of(path, rows=[row(tiny_folder)], baselines=["bm25"], order={"listings": 2, "queries": 4}, limit=5)
    watch = Listening()
    report = run_bench(bench, tmp_path / "out", watch, {"name": "mine"})
    assert report.names == ("random", "bm25", "tiny")
    assert [cell.queries for cell in report.cells] == [5, 5, 5]
    assert (report.cells[2].calls, sum(report.cells[2].parse.values())) == (10, 10)
    assert report.cells[2].flops > 0
    assert [(o.queries, o.listings) for o in report.order] == [(4, 2)]
    assert report.scenarios == {str(path): "passage"}
    assert report.facts["data"][str(path)]["test queries"] == "5 of 7"
    assert report.facts["data"][str(path)]["source"] == "-"
    assert watch.finished == [(5, 5), (10, 10), (16, 16)]
    assert len(asked) == 1 + 2 + 2 * 2
    again = run_bench(bench, tmp_path / "out", watch, {"name": "mine"})
    assert len(asked) == 7
    assert again == report  # seconds too: they are those of the first time
    assert watch.finished[3:] == watch.finished[:3]


def test_other_grades_ask_nothing_again(
    lists: Lists, tiny_folder: Path, tmp_path: Path, asked: list[tuple[str, ...]]
) -> None:
    lists(6)
    bench = bench_of(tmp_path / "lists.jsonl", rows=[row(tiny_folder)], baselines=["bm25"])
    first = run_bench(bench, tmp_path / "out", Listening())
    lists(6, positive=1)
    second = run_bench(bench, tmp_path / "out", Listening())
    assert len(asked) == 1 + 2
    assert first.cells[2].measures != second.cells[2].measures
    assert first.cells[2].calls == second.cells[2].calls


def test_another_text_asks_its_chunk_again(
    lists: Lists, tiny_folder: Path, tmp_path: Path, asked: list[tuple[str, ...]]
) -> None:
    path = lists(6)
    bench = bench_of(path, rows=[row(tiny_folder)])
    run_bench(bench, tmp_path / "out", Listening())
    path.write_text(path.read_text(encoding="utf-8").replace("answer 1 to 4", "answer 1 to four"), encoding="utf-8")
    run_bench(bench, tmp_path / "out", Listening())
    assert asked == [("q0", "q1", "q2"), ("q3", "q4", "q5"), ("q3", "q4", "q5")]


@pytest.mark.parametrize(
    "change",
    [
        {"ranker": {**SCORING, "kind": "first_step"}},
        {"ranker": {**SCORING, "answer_form": "name"}},
        {"ranker": {**SCORING, "sharpness": 2.0}},
        {"ranker": WRITING},
        {"temperature": 0.5},
    ],
    ids=str,
)
def test_other_settings_ask_again(
    lists: Lists, tiny_folder: Path, tmp_path: Path, asked: list[tuple[str, ...]], change: dict[str, Any]
) -> None:
    path = lists(2)
    run_bench(bench_of(path, rows=[row(tiny_folder)]), tmp_path / "out", Listening())
    run_bench(bench_of(path, rows=[row(tiny_folder, **change)]), tmp_path / "out", Listening())
    assert len(asked) == 2
    run_bench(bench_of(path, rows=[row(tiny_folder, "another name")]), tmp_path / "out", Listening())
    assert len(asked) == 2  # a name decides nothing


def test_another_seed_asks_again_only_where_something_is_random(
    lists: Lists, tiny_folder: Path, tmp_path: Path, asked: list[tuple[str, ...]]
) -> None:
    path, rows = lists(3), [row(tiny_folder), row(tiny_folder, "sampled", temperature=1.0)]
    run_bench(bench_of(path, rows=rows, seeds=[0]), tmp_path / "out", Listening())
    assert len(asked) == 2
    run_bench(bench_of(path, rows=rows, seeds=[0, 1]), tmp_path / "out", Listening())
    assert len(asked) == 3


def test_other_weights_ask_again(lists: Lists, tiny_folder: Path, tmp_path: Path, asked: list[tuple[str, ...]]) -> None:
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    bench = bench_of(lists(3), rows=[row(model)])
    run_bench(bench, tmp_path / "out", Listening())
    moved = tmp_path / "elsewhere"
    shutil.move(model, moved)
    run_bench(bench_of(tmp_path / "lists.jsonl", rows=[row(moved)]), tmp_path / "out", Listening())
    assert len(asked) == 1  # the same model elsewhere
    weights = load_file(moved / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    model_fingerprint.cache_clear()
    run_bench(bench_of(tmp_path / "lists.jsonl", rows=[row(moved)]), tmp_path / "out", Listening())
    assert len(asked) == 2


def test_a_higher_limit_asks_only_what_is_new(
    lists: Lists, tiny_folder: Path, tmp_path: Path, asked: list[tuple[str, ...]]
) -> None:
    path = lists(12)
    for limit in (6, 9):
        report = run_bench(bench_of(path, rows=[row(tiny_folder)], limit=limit), tmp_path / "out", Listening())
    assert asked == [("q0", "q1", "q2"), ("q3", "q4", "q5"), ("q6", "q7", "q8")]
    assert report.cells[1].queries == 9


def test_a_row_with_a_limit_of_its_own(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    rows = [row(tiny_folder, "few", limit=2), row(tiny_folder, "too many", limit=50)]
    report = run_bench(
        bench_of(lists(6), rows=rows, limit=4, order={"listings": 2, "queries": 3}), tmp_path / "out", Listening()
    )
    assert [(cell.name, cell.queries) for cell in report.cells] == [("random", 4), ("few", 2), ("too many", 4)]
    compared = report.comparisons["MRR"]["few", report.datasets[0]]
    assert compared.queries == 2
    base, few = report.cells[0].per_query["MRR"], report.cells[1].per_query["MRR"]
    assert compared.difference == pytest.approx(sum(few) / 2 - sum(base[:2]) / 2)
    assert [o.queries for o in report.order] == [2, 3]


def test_several_seeds_are_runs_whose_costs_are_shared_out(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    rows = [
        row(tiny_folder),
        row(tiny_folder, "sampled", temperature=20.0),
        row(tiny_folder, "thinking", ranker=WRITING, temperature=1.0),
    ]
    report = run_bench(bench_of(lists(8), rows=rows, seeds=[3, 4, 5]), tmp_path / "out", Listening())
    _, greedy, sampled, thinking = report.cells
    assert (len(greedy.run_means), len(sampled.run_means)) == (1, 3)
    assert len(set(sampled.run_means)) > 1
    assert sampled.measures["MRR"] == pytest.approx(sum(sampled.run_means) / 3)
    assert (greedy.calls, sampled.calls) == (8 * 2, 3 * 8 * 2)
    assert sum(sampled.parse.values()) == 48
    cells = {name: [c.text for c in cells] for name, cells in cost_table(report).rows}
    assert cells["tiny"][0] == cells["sampled"][0] == cells["thinking"][0] == "2.0"
    # The prompts are about as long in each run.
    assert int(cells["sampled"][1]) == pytest.approx(int(cells["tiny"][1]), rel=0.02)
    assert len(thinking.run_means) == 3
    assert 0 < float(cells["thinking"][2]) <= 2 * 6


def test_rankings_that_a_budget_ended_are_counted_also_from_the_cache(
    lists: Lists, tiny_folder: Path, tmp_path: Path
) -> None:
    asks = {"kind": "pointwise", "budget_calls": 3}
    bench = bench_of(lists(4, candidates=4), lists(2, name="few.jsonl"), rows=[row(tiny_folder, ranker=asks)])
    for _ in range(2):
        report = run_bench(bench, tmp_path / "out", Listening())
        assert [(cell.calls, cell.cut_short) for cell in report.of("tiny")] == [(12, 4), (6, 0)]
        assert "A budget ended 4 of the 6 rankings of 'tiny'." in cost_table(report).note


def test_chunks_do_not_draw_the_same_noise(tmp_path: Path, lists: Lists, tiny_folder: Path) -> None:
    path = lists(1)
    line = json.loads(path.read_text(encoding="utf-8"))
    copies = [{**line, "id": f"q{k}"} for k in range(24)]
    path.write_text("".join(json.dumps(copy) + "\n" for copy in copies), encoding="utf-8")
    rows = [row(tiny_folder, temperature=50.0)]  # as good as uniform
    report = run_bench(bench_of(path, rows=rows, concurrency=1), tmp_path / "out", Listening())
    assert len(set(report.cells[1].per_query["MRR"])) == 3


def test_all_baselines_that_lack_something_are_left_out_with_a_note(
    lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cornac", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    paths = lists(6, history=True), lists(4, name="more.jsonl", history=True)
    watch = Listening()
    report = run_bench(bench_of(*paths, baselines=["all"]), tmp_path / "out", watch)
    assert report.names == ("random", "bm25")
    notes = report.facts["notes"]
    both = ", ".join(map(str, paths))
    assert any(n.startswith(f"'embeddings' is left out of {both}: ") and "sentence-transformers" in n for n in notes)
    assert sum(n.startswith("'popularity' is left out") for n in notes) == 2  # each data set lacks counts of its own
    assert all(note in watch.said for note in notes)


def test_an_llm_that_fails_costs_its_own_row_alone_and_is_asked_again(
    lists: Lists, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, ...]]
) -> None:
    paths = lists(3), lists(2, name="more.jsonl"), lists(4, name="last.jsonl")
    rows = [row(tiny_folder), row(tiny_folder, name="other", ranker=SCORING | {"kind": "direct"})]
    bench = bench_of(*paths, rows=rows, base="tiny")
    rank = ModelRow.rank

    def down(self: ModelRow, dataset: Any, *rest: Any) -> Any:
        if self.name == "tiny" and dataset.name == str(paths[1]):
            raise AssetError("the server is down")
        return rank(self, dataset, *rest)

    watch = Listening()
    with monkeypatch.context() as patch:
        patch.setattr(ModelRow, "rank", down)
        report = run_bench(bench, tmp_path / "out", watch)
    told = f"'tiny' failed on {paths[1]}: the server is down"
    assert report.facts["failed"] == [told]
    assert told in watch.said
    assert [cell.dataset for cell in report.of("tiny")] == [str(paths[0])]
    assert len(report.of("other")) == 3
    assert ("other", str(paths[0])) in report.comparisons["MRR"]
    assert ("other", str(paths[1])) not in report.comparisons["MRR"]
    done = len(asked)
    again = run_bench(bench, tmp_path / "out", Listening())
    assert "failed" not in again.facts
    assert len(again.of("tiny")) == 3
    assert asked[done:] == [("q0", "q1"), ("q3",)]  # the last one's other three lists are those of the first


def test_a_baseline_that_is_named_must_run(lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match="sentence-transformers"):
        run_bench(bench_of(lists(2), baselines=["embeddings"]), tmp_path / "out", Listening())
    with pytest.raises(InputError, match="no counts"):
        run_bench(bench_of(lists(2, history=True), baselines=["popularity"]), tmp_path / "out", Listening())


def test_a_baseline_that_suits_no_data_set_is_told(lists: Lists, tmp_path: Path) -> None:
    report = run_bench(bench_of(lists(2), baselines=["bm25", "bpr"]), tmp_path / "out", Listening())
    assert report.names == ("random", "bm25")
    assert report.facts["notes"] == ["the row 'bpr' suits none of the data sets"]


def test_rows_are_for_the_data_sets_they_name(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    one, two = lists(2), lists(3, name="more.jsonl")
    bench = bench_of(one, two, rows=[row(tiny_folder, datasets=["*more*"])])
    report = run_bench(bench, tmp_path / "out", Listening())
    assert [cell.dataset for cell in report.of("tiny")] == [str(two)]
    assert report.mean("tiny", "MRR") is None


def test_lists_are_handed_over_as_the_first_stage_ranks_them(
    lists: Lists, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, users = lists(4, words="number"), lists(2, name="users.jsonl", history=True)
    given: dict[str, list[RankingExample]] = {}

    def watched(name: str, ranker: Any, examples: Any, *rest: Any, **more: Any) -> Any:
        given.setdefault(name, []).extend(examples)
        return run_ranker(name, ranker, examples, *rest, **more)

    monkeypatch.setattr(contenders, "run_ranker", watched)
    after = {
        "name": "after bm25",
        "model": str(tiny_folder),
        "ranker": SCORING,
        "first_stage": {"*lists.jsonl": "bm25"},
    }
    order = {"listings": 2, "queries": 2}
    bench = bench_of(path, users, rows=[row(tiny_folder), after], baselines=["bm25"], order=order)
    report = run_bench(bench, tmp_path / "out", Listening())
    plain = {e.id: e for e in given["tiny"] if e.query and "#" not in e.id}
    assert [e.ids for e in given["after bm25"]] == [BM25().order(e) for e in plain.values()]
    assert [e.ids for e in given["after bm25"]] != [e.ids for e in plain.values()]
    assert {e.presorted for e in given["after bm25"]} == {True}
    assert {e.presorted for e in given["tiny"]} == {False}
    assert [cell.dataset for cell in report.of("after bm25")] == [str(path)]  # users have no first stage
    assert {o.name for o in report.order} == {"tiny"}  # in any listing, the first stage's order is the same


def test_lists_that_come_sorted_are_not_listed_anew(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    path = lists(4)
    first, *others = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "presorted": True}), *others]), encoding="utf-8")
    bench = bench_of(path, rows=[row(tiny_folder)], order={"listings": 2})
    assert [o.queries for o in run_bench(bench, tmp_path / "out", Listening()).order] == [3]
    path.write_text(json.dumps({**json.loads(first), "presorted": True}), encoding="utf-8")
    assert run_bench(bench, tmp_path / "out", Listening()).order == ()


def test_a_row_with_fewer_lists_leaves_the_others_judged(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(lists(6), rows=[row(tiny_folder, limit=2)], baselines=["bm25"], limit=5)
    run_bench(bench, tmp_path / "out", Listening())
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    assert list(read_qrels(folder / "qrels.txt")) == list(read_run(folder / "bm25.run")) == [f"q{k}" for k in range(5)]
    assert list(read_run(folder / "tiny.run")) == ["q0", "q1"]


def test_the_base_row_is_checked_before_data_sets_are_built(tmp_path: Path) -> None:
    bench = bench_of(tmp_path / "missing.jsonl", baselines=["bm25"], base="bm52")
    with pytest.raises(ConfigError, match="base is 'bm52', which is no row of this benchmark: it has random, bm25"):
        run_bench(bench, tmp_path / "out", Listening())


def test_without_measures_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtraError, match="ir_measures"):
        run_bench(bench_of(tmp_path / "missing.jsonl", baselines=["all"]), tmp_path / "out", Listening())


def test_what_a_server_refuses_is_noted_also_from_the_cache(
    lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fakeserver import failure, serving

    def answer(body: Any) -> Any:
        if "temperature" in body:
            return failure(
                400, "Unsupported parameter: 'temperature'", param="temperature", code="unsupported_parameter"
            )
        return "<answer>passage 2</answer>"

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serving(answer) as server:
        rows = [{"model": f"openai:m@{server.url}", "ranker": {"kind": "direct", "thinking": False}}]
        bench = bench_of(lists(4), rows=rows)
        first = run_bench(bench, tmp_path / "out", Listening())
        asked = len(server.bodies)
        second = run_bench(bench, tmp_path / "out", Listening())
    assert first.names == ("random", "m direct")
    assert [note.split(":")[0] for note in first.facts["notes"]] == ["'m direct'"]
    assert "refuses 'temperature'" in first.facts["notes"][0]
    assert second == first
    assert len(server.bodies) == asked
    assert first.cells[1].flops == 0.0


def test_a_report_survives_its_file(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    report = run_bench(bench_of(lists(2), rows=[row(tiny_folder)]), tmp_path / "out", Listening(), {"name": "x"})
    (tmp_path / "report.json").write_text(json.dumps(report.to_dict()), encoding="utf-8")
    assert BenchReport.load(tmp_path / "report.json") == report

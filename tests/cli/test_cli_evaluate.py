"""`r1ranker evaluate`: the report's rows and facts, and that no finished row is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from fakeserver import Body, failure, serving
from r1ranker.baselines import BM25
from r1ranker.cli import compare
from r1ranker.datasets import read_qrels, read_run
from r1ranker.evaluation import Report
from r1ranker.evaluation.harness import run_ranker
from r1ranker.types import RankingExample

Invoke = Callable[..., Result]


def test_a_model_stands_beside_the_baselines(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    result = cli("evaluate", "--model", tiny_folder, "--dataset", tasks_file, "--limit", 3)
    assert result.exit_code == 0, result.stderr
    report = Report.load("runs/evaluate/tiny-tasks")
    assert [row.name for row in report.rows] == ["random", "bm25", "tiny"]
    assert report.base == "random"
    assert report.rows[0].p_value is None
    assert report.rows[2].calls == 3 * 2
    assert report.facts["test examples"] == "3 of 4"
    assert report.facts["versions"]["torch"]
    assert len(report.facts["fingerprint"]) == 64
    assert "report.md" in result.stdout
    # What went out reads back: three queries with three candidates each, in the order of the scores.
    runs = Path("runs/evaluate/tiny-tasks/runs")
    ranked = read_run(runs / "tiny.run")
    assert [len(documents) for documents in ranked.values()] == [3, 3, 3]
    assert set(read_qrels(runs / "qrels.txt")) == set(ranked)


def test_lists_are_handed_over_as_a_first_stage_ranks_them(
    cli: Invoke, tiny_folder: Path, tasks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RankingExample] = []

    def watched(name: str, ranker: Any, examples: Any, *rest: Any, **more: Any) -> Any:
        seen.extend(examples if name == "tiny" else ())
        return run_ranker(name, ranker, examples, *rest, **more)

    monkeypatch.setattr(compare, "run_ranker", watched)
    arguments = ("evaluate", "--model", tiny_folder, "--dataset", tasks_file, "--limit", 3)
    assert cli(*arguments).exit_code == 0
    given, seen[:] = list(seen), []
    assert cli(*arguments, "--first-stage", "bm25").exit_code == 0
    assert [e.id for e in seen] == [e.id for e in given]
    assert [(e.ids, e.presorted) for e in seen] == [(BM25().order(e), True) for e in given]
    report = Report.load("runs/evaluate/tiny-tasks")
    assert (report.facts["first stage"], report.facts["test examples"]) == ("bm25", "3 of 4")
    assert [row.name for row in report.rows] == ["random", "as listed", "bm25", "tiny"]
    places = [BM25().order(e).index("d0") + 1 for e in given]
    listed = next(row for row in report.rows if row.name == "as listed")
    assert listed.per_query["MRR"] == [1 / place for place in places]  # "bm25" does not get its ties in that order
    wrong = cli(*arguments, "--first-stage", "bm52")
    assert wrong.exit_code == 1
    assert "did you mean 'bm25'?" in wrong.stderr


def test_a_run_that_is_reranked_is_a_row_and_may_be_the_base(cli: Invoke, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "one", "d2": "two", "d3": "three"}
    for name, rows in (("corpus", texts), ("queries", {"q1": "what is one", "q2": "what is three"})):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t1\n", encoding="utf-8")
    (folder / "my.run").write_text("".join(f"{q} Q0 d{k} {k} {-k} t\n" for q in ("q1", "q2") for k in (1, 2, 3)))
    arguments = ("evaluate", "-m", tiny_folder, "-D", "trec", "--source", folder, "--out", "out")
    result = cli(*arguments, "--base", "as listed")
    assert result.exit_code == 0, result.stderr
    report = Report.load("out")
    assert report.base == "as listed"
    listed = next(row for row in report.rows if row.name == "as listed")
    assert listed.per_query["MRR"] == pytest.approx([1, 1 / 3])
    wrong = cli(*arguments, "--base", "popularity")
    assert wrong.exit_code == 1
    assert (
        "there is no row 'popularity' to compare with on 'trec': it has random, as listed, bm25, tiny" in wrong.stderr
    )


def test_p_values_compare_with_the_base_model(cli: Invoke, tiny_folder: Path, tasks_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    result = cli("evaluate", "-m", other, "-D", tasks_file, "--base", tiny_folder, "--no-baselines", "--out", "out")
    assert result.exit_code == 0, result.stderr
    report = Report.load("out")
    assert [row.name for row in report.rows] == ["random", "tiny", "other"]
    assert report.base == "tiny"
    assert [row.p_value is None for row in report.rows] == [False, True, False]
    assert report.rows[1].measures == report.rows[2].measures


def test_a_model_that_fails_leaves_the_rows_before_it(
    cli: Invoke, tiny_folder: Path, tasks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "run_ranker", stop)
    result = cli("evaluate", "--model", tiny_folder, "--dataset", tasks_file, "--out", "out")
    assert result.exit_code == 130
    assert "stopped: the rows that were finished are in out/report.json" in result.stderr
    assert [row.name for row in Report.load("out").rows] == ["random", "bm25"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "rec-movi"), "did you mean 'rec-movie'?"),
        (("--dataset", "rec-music"), "needs a source"),
        (("--dataset", "rec-music", "--source", "nowhere"), "does not exist"),
        (("--dataset", "rec-movie", "--option", "candidate=3"), "did you mean 'candidates'?"),
        (("--dataset", "rec-movie", "--option", "candidates"), "write it as key=value"),
        (("--dataset", "missing.jsonl"), "missing.jsonl does not exist"),
    ],
)
def test_a_wrong_data_set_or_option_is_named(cli: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = cli("evaluate", "--model", "unused", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_the_report_folder_is_tried_before_anything_long(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    Path("file").write_text("", encoding="utf-8")
    result = cli("evaluate", "--model", tiny_folder, "--dataset", tasks_file, "--out", "file/out")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_first_step_stands_beside_the_others(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    result = cli("evaluate", "-m", tiny_folder, "-D", tasks_file, "--ranker", "first-step", "--out", "out")
    assert result.exit_code == 0, result.stderr
    report = Report.load("out")
    assert report.rows[-1].calls == 4
    assert report.facts["ranker"]["kind"] == "first_step"


def test_a_model_behind_a_server_is_measured_and_no_password_saved(
    cli: Invoke, tasks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def answer(body: Body) -> str | tuple[int, Body]:
        return failure(400, "unsupported", param="seed") if "seed" in body else "<answer>passage 3</answer>"

    with serving(answer) as fake:
        spec = f"openai:org/m:7b@{fake.url.replace('http://', 'http://me:secret@')}"
        monkeypatch.setattr("sys.argv", ["r1ranker", "evaluate", "--model", spec])
        result = cli("evaluate", "--model", spec, "--dataset", tasks_file, "--no-baselines")
    assert result.exit_code == 0, result.stderr
    folder = Path("runs/evaluate/org-m-7b-tasks")
    report = Report.load(folder)
    assert [row.name for row in report.rows] == ["random", "org/m:7b"]
    assert report.rows[1].calls == 4 * 2
    assert report.facts["notes"] == [f"openai:org/m:7b@{fake.url} refuses 'seed': asked without it"]
    assert report.facts["model"] == f"openai:org/m:7b@{fake.url}"
    assert not [path for path in folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert "secret" not in result.output

"""`r1ranker data`, `model` and `doctor`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from r1ranker.assets import ASSETS
from r1ranker.cli import doctor
from r1ranker.datasets import DATASETS, read_examples

Invoke = Callable[..., Result]


def test_every_data_set_is_listed(cli: Invoke) -> None:
    text = cli("data", "list").stdout
    assert all(name in text for name in DATASETS)


def test_show_tells_counts_examples_and_the_prompt(cli: Invoke, tasks_file: Path) -> None:
    result = cli("data", "show", tasks_file, "--limit", 1, "--answer-form", "id", "--option", "shuffle=false")
    assert result.exit_code == 0
    assert "0 train and 4 test examples; candidates: 3" in result.stdout
    assert result.stdout.count("query: ") == 1
    assert "   * [d0] answer 0 to 0" in result.stdout
    assert "passage 1: answer 0 to 0" in result.stdout


def test_build_writes_what_rank_reads(cli: Invoke, tasks_file: Path) -> None:
    result = cli("data", "build", tasks_file, "--out", "sub/copy.jsonl", "--split", "both", "--option", "shuffle=false")
    assert result.exit_code == 0
    assert read_examples(Path("sub/copy.jsonl")) == read_examples(tasks_file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tasks.jsonl", "--split", "train", "--out", "x.jsonl"), "no train examples"),
        (("tasks.jsonl", "--out", "x.jsonl.gz"), "plain text"),
        (
            ("tasks.jsonl", "--out", "x.jsonl", "--option", "seed=abc", "--option", "test_fraction=yes"),
            "a whole number",
        ),
        (("tasks.jsonl", "--out", "tasks.jsonl/x.jsonl"), "cannot write"),
    ],
)
@pytest.mark.usefixtures("tasks_file")
def test_build_says_what_is_wrong(cli: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = cli("data", "build", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_validate_names_every_broken_line(cli: Invoke, tasks_file: Path) -> None:
    good = tasks_file.read_text(encoding="utf-8")
    assert cli("data", "validate", tasks_file).exit_code == 0
    bare = json.dumps({"id": "bare", "query": "q", "candidates": ["a"]})
    tasks_file.write_text(f'{good}{{"query": "q"}}\n\n{bare}\n[', encoding="utf-8")
    result = cli("data", "validate", tasks_file)
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tasks_file}:5: 'candidates' must be a list, not nothing"
    assert lines[1].startswith(f"{tasks_file}:8: not valid JSON")
    assert lines[2].startswith("1 lists have no relevant candidate")
    assert lines[2].endswith("first 'bare'")
    assert lines[3:] == [f"5 of 7 lists in {tasks_file} are good"]


def test_validate_reads_gzip_and_tells_a_file_without_any_list(cli: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}\n"))
    result = cli("data", "validate", "a.jsonl.gz")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "a.jsonl.gz:1: there is no context: give 'query' (a text) or 'history' (a list of texts)",
        "0 of 1 lists in a.jsonl.gz are good",
    ]
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    result = cli("data", "validate", "b.jsonl.gz")
    assert (result.exit_code, "b.jsonl.gz is not a whole gzip file" in result.stderr) == (1, True)


def leaky(path: Path) -> Path:
    """Lists of which one names its positive in the history."""
    rows = [
        {"history": ["Heat", f"Film {n}"], "candidates": [{"id": "x", "text": text}, "Up"], "relevance": {"x": 1}}
        for n, text in enumerate(["[Babe]", "[film 1] ", "film 1"])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_check_finds_what_leaks(cli: Invoke, tasks_file: Path, tmp_path: Path) -> None:
    result = cli("data", "check", tasks_file)
    assert (result.exit_code, "clean" in result.stdout) == (0, True)
    assert f"{tasks_file} has one side alone, and nothing was compared between two" in result.stdout.replace("\n", "")
    assert "no leak" not in result.stdout
    result = cli("data", "check", tasks_file, "--option", "test_fraction=0.5")
    assert (result.exit_code, f"no leak in {tasks_file}" in result.stdout) == (0, True)
    result = cli("data", "check", "tasks.jsonl", leaky(tmp_path / "leaky.jsonl").name)
    assert result.exit_code == 0  # "[film 1]" is another title than "Film 1", and the third list has "Film 2"
    leaking = tmp_path / "leaky.jsonl"
    leaking.write_text(leaking.read_text(encoding="utf-8").replace("Film 1", "[Film 1]"), encoding="utf-8")
    result = cli("data", "check", "tasks.jsonl", "leaky.jsonl")
    assert result.exit_code == 1
    assert "positives in histories" in result.stdout
    assert "'2': '[film 1] '" in result.stdout  # brackets are no markup
    assert "1 kind of leak found" in result.stdout


def test_check_shows_that_the_official_split_leaks(cli: Invoke, tmp_path: Path) -> None:
    rows = [
        {"problem": f"Q: {q}. From {llms}!", "candidates": llms, "gt": llms[0], "task_name": "Router-Cost"}
        for q, llms in (("add", ["A", "B"]), ("sing", ["B", "A"]), ("Sing", ["A", "B"]))
    ]
    for side, part in (("train", rows[:2]), ("test", rows[2:])):
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    arguments = ("data", "check", "ranking-bench", "--source", tmp_path)
    result = cli(*arguments, "--option", "split=official")
    assert (result.exit_code, "shared states" in result.stdout) == (1, True)
    assert cli(*arguments).exit_code == 0


def test_check_takes_a_source_for_each_name(cli: Invoke, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_text("q_id,query,llm,effect,cost\n0,q,a,1,1\n0,q,b,0,0\n", encoding="utf-8")
    names = ("data", "check", "router-cost", "router-balance")
    assert cli(*names, "--source", "one").exit_code == 0
    assert cli(*names, "--source", "router-cost=one", "--source", "two").exit_code == 0
    result = cli(*names, "--source", "router-cost=one", "--source", "router-balance=nowhere")
    assert (result.exit_code, "router-balance', nowhere, does not exist" in result.stderr) == (1, True)
    result = cli(*names, "--source", "router-cost=one")
    assert (result.exit_code, "'router-balance' needs a source" in result.stderr) == (1, True)
    result = cli(*names, "--source", "one", "--source", "two")
    assert (result.exit_code, "write it as NAME=DIR" in result.stderr) == (1, True)


def test_known_models_are_listed(cli: Invoke) -> None:
    text = cli("model", "list").stdout
    assert all((name in text) == (asset.kind != "data") for name, asset in ASSETS.items())


def test_fetch_of_a_folder_says_where_it_is(cli: Invoke, tiny_folder: Path) -> None:
    assert cli("model", "fetch", tiny_folder).stdout.strip() == str(tiny_folder)


def test_fetch_names_the_nearest_model(cli: Invoke) -> None:
    result = cli("model", "fetch", "smollm2-135m")
    assert result.exit_code == 1
    assert "did you mean 'smollm2-135m-instruct'?" in result.stderr


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_reach", lambda _: "no route")
    monkeypatch.setattr(doctor, "_ask_pip", lambda: "no route")


@pytest.mark.usefixtures("offline")
def test_doctor_without_net_or_model_says_what_to_do(cli: Invoke) -> None:
    result = cli("doctor")
    assert result.exit_code == 1
    assert "not ready: model" in result.stdout
    assert "connect this machine" in result.stdout


def test_doctor_with_net_is_ready(cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_reach", lambda _: "")
    monkeypatch.setattr(doctor, "_ask_pip", lambda: "")
    result = cli("doctor")
    assert result.exit_code == 0
    assert "r1ranker model fetch" in result.stdout


@pytest.mark.usefixtures("offline")
def test_doctor_finds_a_cache_that_cannot_be_written(
    cli: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("R1RANKER_CACHE", str(tmp_path / "file" / "cache"))
    result = cli("doctor")
    assert result.exit_code == 1
    assert "not ready: cache" in result.stdout


def test_a_package_that_is_missing_has_a_remedy() -> None:
    finding = doctor._package("no_such_package", "pip install it")
    assert (finding.state, finding.remedy) == ("fail", "pip install it")
    assert doctor._extra("no_such_package", "eval", "x").remedy == "pip install 'r1ranker[eval]'"

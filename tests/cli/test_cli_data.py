"""`r1ranker data`, `model` and `doctor`."""

from __future__ import annotations

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
    result = cli("data", "show", tasks_file, "--limit", 1, "--answer-form", "id")
    assert result.exit_code == 0
    assert "0 train and 4 test examples; candidates: 3" in result.stdout
    assert result.stdout.count("query: ") == 1
    assert "   * [d0] answer 0 to 0" in result.stdout
    assert "passage 1: answer 0 to 0" in result.stdout


def test_build_writes_what_rank_reads(cli: Invoke, tasks_file: Path) -> None:
    result = cli("data", "build", tasks_file, "--out", "sub/copy.jsonl", "--split", "both")
    assert result.exit_code == 0
    assert read_examples(Path("sub/copy.jsonl")) == read_examples(tasks_file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tasks.jsonl", "--split", "train", "--out", "x.jsonl"), "no train examples"),
        (("tasks.jsonl", "--out", "x.jsonl.gz"), "plain text"),
        (("tasks.jsonl", "--out", "x.jsonl", "--option", "seed=abc", "--option", "test_fraction=yes"), "wrong kind"),
        (("tasks.jsonl", "--out", "tasks.jsonl/x.jsonl"), "cannot write"),
    ],
)
@pytest.mark.usefixtures("tasks_file")
def test_build_says_what_is_wrong(cli: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = cli("data", "build", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_known_models_are_listed(cli: Invoke) -> None:
    text = cli("model", "list").stdout
    assert all((name in text) == (asset.kind == "model") for name, asset in ASSETS.items())


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

"""`r1ranker bench`: the command's files, its resuming, and an error for everything that is wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from fakeserver import serving
from r1ranker.benchmark.report import BenchReport

Invoke = Callable[..., Result]


@pytest.fixture
def bench_file(tmp_path: Path, tiny_folder: Path, tasks_file: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(
        f"""
        # A small one
        name = "mine"
        device = "cpu"
        limit = 3
        baselines = ["bm25"]
        [data]
        names = ["{tasks_file}"]
        [[rows]]
        name = "a [bold]|<model>"
        model = "{tiny_folder}"
        """,
        encoding="utf-8",
    )
    return path


def test_the_list_says_what_each_benchmark_is(cli: Invoke) -> None:
    result = cli("bench", "--list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["baselines", "iranker", "smollm2"]
    assert all(len(line.split()) > 5 for line in lines)


def test_a_benchmark_writes_its_files_and_shows_its_tables(cli: Invoke, bench_file: Path) -> None:
    result = cli("bench", bench_file)
    assert result.exit_code == 0, result.stderr
    folder = Path("runs/bench/mine")
    report = BenchReport.load(folder / "report.json")
    assert report.names == ("random", "bm25", "a [bold]|<model>")
    assert report.facts["name"] == "mine"
    assert report.facts["versions"]["r1ranker"]
    names = ["cost.png", "passage.png", "report.csv", "report.html", "report.json", "report.md"]
    assert sorted(p.name for p in folder.glob("*.*")) == ["bench.json", *names]
    assert all(str(folder / name) in result.stdout for name in names)
    assert "a [bold]|<model>" in result.stdout
    assert "Cost of a query" in result.stdout
    assert json.loads((folder / "bench.json").read_text(encoding="utf-8"))["limit"] == 3


def test_the_same_command_again_only_reports_and_set_changes_settings(cli: Invoke, bench_file: Path) -> None:
    first = cli("bench", bench_file, "--out", "out")
    kept = {path.name: path.read_bytes() for path in Path("out/cache").iterdir()}
    again = cli("bench", bench_file, "--out", "out")
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert {path.name: path.read_bytes() for path in Path("out/cache").iterdir()} == kept
    assert again.stdout == first.stdout
    more = cli("bench", bench_file, "--out", "out", "--set", "limit=4")
    assert more.exit_code == 0, more.stderr
    assert {cell.queries for cell in BenchReport.load(Path("out/report.json")).cells} == {4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a benchmark: 'r1ranker bench --list'"),
        (("baseline",), "there is no benchmark 'baseline': did you mean 'baselines'?"),
        (("baselines", "--set", "limt=3"), "there is no key 'limt'; did you mean 'limit'?"),
        (("baselines", "--set", "limit"), "write it as key=value"),
        (("baselines", "--source", "rec-music"), "--source rec-music: write it as name=path"),
        (("baselines", "--source", "rec-films=x"), "'rec-films' matches none of data.names"),
        (("baselines", "--set", "base=bm52"), "base is 'bm52', which is no row of this benchmark"),
        (("baselines", "--set", 'data.names=["rec-film"]'), "unknown data set 'rec-film'"),
        (("baselines", "--set", 'data.names=["rec-music"]'), "data set 'rec-music' needs a source"),
        (
            ("baselines", "--set", 'data.names=["rec-music"]', "--source", "rec-music=nowhere"),
            "the source of data set 'rec-music', nowhere, does not exist",
        ),
        (("mine", "--set", 'rows=[{model="smollm-135"}]'), "no model is called 'smollm-135'"),
        (("mine", "--set", 'rows=[{model="."}]', "--set", "baselines=[]"), "holds no model"),
        (
            ("mine", "--set", 'data.options."*".seed="x"', "--set", 'data.options."*".test_fraction="y"'),
            "a whole number",
        ),
    ],
)
def test_an_error_is_one_line(cli: Invoke, bench_file: Path, arguments: tuple[str, ...], message: str) -> None:
    result = cli("bench", *(str(bench_file) if a == "mine" else a for a in arguments))
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0] == result.stderr.splitlines()[-1]
    assert message in errors[0]


def test_an_option_of_the_wrong_kind_names_the_data_set_and_the_option(cli: Invoke, tasks_file: Path) -> None:
    setting = f"data.options.{json.dumps(str(tasks_file))}.test_fraction=" + '"half"'
    result = cli("bench", "baselines", "--set", f'data.names=["{tasks_file}"]', "--set", setting)
    assert result.exit_code == 1
    assert f"data set '{tasks_file}': test_fraction is 'half'; it must be a number" in result.stderr


def test_a_cache_that_cannot_be_written_is_told_before_anything_long(cli: Invoke, bench_file: Path) -> None:
    Path("out").mkdir()
    Path("out/cache").write_text("", encoding="utf-8")
    result = cli("bench", bench_file, "--out", "out")
    assert result.exit_code == 1
    assert "cannot write out/cache" in result.stderr
    assert "building" not in result.stderr


def test_a_stop_says_what_is_kept_and_what_is_known_stays(
    cli: Invoke, bench_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1ranker.benchmark.contenders import ModelRow

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ModelRow, "rank", stop)
        result = cli("bench", bench_file, "--out", "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("stopped: what is finished is kept in out/cache")
    assert len(list(Path("out/cache").iterdir())) == 1
    assert cli("bench", bench_file, "--out", "out").exit_code == 0


def test_a_model_that_fails_leaves_the_report_of_the_others_and_an_exit_code(
    cli: Invoke, bench_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1ranker.benchmark.contenders import ModelRow
    from r1ranker.errors import AssetError

    def down(*_: object) -> None:
        raise AssetError("the server is down")

    with monkeypatch.context() as patch:
        patch.setattr(ModelRow, "rank", down)
        result = cli("bench", bench_file, "--out", "out")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: 1 row could not be finished, run the same command again: ")
    assert last.endswith("the server is down")
    report = BenchReport.load(Path("out/report.json"))
    assert report.names == ("random", "bm25")
    assert "the server is down" in Path("out/report.md").read_text(encoding="utf-8")
    assert cli("bench", bench_file, "--out", "out").exit_code == 0


def test_without_network_a_named_encoder_is_one_line_and_all_leaves_it_out(
    cli: Invoke, bench_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from r1ranker.baselines import embeddings
    from r1ranker.errors import AssetError

    def offline(name: object) -> Path:
        raise AssetError(f"{name} cannot be fetched: check the network")

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    monkeypatch.setattr(embeddings, "fetch_model", offline)
    result = cli("bench", bench_file, "--out", "out", "--set", 'baselines=["embeddings"]', "--set", "rows=[]")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: all-minilm-l6-v2 cannot be fetched: check the network"
    result = cli("bench", bench_file, "--out", "out", "--set", 'baselines=["all"]', "--set", "rows=[]")
    assert result.exit_code == 0, result.stderr
    report = BenchReport.load(Path("out/report.json"))
    assert report.names == ("random", "bm25")
    assert any("check the network" in note for note in report.facts["notes"])


def test_passwords_in_addresses_are_written_nowhere(cli: Invoke, bench_file: Path) -> None:
    with serving(lambda _: "<answer>1</answer>") as server:
        model = "openai:m@" + server.url.replace("http://", "http://me:secret@")
        result = cli("bench", bench_file, "--out", "out", "--set", f'rows=[{{model="{model}"}}]')
    assert result.exit_code == 0, result.stderr
    assert server.bodies
    assert "secret" not in result.output
    files = [path for path in Path("out").rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        assert b"secret" not in path.read_bytes(), path

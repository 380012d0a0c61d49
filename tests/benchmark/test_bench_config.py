"""A benchmark's file: what it may say, and what an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ranker.baselines import BASELINES
from r1ranker.benchmark.config import NINE, BenchConfig, load_bench
from r1ranker.cli.recipes import BENCHMARKS, shipped_recipes
from r1ranker.datasets import DATASETS
from r1ranker.errors import ConfigError

FILE = """
baselines = ["bm25"]
[data]
names = ["rec-music", "router-cost", "passage-5"]
[data.sources]
"rec-*" = "music"
"*" = "elsewhere"
passage-5 = "selqa"
[data.options]
"*" = { seed = 1 }
passage-5 = { seed = 2, candidates = 4 }
[[rows]]
model = "smollm2-135m-instruct"
datasets = ["rec-*", "passage-5"]
first_stage = { "rec-*" = "popularity", passage-5 = "bm25" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", shipped_recipes(BENCHMARKS), ids=lambda path: path.stem)
def test_the_shipped_benchmarks_load_and_name_what_there_is(path: Path) -> None:
    bench = load_bench(path)
    assert bench.name == path.stem
    assert set(bench.data.names) <= set(DATASETS)
    assert set(bench.baselines) <= {*BASELINES, "all"}
    assert {row.baseline for row in bench.rows} <= {*BASELINES, None}
    assert bench.base in {"random", *bench.baselines, *(row.name for row in bench.rows)}


def test_the_papers_nine_are_the_default() -> None:
    assert BenchConfig(baselines=("all",)).data.names == NINE
    assert set(NINE) < set(DATASETS)


def test_the_last_source_that_matches_counts_and_options_add_up(file: Path) -> None:
    data = load_bench(file).data
    assert [data.source(name) for name in data.names] == ["elsewhere", "elsewhere", "selqa"]
    assert data.options_of("rec-music") == {"seed": 1}
    assert data.options_of("passage-5") == {"seed": 2, "candidates": 4}


def test_limits(file: Path) -> None:
    assert load_bench(file).limit == 200
    assert load_bench(file, ["limit=50"]).limit == 50
    assert load_bench(file, ["limit=false"]).limit is None


def test_other_data_by_set_makes_what_the_file_says_of_its_own_moot(file: Path) -> None:
    bench = load_bench(file, ['data.names=["passage-5"]'])
    assert bench.data.sources == {"*": "elsewhere", "passage-5": "selqa"}
    assert bench.rows[0].datasets == ("passage-5",)
    assert bench.rows[0].first_stage == {"passage-5": "bm25"}
    assert load_bench(file, ['data.names=["router-cost"]']).rows[0].datasets == ()


def test_a_row_whose_first_stages_are_all_moot_ranks_nothing_without_one(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    rows = "[[rows]]\nmodel = 'x'\nfirst_stage = { 'passage-*' = 'bm25' }\n[[rows]]\nmodel = 'y'\n"
    path.write_text(f"{rows}[data]\nnames = ['rec-movie', 'passage-5']\n", encoding="utf-8")
    after, plain = load_bench(path, ['data.names=["rec-movie"]']).rows
    assert (after.first_stage, after.datasets) == ({}, ())
    assert plain.datasets == ("*",)


def test_goals_of_other_data_are_moot_and_the_row_stays(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    row = "[[rows]]\nmodel = 'x'\ngoals = { 'router-*' = 'well', 'router-cost' = 'cheaply' }\n"
    path.write_text(f"{row}[data]\nnames = ['passage-5', 'router-cost', 'router-balance']\n", encoding="utf-8")
    (left,) = load_bench(path, ['data.names=["router-balance"]']).rows
    assert (left.goals, left.datasets) == ({"router-*": "well"}, ("*",))
    (left,) = load_bench(path, ['data.names=["passage-5"]']).rows
    assert (left.goals, left.datasets) == ({}, ("*",))


def test_what_set_itself_says_of_other_data_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[data.sources\] 'rec-game' matches none"):
        load_bench(file, ['data.names=["passage-5"]', 'data.sources.rec-game="x"'])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("basline = 'x'", "there is no key 'basline'; did you mean 'baselines'?"),
        ("[order]\nlisting = 3", "there is no key 'order.listing'; did you mean 'order.listings'?"),
        ("[[rows]]\nbaseline = 'bm25'\n[[rows]]\nmodle = 'x'", "no key 'rows[1].modle'; did you mean 'rows.model'?"),
        ("[[rows]]\nmodel = 'x'\nranker = { kinds = 'direct' }", "rows[0]: ranker: there is no key 'kinds'"),
        ("[[rows]]\nmodel = 'x'\nranker = { kind = 'direct', max_tokens = 0 }", "rows[0]: ranker: max_tokens: Input"),
        ("[[rows]]\nmodel = 'x'\nbaseline = 'bm25'", "rows[0]: a row has one of 'model', 'baseline' and 'run'"),
        ("[[rows]]\nname = 'x'", "rows[0]: a row has one of 'model', 'baseline' and 'run'"),
        ("[[rows]]\nbaseline = 'bm25'\ntemperature = 1", "belong to a row with a 'model'"),
        ("[[rows]]\nmodel = 'x'\noptions = { k = 1 }", "'options' belong to a row with a 'baseline'"),
        ("[[rows]]\nmodel = 'x'\ndatasets = ['pasage-*']", "'pasage-*', which matches none of data.names"),
        ("[[rows]]\nbaseline = 'bm25'\nfirst_stage = { '*' = 'bm25' }", "belong to a row with a 'model'"),
        ("[[rows]]\nmodel = 'x'\nfirst_stage = { 'pasage-*' = 'bm25' }", "a row's first_stage has 'pasage-*', which"),
        ("[[rows]]\nbaseline = 'bm25'\ngoals = { '*' = 'well' }", "and 'goals' belong to a row with a 'model'"),
        ("[[rows]]\nmodel = 'x'\ngoals = { 'ruter-*' = 'well' }", "a row's goals has 'ruter-*', which matches none"),
        ("[data.options]\n'rec-films' = { seed = 1 }", "[data.options] 'rec-films' matches none of data.names"),
        ("[data]\nnames = ['rec-movie', 'rec-movie']", "names lists 'rec-movie' twice"),
        ("[data]\nnames = []", "data.names: Tuple should have at least 1 item"),
        ("limit = 0", "limit: Input should be greater than or equal to 1"),
        ("limit = true", "limit: Input should be a valid integer"),
        ("seeds = [1, 1]", "seeds lists a seed twice"),
        ("[order]\nlistings = 1", "order: one listing has nothing to be compared with"),
    ],
)
def test_an_error_is_one_line_that_names_the_key(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(("" if "base" in line.split("=")[0] else "baselines = ['bm25']\n") + line, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_bench(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_benchmark_needs_something_to_rank_with(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="nothing to rank with"):
        load_bench(path)

"""The nine data sets with the baselines that need no model, on real data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchruns import Listening
from r1ranker.benchmark.config import NINE, load_bench
from r1ranker.benchmark.run import run_bench
from r1ranker.benchmark.tables import measure_table, tables
from r1ranker.cli.recipes import BENCHMARKS, find_recipe

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.assets
def test_the_nine_data_sets_side_by_side(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip(f"the real data is not beside this checkout ({DATA})")
    sources = {
        "rec-music": "rec_music_amazon",
        "rec-game": "rec_game_amazon",
        "router-*": "router_nq6",
        "passage-*": "passage_selqa",
    }
    sets = [f'data.sources."{name}"="{DATA / folder}"' for name, folder in sources.items()]
    file = find_recipe("baselines", BENCHMARKS)
    bench = load_bench(file, [*sets, "limit=30", 'baselines=["popularity", "label-prior", "bm25"]'])
    report = run_bench(bench, tmp_path, Listening())
    assert report.datasets == NINE
    assert [len(report.of(name)) for name in report.names] == [9, 3, 3, 9]
    assert {cell.queries for cell in report.cells} == {30}
    # One relevant candidate among 20: H(20) / 20.
    assert report.cells[0].measures["MRR"] == pytest.approx(0.17989, abs=1e-5)
    assert "+" in dict(measure_table(report, "MRR").rows)["bm25"][NINE.index("passage-9")].text
    assert [table.title for table in tables(report)][-2:] == ["Data", "Quoted, not measured here: MRR in the paper"]

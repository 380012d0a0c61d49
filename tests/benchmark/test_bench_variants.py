"""Variants: the same lists judged in another way, and the run files that go with every cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchruns import Listening, row
from r1ranker.benchmark.config import BenchConfig, RowConfig
from r1ranker.benchmark.contenders import ModelRow, contenders
from r1ranker.benchmark.export import csv_text, markdown
from r1ranker.benchmark.run import load_datasets, run_bench
from r1ranker.benchmark.tables import cost_table, measure_table, variant_table
from r1ranker.datasets import read_qrels, read_run


@pytest.fixture
def bench(tmp_path: Path, tiny_folder: Path) -> BenchConfig:
    """Eight queries on which LLM a is right, b is right as well, and c is wrong."""
    lines = ["q_id,query,llm,effect,cost"]
    for k in range(8):
        lines += [
            f"{k},number {k} of something {'x' * k},{llm},{effect},1"
            for llm, effect in zip("abc", (1, 1, 0), strict=True)
        ]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return BenchConfig.model_validate(
        {
            "data": {
                "names": ["router-performance"],
                "sources": {"router-*": str(tmp_path / "table.csv")},
                "options": {"router-*": {"test_fraction": 0.5, "near_duplicates": 1.0}},
                "variants": {"first best": {"of": "router-performance", "options": {"ties": "first"}}},
            },
            "device": "cpu",
            "dtype": "float32",
            "baselines": ["bm25"],
            "rows": [row(tiny_folder)],
        }
    )


def test_a_row_for_some_data_sets_is_for_their_variants_too(bench: BenchConfig, tiny_folder: Path) -> None:
    rows = [row(tiny_folder, name=pattern, datasets=[pattern]) for pattern in ("router-*", "first best", "passage-5")]
    rows.append(row(tiny_folder, name="handed over", first_stage={"router-*": "bm25"}))
    some, alone, none, handed = contenders(
        bench.model_copy(update={"rows": [RowConfig(**r) for r in rows], "baselines": ()})
    )
    plain, variant = load_datasets(bench)
    assert (plain.name, variant.name) == ("router-performance", "first best")
    assert [r.applies(variant) for r in (some, alone, none, handed)] == [True, True, False, True]
    assert [r.applies(plain) for r in (some, alone, none, handed)] == [True, False, False, True]


def test_a_variant_is_judged_anew_and_asks_nothing(
    bench: BenchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    rank = ModelRow.rank

    def counted(self: Any, *rest: Any) -> Any:
        nonlocal asked
        asked += 1
        return rank(self, *rest)

    monkeypatch.setattr(ModelRow, "rank", counted)
    report = run_bench(bench, tmp_path / "out", Listening())
    assert asked == 1
    assert report.datasets == ("router-performance",)
    # Two of three LLMs are right by effect, one of three is the first of them: H(3)/3 = 11/18.
    random, first = report.cell("random", "router-performance"), report.cell("random", "first best")
    assert random is not None
    assert first is not None
    assert random.measures["Hit@1"] == pytest.approx(2 / 3)
    assert first.measures["Hit@1"] == pytest.approx(1 / 3)
    assert first.measures["MRR"] == pytest.approx(11 / 18)
    ours, theirs = report.cell("tiny", "first best"), report.cell("tiny", "router-performance")
    assert ours is not None
    assert theirs is not None
    assert ours.calls == theirs.calls == 4 * 2
    assert ours.measures["MRR"] <= theirs.measures["MRR"]


def test_variants_have_a_table_of_their_own(bench: BenchConfig, tmp_path: Path) -> None:
    report = run_bench(bench, tmp_path / "out", Listening())
    assert measure_table(report, "MRR").columns == ("router-performance", "mean")
    table = variant_table(report, "Hit@1")
    assert table.columns == ("first best",)
    assert dict(table.rows)["random"][0].text == "0.333"
    assert "ties = first" in table.note
    assert report.mean("random", "Hit@1") == pytest.approx(2 / 3)
    # A query costs a model two calls, once: the variant's lists are the same ones.
    assert dict(cost_table(report).rows)["tiny"][0].text == "2.0"
    assert "## Hit@1, judged in another way" in markdown(report)
    assert "tiny,first best,routing,4,1,MRR" in csv_text(report)


def test_each_cell_has_a_run_file(bench: BenchConfig, tmp_path: Path) -> None:
    run_bench(bench, tmp_path / "out", Listening())
    folder = tmp_path / "out" / "runs" / "router-performance"
    ranked = read_run(folder / "tiny.run")
    assert len(ranked) == 4
    assert all(sorted(documents) == ["a", "b", "c"] for documents in ranked.values())
    assert all(grades == {"a": 1, "b": 1, "c": 0} for grades in read_qrels(folder / "qrels.txt").values())
    first = read_qrels(folder.parent / "first-best" / "qrels.txt")
    assert all(grades == {"a": 1, "b": 0, "c": 0} for grades in first.values())
    assert (folder / "bm25.run").exists()

"""The paper's figures: shown when asked for, marked as quoted, and as they are written."""

from __future__ import annotations

import sys
from importlib.resources import files

import pytest

from r1ranker.benchmark.config import NINE
from r1ranker.benchmark.quoted import quoted_data, quoted_rows
from r1ranker.benchmark.report import BenchReport
from r1ranker.benchmark.tables import quoted_table, tables
from r1ranker.evaluation import MEASURES, row_of_scores

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CELL = row_of_scores("random", "passage-5", {m: [0.5] for m in MEASURES})
PASSAGE = {"passage-5": "passage", "mine.jsonl": "passage"}


def test_quoted_only_when_asked() -> None:
    assert not quoted_table(BenchReport((CELL,), "random", PASSAGE)).rows
    assert not any("Quoted" in t.title for t in tables(BenchReport((CELL,), "random", PASSAGE)))


def test_it_is_marked_and_says_on_what_it_was_measured() -> None:
    made = quoted_table(BenchReport((CELL,), "random", PASSAGE, quoted=True))
    assert made.title == "Quoted, not measured here: MRR in the paper"
    assert made.columns == ("passage-5",)
    assert made.rows[0] == ("measured on", made.rows[0][1])
    assert made.rows[0][1][0].text == "MS MARCO v1.1"
    assert "arXiv 2506.21638" in made.note
    assert not any(cell.best for _, cells in made.rows for cell in cells)


@pytest.mark.parametrize(
    ("name", "dataset", "text"),
    [
        ("IRanker-3B (RL)", "rec-game", "0.425"),
        ("IRanker-3B (RL)", "router-cost", "0.304"),
        ("IRanker-3B (RL)", "router-balance", "0.244"),
        ("BM25", "passage-9", "0.397"),
        ("SASRec", "rec-movie", "about 0.340"),
        ("SASRec", "passage-5", "-"),
    ],
)
def test_figures_of_the_paper(name: str, dataset: str, text: str) -> None:
    report = BenchReport((), "random", dict.fromkeys(NINE, "passage"), quoted=True)
    made = quoted_table(report)
    assert made.columns == NINE
    assert dict(made.rows)[name][NINE.index(dataset)].text == text


def test_all_of_the_file_is_shown() -> None:
    raw = tomllib.loads((files("r1ranker.benchmark") / "quoted.toml").read_text(encoding="utf-8"))
    assert tuple(raw["data"]) == NINE
    assert quoted_data() == raw["data"]
    made = quoted_table(BenchReport((), "random", dict.fromkeys(NINE, "passage"), quoted=True))
    assert [name for name, _ in made.rows[1:]] == [row["name"] for row in raw["rows"]]
    for row, quoted, (_, cells) in zip(raw["rows"], quoted_rows(), made.rows[1:], strict=True):
        assert row["from"] in ("table", "chart")
        assert set(row["MRR"]) <= set(NINE)
        assert row["from"] == "chart" or set(row["MRR"]) == set(NINE)
        assert quoted.approximate == (row["from"] == "chart")
        for name, cell in zip(NINE, cells, strict=True):
            expected = f"{row['MRR'][name] / 100:.3f}" if name in row["MRR"] else "-"
            assert cell.text.removeprefix("about ") == expected

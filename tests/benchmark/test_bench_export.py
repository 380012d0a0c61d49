"""What a report is written as: JSON, CSV, Markdown, pictures, a page, and the terminal's tables."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from r1ranker.benchmark import export
from r1ranker.benchmark.config import NINE
from r1ranker.benchmark.order import OrderRow
from r1ranker.benchmark.report import BenchReport
from r1ranker.benchmark.tables import tables
from r1ranker.errors import MissingExtraError
from r1ranker.evaluation import MEASURES, row_of_scores

ODD = 'my|own <b>"model"</b> & more &amp;\n[bold]$x$ <script>alert(1)</script>'
SCENARIOS = {name: {"r": "routing", "p": "passage"}[name[0]] for name in NINE[3:]}
SCENARIOS = {**dict.fromkeys(NINE[:3], "recommendation"), **SCENARIOS}


def make(names: tuple[str, ...], scenarios: dict[str, str]) -> BenchReport:
    cells = [
        replace(
            row_of_scores(name, dataset, {m: [(k + q) % 3 / 2 for q in range(12)] for m in MEASURES}),
            seconds=0.3 * k,
            calls=24 * (k > 1),
            parse={"exact": 24 * (k > 1), "repaired": 0, "defaulted": 0, "failed": 0},
            truncated=3 * (k > 1),
            cut_short=5 * (k > 1),
        )
        for k, name in enumerate(names)
        for dataset in scenarios
    ]
    about = {d: {"source": "here", "notes": [f"3 lists dropped: {ODD}"]} for d in scenarios}
    return BenchReport(
        tuple(cells),
        "random",
        scenarios,
        order=(OrderRow(names[-1], next(iter(scenarios)), 12, 3, 0.5, 0.2, 0.4, 0.6),),
        quoted=True,
        facts={"name": ODD, "command": f"bench {ODD}", "data": about},
    )


REPORT = make(("random", "bm25", ODD), {"passage-5": "passage", "odd|<i>data</i>\n.jsonl": "passage"})


def test_csv_parses_back_with_the_same_numbers() -> None:
    rows = list(csv.DictReader(export.csv_text(REPORT).splitlines(keepends=True)))
    assert len(rows) == len(REPORT.cells) * len(MEASURES)
    for row in rows:
        cell = REPORT.cell(row["row"], row["dataset"])
        assert cell is not None
        measure = row["measure"]
        assert float(row["value"]) == cell.measures[measure]
        assert (float(row["low"]), float(row["high"])) == cell.intervals[measure]
        assert (int(row["queries"]), int(row["calls"]), int(row["exact"])) == (12, cell.calls, cell.parse["exact"])
        assert int(row["runs"]) == max(1, len(cell.run_means))
        assert (float(row["seconds"]), float(row["flops"])) == (cell.seconds, cell.flops)
        assert (int(row["truncated"]), int(row["cut_short"])) == (cell.truncated, cell.cut_short)
        compared = REPORT.comparisons.get(measure, {}).get((cell.name, cell.dataset))
        tested = (row["difference"], row["p"], row["p_holm"])
        if compared is None:
            assert tested == ("", "", "")
        else:
            assert tuple(map(float, tested)) == (compared.difference, compared.p, compared.p_holm)


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip())[1:-1]


def test_markdown_tables_are_regular_and_names_do_no_harm() -> None:
    text = export.markdown(REPORT)
    assert "<script>" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&amp;amp;" in text  # the name's own "&amp;", which must not be read as "&"
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == len(tables(REPORT))
    for block, table in zip(blocks, tables(REPORT), strict=True):
        assert len(block) == 2 + len(table.rows)
        assert {len(cells_of(line)) for line in block} == {1 + len(table.columns)}, table.title
    assert text.splitlines()[0].startswith("# my\\|own &lt;b>")
    assert "random (base)" in text
    assert ".png" not in text


def test_a_number_is_the_same_in_markdown_and_on_the_page() -> None:
    text, page = export.markdown(REPORT), export.html(REPORT, [])
    shown = f"{REPORT.cells[2].measures['MRR']:.3f}"
    assert shown in text
    assert f">{shown}" in page


class Page(HTMLParser):
    """Tags, the addresses they name, and what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_else_and_takes_no_name_for_a_tag(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    source = export.html(REPORT, [picture])
    page = Page()
    page.feed(source)
    assert not {"script", "b", "i", "link", "iframe"} & set(page.tags)
    assert len(page.addresses) == 1
    assert page.addresses[0].startswith("data:image/png;base64,")
    assert "http" not in source
    assert "@import" not in source
    assert "url(" not in source
    assert ODD in page.text
    assert page.tags.count("table") == len(tables(REPORT))
    # The first three tables: best in bold, and details behind each number.
    assert source.count('class="best"') == sum(c.best for t in tables(REPORT) for _, cells in t.rows for c in cells)
    assert source.count(' title="95% interval') == 3 * len(REPORT.cells)


def test_all_files_are_written_and_no_number_is_none(tmp_path: Path) -> None:
    written = export.save(REPORT, tmp_path)
    names = ["report.json", "report.csv", "report.md", "passage.png", "cost.png", "report.html"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert BenchReport.load(tmp_path / "report.json") == REPORT
    for name in ("report.json", "report.csv", "report.md"):
        assert "nan" not in (tmp_path / name).read_text(encoding="utf-8").lower()
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((.*?)\)", text) == ["passage.png", "cost.png"]


@pytest.mark.parametrize(
    ("module", "package", "left"),
    [("matplotlib.figure", "matplotlib", []), ("jinja2", "jinja2", ["cost.png", "passage.png"])],
)
def test_without_a_package_all_else_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str, left: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=package):
        export.save(REPORT, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [*left, "report.csv", "report.json", "report.md"]
    assert re.findall(r"\]\((.*?)\)", (tmp_path / "report.md").read_text(encoding="utf-8")) == sorted(left)[::-1]


def lines_of(report: BenchReport, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        for table in export.rich_tables(report, width):
            console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_the_terminal_shows_every_number_at_any_width(width: int) -> None:
    report = make(("random", "bm25", "SmolLM2-135M-Instruct iterative, thinking", "a [bold]name"), SCENARIOS)
    lines = lines_of(report, width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert "[bold]" in text
    numbers = re.findall(r"\d\.\d{3}", text)
    assert len(numbers) >= 4 * 10  # nine data sets and the mean, for each row
    assert ("MRR, continued" in text) == (width < 140)
    assert text.count("+ or -: ") == 1
    heads = [line.split() for line in lines]
    assert [word for line in heads for word in line].count("performance") == 1


def test_the_mean_is_the_last_column_at_140() -> None:
    lines = lines_of(make(("random", "bm25"), SCENARIOS), 140)
    row = next(line for line in lines if line.strip().startswith("random (base)"))
    assert len(row.split()) == 2 + 10

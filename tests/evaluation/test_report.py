"""Rows, reports and the files they are kept in."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from r1ranker.baselines import Popularity, expected_measures
from r1ranker.errors import InputError, MissingExtraError
from r1ranker.evaluation import MEASURES, Report, Row, make_row, markdown_table, rich_table, row_of_scores
from r1ranker.evaluation.table import HEADERS
from r1ranker.rollout import rank_all
from r1ranker.types import (
    Candidate,
    Completion,
    ParsedAnswer,
    ParseStatus,
    Prompt,
    RankingExample,
    Request,
    Trace,
    Turn,
)

EXAMPLES = [
    RankingExample(f"e{i}", "passage", tuple(Candidate(c, c) for c in "abcdefg"), relevance={"abcdefg"[i % 3]: 1})
    for i in range(12)
]


def turn(status: ParseStatus) -> Turn:
    completion = Completion("x", prompt_tokens=100, completion_tokens=10, cached_tokens=60)
    return Turn(("a",), Request(Prompt("s", "u")), completion, ParsedAnswer(status))


@pytest.fixture(scope="module")
def report() -> Report:
    expected = [expected_measures(e) for e in EXAMPLES]
    base = row_of_scores("random", "tiny", {m: [x[m] for x in expected] for m in MEASURES})
    popular = rank_all(Popularity({"a": 2, "b": 1}), EXAMPLES)
    perfect = [
        Trace(
            e.id,
            tuple(sorted(e.ids, key=lambda c, e=e: -e.grade(c))),
            (turn("exact"), turn("repaired")),
            truncated=1,
        )
        for e in EXAMPLES
    ]
    return Report(
        (
            base,
            make_row("popularity", "tiny", EXAMPLES, popular, base=base),
            make_row("iranker [bold]|trained", "tiny", EXAMPLES, perfect[::-1], base=base, seconds=1234.5),
        ),
        base="random",
        facts={
            "model": "tiny-llm",
            "seed": 0,
            "versions": {"numpy": "2"},
            "trained": "iranker [bold]|trained",
        },
    )


def test_a_row_adds_up_its_traces(report: Report) -> None:
    row = report.rows[2]
    assert (row.queries, row.calls, row.prompt_tokens, row.completion_tokens) == (12, 24, 2400, 240)
    assert (row.cached_tokens, row.truncated, row.seconds) == (1440, 12, 1234.5)
    assert row.parse == {"exact": 12, "repaired": 12, "defaulted": 0, "failed": 0}
    assert row.measures == dict.fromkeys(MEASURES, 1.0)
    assert row.intervals["MRR"] == (1.0, 1.0)


def test_measures_are_means_over_the_queries(report: Report) -> None:
    row = report.rows[1]
    assert row.per_query["MRR"] == pytest.approx([1, 1 / 2, 1 / 3] * 4)
    assert row.measures["MRR"] == pytest.approx(11 / 18)
    low, high = row.intervals["MRR"]
    assert 1 / 3 < low < 11 / 18 < high < 1
    assert tuple(row.parse) == get_args(ParseStatus)


def test_p_values_pair_with_the_base_row(report: Report) -> None:
    base, popular, perfect = report.rows
    assert base.p_value is None
    assert perfect.p_value == pytest.approx(2 / 2**12, abs=0.002)
    assert popular.p_value is not None
    assert 0 < popular.p_value <= 1


def test_rows_from_other_data_are_not_compared(report: Report) -> None:
    popular = rank_all(Popularity({}), EXAMPLES)
    with pytest.raises(InputError, match="the same examples"):
        make_row("x", "other", EXAMPLES, popular, base=report.rows[0])
    with pytest.raises(InputError, match="the same examples"):
        make_row("x", "tiny", EXAMPLES[:5], popular[:5], base=report.rows[0])
    with pytest.raises(InputError, match="no queries"):
        make_row("x", "tiny", [], [])
    with pytest.raises(InputError, match=r"lacks the measure nDCG@5"):
        row_of_scores("x", "tiny", {"MRR": [1.0]})


def test_a_report_is_checked(report: Report) -> None:
    row = report.rows[0]
    with pytest.raises(InputError, match="base row 'x'"):
        Report((row,), "x")
    with pytest.raises(InputError, match="two rows of the report are called 'random'"):
        Report((row, row), "random")
    with pytest.raises(InputError, match="the same data set"):
        Report((row, row_of_scores("x", "other", row.per_query)), "random")


def test_round_trip_through_json(report: Report, tmp_path: Path) -> None:
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    report.save(tmp_path / "new" / "folder")
    assert Report.load(tmp_path / "new" / "folder") == report
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [
        "report.json",
        "report.md",
        "report.png",
    ]


def test_the_json_has_the_documented_shape(report: Report) -> None:
    data = report.to_dict()
    assert set(data) == {"rows", "base", "facts"}
    assert set(data["rows"][2]) == {
        "name", "dataset", "queries", "measures", "intervals", "p_value", "calls", "prompt_tokens",
        "completion_tokens", "cached_tokens", "seconds", "parse", "truncated", "per_query", "flops", "run_means",
        "cut_short", "routed",
    }  # fmt: skip
    assert data["rows"][2]["intervals"]["MRR"] == [1.0, 1.0]


def test_damaged_reports_are_named(report: Report, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"report\.json"):
        Report.load(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        Report.load(tmp_path)
    with pytest.raises(InputError, match="no 'facts'"):
        Report.from_dict({"rows": [], "base": ""})
    whole = report.rows[0].to_dict()
    for damaged in (whole | {"surprise": 1}, {k: v for k, v in whole.items() if k != "calls"}, []):
        with pytest.raises(InputError, match="not a report's row"):
            Row.from_dict(damaged)
    older = {k: v for k, v in whole.items() if k not in ("flops", "run_means", "cut_short")}
    assert (Row.from_dict(older).flops, Row.from_dict(older).cut_short) == (0.0, 0)


def test_the_png_is_an_image_of_some_size(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    assert_image(tmp_path / "report.png")


def assert_image(path: Path) -> None:
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert width > 600
    assert height > 150
    assert len(data) > 5000


def test_without_matplotlib_the_numbers_are_still_saved(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        report.save(tmp_path)
    assert Report.load(tmp_path) == report
    assert (tmp_path / "report.md").exists()


def render(report: Report, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(rich_table(report.rows, report.base, width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_terminal_table_fits_and_cuts_nothing(report: Report) -> None:
    lines = render(report, 120)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 120
    assert "…" not in text
    for row in report.rows:
        assert any(row.name in line for line in lines)
    assert "0.611 [" in text
    assert "12/12/0/0" in text
    assert "1,234" in text or "1,235" in text
    assert "[interval]" in text


def test_a_narrow_terminal_drops_the_costs_and_says_so(report: Report) -> None:
    text = "\n".join(render(report, 80))
    assert "…" not in text
    assert "12/12/0/0" not in text
    assert "widen the terminal" in " ".join(text.split())
    assert all(row.name.split()[0] in text for row in report.rows)


def test_the_markdown_table_is_regular(report: Report) -> None:
    lines = markdown_table(report.rows, report.base).splitlines()
    assert len(lines) == 2 + len(report.rows)
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(HEADERS) + 1}
    assert "iranker [bold]\\|trained" in lines[-1]
    assert "2,400" in lines[-1]
    assert "| base |" in lines[2]


def test_the_markdown_report_tells_the_facts(report: Report) -> None:
    text = report.markdown()
    assert text.startswith("# tiny: 12 queries\n")
    assert "- model: tiny-llm\n" in text
    assert '- versions: {"numpy": "2"}\n' in text

"""Another system's run as a row: its order is measured, and what it lacks is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchruns import Listening, Lists, bench_of, row
from r1ranker.benchmark.contenders import contenders
from r1ranker.benchmark.run import run_bench
from r1ranker.datasets import load_dataset, read_run, write_run
from r1ranker.errors import InputError


def test_a_run_is_measured_beside_the_other_rows(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    path = lists(4, candidates=3)
    data = load_dataset(str(path))
    # The relevant d0 first, second and not at all; of the fourth list nothing but a stranger.
    orders = [["d0", "d1", "d2"], ["d1", "d0", "d2"], ["d2", "d1"], ["x9", "d2", "d1", "d0"]]
    run = tmp_path / "other-system.run"
    write_run(run, {e.id: order for e, order in zip(data.test, orders, strict=True)})
    bench = bench_of(path, rows=[row(tiny_folder), {"run": str(run)}], base="other-system")
    report = run_bench(bench, tmp_path / "out", Listening())
    assert report.names == ("random", "tiny", "other-system")
    cell = report.cells[2]
    assert cell.per_query["MRR"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 3])
    assert (cell.calls, cell.seconds) == (0, 0)
    assert report.facts["notes"] == [
        f"'other-system': {path}: 1 candidates are not in the run, and stand last",
        f"'other-system': {path}: 1 documents of it are no candidates",
    ]
    (saved,) = (tmp_path / "out/runs").rglob("other-system.run")
    assert [read_run(saved)[e.id][:2] for e in data.test] == [order[:2] for order in (*orders[:3], ["d2", "d1"])]


def test_an_edited_run_is_read_anew(lists: Lists, tmp_path: Path) -> None:
    path, run = lists(2, candidates=2), tmp_path / "mine.run"
    data = load_dataset(str(path))
    found = []
    for order in (["d0", "d1"], ["d1", "d0"]):
        write_run(run, {e.id: order for e in data.test})
        found.append(run_bench(bench_of(path, rows=[{"run": str(run)}]), tmp_path / "out", Listening()).cells[1])
    assert [cell.measures["MRR"] for cell in found] == [1, 0.5]


def test_what_a_run_lacks_is_told_before_anything_is_ranked(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    path, run = lists(3), tmp_path / "mine.run"
    write_run(run, {"q0": ["d0"], "q2": ["d0"]})
    watch = Listening()
    with pytest.raises(InputError, match=r"mine\.run has no ranking of 1 of the 3 lists of .* \(the first is 'q1'\)"):
        run_bench(bench_of(path, rows=[row(tiny_folder), {"run": str(run)}]), tmp_path / "out", watch)
    assert not any("tiny" in text for text in watch.said)
    (made,) = contenders(bench_of(path, rows=[{"run": str(run), "name": "A"}]))
    assert made.name == "A"
    assert made.applies(data := load_dataset(str(path)))
    assert not made.applies(replace(data, test=tuple(replace(e, id=f"p{e.id}") for e in data.test)))  # of other queries
    with pytest.raises(InputError, match=r"no\.run does not exist"):
        contenders(bench_of(path, rows=[{"run": str(tmp_path / "no.run")}]))

"""A benchmark that is stopped and started again says the same as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchruns import WRITING, Listening, Lists, bench_of, figures, row
from r1ranker.benchmark.cache import ResultCache
from r1ranker.benchmark.run import run_bench


def several(lists: Lists, tiny_folder: Path) -> Any:
    """Whatever a kept prefix could blur comes together: two data sets with the same ids, two seeds, other listings."""
    rows = [
        row(tiny_folder),
        row(tiny_folder, "drawn", temperature=20.0),
        row(tiny_folder, "thinking", ranker=WRITING, temperature=1.0, datasets=["*more*"]),
    ]
    paths = lists(5), lists(4, name="more.jsonl", words="reply")
    return bench_of(*paths, rows=rows, seeds=[0, 1], order={"listings": 2, "queries": 3})


def test_a_stop_at_any_moment_changes_no_figure(
    lists: Lists, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = several(lists, tiny_folder)
    whole = figures(bench, tmp_path / "whole")
    chunks = sum(len(path.read_bytes().splitlines()) for path in (tmp_path / "whole" / "cache").iterdir())
    # The lists are 2 + 2 chunks, and twice that with two seeds; each data set has two listings of one chunk.
    assert chunks == (4 + 4) + (2 * 4 + 4) + (2 * 2 + 2)
    put = ResultCache.put
    left = 0

    def stopping(self: ResultCache, *chunk: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        put(self, *chunk)

    monkeypatch.setattr(ResultCache, "put", stopping)
    for stop in (0, 5, 11, 15, 22):  # in the first row, at the second's begin, in its seeds and listings, in the last
        folder, left = tmp_path / f"stopped after {stop}", stop
        with pytest.raises(KeyboardInterrupt):
            run_bench(bench, folder, Listening())
        left = chunks
        assert figures(bench, folder) == whole


def test_sigkill_in_another_process_and_half_a_line(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    bench = several(lists, tiny_folder)
    file = tmp_path / "bench.toml"
    file.write_text(
        f"""
        seeds = [0, 1]
        concurrency = 3
        device = "cpu"
        dtype = "float32"
        [data]
        names = {json.dumps(list(bench.data.names))}
        [order]
        listings = 2
        queries = 3
        [[rows]]
        name = "tiny"
        model = "{tiny_folder}"
        ranker = {{ kind = "iterative", thinking = false }}
        [[rows]]
        name = "drawn"
        model = "{tiny_folder}"
        temperature = 20.0
        ranker = {{ kind = "iterative", thinking = false }}
        [[rows]]
        name = "thinking"
        model = "{tiny_folder}"
        temperature = 1.0
        datasets = ["*more*"]
        ranker = {{ kind = "iterative", thinking = true, max_tokens = 6 }}
        """,
        encoding="utf-8",
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", SLOW, "bench", str(file), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        while not (kept := [p for p in (out / "cache").glob("*.jsonl") if b"\n" in p.read_bytes()]):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert len(kept) == 1
    assert not (out / "report.json").exists()
    line = kept[0].read_bytes().splitlines()[0]
    with kept[0].open("ab") as torn:
        torn.write(line[: len(line) // 2])  # as a kill in mid-line leaves it
    watch = Listening()
    run_bench(bench, out, watch)
    assert any("broken lines passed over: 1" in text for text in watch.said)
    assert figures(bench, out) == figures(bench, tmp_path / "whole")


SLOW = """
import time
from r1ranker.benchmark.cache import ResultCache
from r1ranker.cli.app import main
put = ResultCache.put
def slowly(*chunk):
    put(*chunk)
    time.sleep(0.5)  # so that the kill comes before the second chunk
ResultCache.put = slowly
main()
"""

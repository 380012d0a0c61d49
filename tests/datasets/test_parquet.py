from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1ranker.datasets.parquet import read_parquet
from r1ranker.errors import InputError, MissingExtraError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def write(path: Path, rows: int) -> Path:
    pq.write_table(pa.table({"a": list(range(rows)), "b": [[str(i)] for i in range(rows)], "c": [0] * rows}), path)
    return path


def test_rows_are_numbered_across_batches_and_hold_the_wanted_columns(tmp_path: Path) -> None:
    rows = list(read_parquet(write(tmp_path / "a.parquet", 5000), ("b",), optional=("a", "z")))
    assert [number for number, _ in rows] == list(range(1, 5001))
    assert rows[4999][1] == {"b": ["4999"], "a": 4999}
    assert list(read_parquet(write(tmp_path / "a.parquet", 0), ("b",))) == []


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", 5)
    with pytest.raises(InputError, match=r"a\.parquet: no column x, y among its columns \(a, b, c\): give the file"):
        list(read_parquet(path, ("a", "x", "y")))
    with pytest.raises(InputError, match=r"nowhere\.parquet does not exist or is no file: check the path"):
        list(read_parquet(tmp_path / "nowhere.parquet", ("a",)))
    whole = path.read_bytes()
    for broken in (b"", b"PAR1", whole[:-20], whole[:20] + b"\xff" * 40 + whole[60:]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.parquet is not a whole parquet file \(.+\): fetch it again") as error:
            list(read_parquet(path, ("a",)))
        assert "\n" not in str(error.value)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'pyarrow': .*r1ranker\[data\]"):
        list(read_parquet(tmp_path / "a.parquet", ("a",)))

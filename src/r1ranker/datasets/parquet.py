"""Rows of a parquet file, through pyarrow (extra "data")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from r1ranker.errors import InputError, MissingExtraError

_BATCH_ROWS = 4096  # read at a time, so that a large file is never whole in memory


def read_parquet(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the row from 1, column -> Python value); only `columns`, and `optional` where there are any.

    Raises InputError, naming the file, where it is missing, no whole parquet file, or lacks a column;
    MissingExtraError without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtraError("Reading parquet files", "pyarrow", "data") from error
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file: check the path")
    number = 0
    try:
        with ParquetFile(path) as file:
            there = file.schema_arrow.names
            if missing := [column for column in columns if column not in there]:
                raise InputError(
                    f"{path}: no column {', '.join(missing)} among its columns ({', '.join(there)}): "
                    "give the file that has them"
                )
            wanted = [*columns, *(column for column in optional if column in there)]
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        # Arrow's own messages run over several lines.
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"{path} is not a whole parquet file ({reason}): fetch it again") from error

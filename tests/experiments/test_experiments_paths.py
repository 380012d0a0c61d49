"""Paths in what is published."""

from __future__ import annotations

import pytest

from paths import without_absolute_paths


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("--source rec-music=/home/me/data/cds --limit 3", "--source rec-music=cds --limit 3"),
        ("the source '/data', gone", "the source 'data', gone"),
        ("../data/cds and runs/x/model", "../data/cds and runs/x/model"),
        ("see https://example.org/a/b, and/or 1/2", "see https://example.org/a/b, and/or 1/2"),
        ("/data/cds/: empty", "cds: empty"),
    ],
)
def test_absolute_paths_lose_their_folders(text: str, plain: str) -> None:
    assert without_absolute_paths({"a": [text, 1.5]}) == {"a": [plain, 1.5]}

"""What tells models apart, and what does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1ranker.fingerprints import library_versions, model_fingerprint


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Any:
    """A copy of the tiny model whose fingerprint is not remembered."""
    shutil.copytree(tiny_folder, tmp_path / "copy")
    yield tmp_path / "copy"
    model_fingerprint.cache_clear()


@pytest.mark.parametrize(
    ("file", "counts"), [("config.json", True), ("tokenizer.json", True), ("asset.json", False), ("README.md", False)]
)
def test_a_model_is_told_by_what_it_computes_with(model: Path, tiny_folder: Path, file: str, counts: bool) -> None:
    with (model / file).open("a", encoding="utf-8") as text:
        text.write("\n")
    assert (model_fingerprint(model) != model_fingerprint(tiny_folder)) == counts


def test_what_lies_in_a_models_subfolders_counts(model: Path) -> None:
    before = model_fingerprint(model)
    for name in (".cache/download.json", "1_Pooling/config.json"):
        (model / name).parent.mkdir()
        (model / name).write_text("{}", encoding="utf-8")
        model_fingerprint.cache_clear()
        assert (model_fingerprint(model) == before) == name.startswith(".")


def test_an_adapter_is_told_by_its_base_too(tmp_path: Path, model: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()

    def fingerprint(text: str) -> str:
        (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
        model_fingerprint.cache_clear()
        return model_fingerprint(adapter)

    text = json.dumps({"base_model_name_or_path": str(model)})
    first = fingerprint(text)
    (model / "config.json").write_text("{}", encoding="utf-8")
    assert fingerprint(text) != first
    assert len(fingerprint("{")) == len(fingerprint("{}")) == 64  # loading it says what is wrong


def test_only_libraries_that_are_installed_have_a_version() -> None:
    assert list(library_versions("torch", "no-such-package")) == ["torch"]

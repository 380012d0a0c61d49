from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Invoke = Callable[..., Result]


def test_a_trained_folder_is_exported_and_ranks(cli: Invoke, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "ranker.json").write_text(json.dumps({"ranker": {"thinking": False}}))
    result = cli("model", "export", folder, "--out", "gguf/model.gguf", "--type", "q8_0")
    assert result.exit_code == 0
    assert result.stdout.strip().endswith("gguf/model.gguf")
    assert sorted(p.name for p in (tmp_path / "gguf").iterdir()) == ["model.gguf", "ranker.json"]


def test_a_wrong_name_or_type_is_told(cli: Invoke, tiny_folder: Path) -> None:
    named = cli("model", "export", tiny_folder, "--out", "model.bin")
    assert named.exit_code == 1
    assert "ends in .gguf" in named.output
    typed = cli("model", "export", tiny_folder, "--out", "model.gguf", "--type", "q2")
    assert typed.exit_code == 2
    assert "q8_0" in typed.output

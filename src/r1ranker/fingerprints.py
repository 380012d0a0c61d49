"""What tells results apart: digests of settings, of code and of models, and the versions of libraries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from r1ranker.assets import fetch_model
from r1ranker.files import sha256


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value in its canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode("ascii")).hexdigest()


@cache
def code_fingerprint(*patterns: str) -> str:
    """SHA-256 of the package's files that match one of the patterns: with other code the results may be others."""
    root = Path(__file__).parent
    return _hash_files(root, [p.relative_to(root).as_posix() for pattern in patterns for p in root.glob(pattern)])


@cache
def model_fingerprint(folder: Path) -> str:
    """SHA-256 over what a model's folder computes with: weights, configuration, tokenizer, and an adapter's base."""
    endings = (".safetensors", ".json", ".model", ".txt", ".jinja")
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in endings and path.is_file())
    names = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    own = _hash_files(folder, [name for name in names if name not in ("asset.json", "ranker.json")])
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return own  # no adapter, or one that cannot be loaded: loading it says why
    return digest([own, model_fingerprint(fetch_model(base))]) if base else own


def library_versions(*packages: str) -> dict[str, str]:
    """The versions of those that are installed: another one may compute otherwise."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _hash_files(folder: Path, names: Sequence[str]) -> str:
    total = hashlib.sha256()
    for name in sorted(names):
        total.update(f"{name}:{sha256(folder / name)}\n".encode())
    return total.hexdigest()

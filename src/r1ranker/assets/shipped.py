"""Rankers that come with the package: a LoRA adapter each, in a folder of its own, with the SHA-256 of its files.

A folder that `r1ranker model pack` wrote, put below `adapters/`, is known by its name from then on.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from r1ranker.assets.catalogue import ASSETS, known_name
from r1ranker.errors import AssetError
from r1ranker.files import sha256, write_atomic

FOLDER = Path(str(files("r1ranker"))) / "adapters"
SUMS = "SHA256SUMS"
CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"


def shipped_adapters() -> dict[str, Path]:
    """The folders of the adapters that come with the package, by name."""
    if not FOLDER.is_dir():
        return {}
    return {path.name: path for path in sorted(FOLDER.iterdir()) if path.is_dir() and path.name[0] not in "._"}


def default_model() -> str:
    """What ranks where no model is named: the ranker that comes with the package, else a model that was not trained."""
    return "iranker-135m" if "iranker-135m" in shipped_adapters() else "smollm2-135m-instruct"


def read_adapter_config(path: Path) -> dict[str, Any]:
    """An adapter's `adapter_config.json`. Raises AssetError where it cannot be read."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: cannot be read as JSON ({error}): save the adapter again") from error
    return written if isinstance(written, dict) else {}


def base_name(path: Path) -> str:
    """The base model that an `adapter_config.json` names, by its known name if it has one.

    Raises AssetError where it names none.
    """
    base = read_adapter_config(path).get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise AssetError(f"{path} does not name its base model: write it there as base_model_name_or_path")
    return known_name(base, ASSETS)


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of a folder's files into its SHA256SUMS, as `sha256sum -c` reads it; the card may change."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in _names(folder)]
    write_atomic(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> None:
    """Check a folder against its SHA256SUMS. Raises AssetError naming the first file that is not as it was shipped."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise AssetError(f"{folder} is damaged: {SUMS} cannot be read ({error}). Install r1ranker again") from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    names = _names(folder)
    for name in sorted({*sums, *names}):
        if name not in names:
            problem = f"{name} is missing"
        elif name not in sums:
            problem = f"{name} is not in {SUMS}"
        elif sha256(folder / name) != sums[name]:
            problem = f"{name} has another SHA-256 than {SUMS} says"
        else:
            continue
        raise AssetError(f"{folder} is damaged: {problem}. Install r1ranker again")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in (SUMS, CARD))

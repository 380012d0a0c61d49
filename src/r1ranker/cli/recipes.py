"""Recipes that ship with the package, found by name."""

from __future__ import annotations

import difflib
from pathlib import Path

import r1ranker
from r1ranker.errors import ConfigError

FOLDER = Path(r1ranker.__file__).parent / "recipes"
BENCHMARKS = Path(r1ranker.__file__).parent / "benchmark" / "recipes"


def find_recipe(name: str, folder: Path = FOLDER) -> Path:
    """A recipe's file: an existing path, else one that ships with the package, with or without .toml.

    folder: where these are, of benchmarks BENCHMARKS.

    Raises ConfigError for neither, naming the nearest.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {recipe.stem: recipe for recipe in shipped_recipes(folder)}
    stem = name.removesuffix(".toml")
    if stem in shipped:
        return shipped[stem]
    near = difflib.get_close_matches(Path(stem).name, list(shipped), n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? There" if near else "there"
    what = "benchmark" if folder == BENCHMARKS else "recipe"
    raise ConfigError(f"there is no {what} '{name}': {hint} are {', '.join(shipped)}, or give the path of a file")


def shipped_recipes(folder: Path = FOLDER) -> list[Path]:
    """The files of the recipes that ship with the package."""
    return sorted(folder.glob("*.toml"))


def about(path: Path) -> str:
    """What a recipe says of itself: its first comment line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").strip()
    return ""

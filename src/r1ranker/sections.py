"""TOML tables as checked sections: what recipes and benchmarks are read with."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from r1ranker.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Section(BaseModel):
    """A table of a recipe: unknown keys fail, values are checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_tables(path: Path | None, sets: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file's tables with `--set` settings put in. Raises ConfigError as `load_config` does."""
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"there is no recipe '{path}'{_recipes_near(path)}") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
    for setting in sets:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {setting}: write it as key=value, such as train.steps=10")
        _set(raw, _dotted(key.strip()), parse_value(text.strip()), setting)
    return raw


AnySection = TypeVar("AnySection", bound=Section)


def parse_section(kind: type[AnySection], raw: Mapping[str, Any], where: str) -> AnySection:
    """Tables as a section of that kind; `where` is what errors name as their source.

    Raises ConfigError for a key that does not exist (naming the nearest) or a value of the wrong kind.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        if first["type"] == "extra_forbidden":
            plain = ".".join(part for part in first["loc"] if isinstance(part, str))
            near = difflib.get_close_matches(plain, _keys(kind), n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{where}: there is no key '{key}'{hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{message}") from error


def _keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """The keys of a section and of the sections in it, also of those that stand in a list."""
    out = []
    for name, field in section.model_fields.items():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                out += _keys(inner, f"{prefix}{name}.")
        out.append(prefix + name)
    return out


def _set(raw: dict[str, Any], keys: Sequence[str], value: Any, setting: str) -> None:
    for key in keys[:-1]:
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {setting}: '{key}' is a value, not a table")
    raw[keys[-1]] = value


def _dotted(key: str) -> list[str]:
    """The parts of a key as TOML reads them: a part with dots of its own, a file's name, stands in quotes."""
    try:
        tree = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return key.split(".")
    parts = []
    while isinstance(tree, dict):
        (part, tree), *_ = tree.items()
        parts.append(part)
    return parts


def parse_value(text: str) -> Any:
    """A value as in TOML; what is none is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _recipes_near(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.3)
    return f"; did you mean '{path.parent / near[0]}'?" if near else ""

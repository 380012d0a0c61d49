"""From TOML and `--set` to a checked recipe, and back to text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ranker.config.run import RunConfig
from r1ranker.sections import parse_section, read_tables


def load_config(path: Path | None = None, sets: Sequence[str] = ()) -> RunConfig:
    """A recipe with `key.sub=value` settings on top (values as in TOML; a bare word is a string).

    Raises ConfigError for a file that is missing or not TOML, a key that does not exist (naming the
    nearest), or a value of the wrong kind.
    """
    raw = read_tables(path, sets)
    if any(setting.partition("=")[0].strip() == "data.names" for setting in sets):
        _forget_other_data(raw)
    return parse_config(raw, str(path) if path else "--set")


def parse_config(raw: Mapping[str, Any], where: str) -> RunConfig:
    """A recipe from its tables; `where` is what errors name as its source."""
    return parse_section(RunConfig, raw, where)


def _forget_other_data(raw: dict[str, Any]) -> None:
    """With other data sets by `--set data.names`, what the recipe says of its own ones is moot."""
    data = raw["data"]
    for table in ("sources", "options", "weights", "first_stage"):
        if isinstance(data.get(table), dict) and isinstance(data["names"], list):
            data[table] = {name: value for name, value in data[table].items() if name in data["names"]}


def dump_config(config: RunConfig) -> str:
    """The resolved config as JSON: what a run saves beside its results."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"

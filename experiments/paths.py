"""Texts that tell nothing of the machine they were written on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ABSOLUTE = re.compile(r"(?<![\w.:/~-])/(?:[^\s/'\",;:]+/)*([^\s/'\",;:]+)/?")


def without_absolute_paths(value: Any) -> Any:
    """A JSON value with the last part in place of every absolute path in a text."""
    if isinstance(value, str):
        return _ABSOLUTE.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {key: without_absolute_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_absolute_paths(inner) for inner in value]
    return value

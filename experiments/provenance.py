"""How a result came about."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from datetime import date
from typing import Any

from paths import without_absolute_paths
from plan import HERE
from r1ranker.cli.facts import machine, versions


def provenance(arguments: Sequence[str]) -> dict[str, Any]:
    """How something came about: the command, the commit, the day, the machine and the versions."""
    facts = {
        "command": command(arguments),
        "commit": commit(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    plain: dict[str, Any] = without_absolute_paths(facts)
    return plain


def command(arguments: Sequence[str]) -> str:
    """The command that gives the same values; where it writes to is left out."""
    told: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--out", "--results"):
            next(rest, None)
        elif not argument.startswith(("--out=", "--results=")):
            told.append(argument)
    return f"python experiments/run.py {shlex.join(told)}"


def commit() -> str:
    """The commit of the code that runs, and whether code or plans were changed since; "unknown" without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", "src", "experiments").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(HERE.parent), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

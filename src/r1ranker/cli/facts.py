"""What a result must say about where it came from."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from r1ranker.llm.servers import without_credentials

PACKAGES = ("r1ranker", "torch", "transformers")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """The system, its CPU count, and the GPU if torch sees one."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "system": platform.platform(terse=True),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def command_line() -> str:
    """The command as it was typed, but for passwords in web addresses."""
    return without_credentials(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))

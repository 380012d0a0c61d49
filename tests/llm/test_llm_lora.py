"""Merging an adapter: by hand, and as peft computes it."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from r1ranker.errors import AssetError
from r1ranker.llm.load import load_model
from r1ranker.llm.lora import merge_lora, read_lora

TOKENS = torch.arange(3, 40)[None]
Adapter = Callable[..., Path]


class Net(nn.Module):
    """One layer called `up`, of 3 inputs and 2 outputs, and embeddings, which `head` shares."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.up = nn.Linear(3, 2)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight
        nn.init.ones_(self.up.weight)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    """adapter(tensors, **config): a folder with these factors; keys are short for peft's."""

    def make(tensors: dict[str, Tensor], **config: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir()
        written = {"peft_type": "LORA", "lora_alpha": 4, "r": 1, "base_model_name_or_path": "base", **config}
        (folder / "adapter_config.json").write_text(json.dumps(written))
        named = {f"base_model.model.{key}.weight": value for key, value in tensors.items()}
        save_file(named, str(folder / "adapter_model.safetensors"))
        return folder

    return make


def up(rank: int = 1) -> dict[str, Tensor]:
    """Factors for `up`: every row of A is (1, 2, 3), every column of B (1, -1)."""
    a, b = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0], [-1.0]])
    return {"up.lora_A": a.repeat(rank, 1), "up.lora_B": b.repeat(1, rank)}


def test_scale_b_a_is_added_once(adapter: Adapter) -> None:
    net = Net()
    merge_lora(net, adapter(up()))
    # alpha / rank = 4; B @ A = [[1, 2, 3], [-1, -2, -3]]; the weights were ones.
    assert net.up.weight.tolist() == [[5.0, 9.0, 13.0], [-3.0, -7.0, -11.0]]


def test_the_scale_is_by_the_factors_own_rank_and_by_its_root_in_rslora(adapter: Adapter, tmp_path: Path) -> None:
    net = Net()
    merge_lora(net, adapter(up(rank=4), r=8))  # B @ A is four times as large, alpha / rank = 1
    assert net.up.weight.tolist() == [[5.0, 9.0, 13.0], [-3.0, -7.0, -11.0]]
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    net = Net()
    merge_lora(net, tmp_path / "adapter")  # alpha / sqrt(rank) = 2
    assert net.up.weight.tolist() == [[9.0, 17.0, 25.0], [-7.0, -15.0, -23.0]]


def test_weights_of_half_precision_are_added_to_in_float32(adapter: Adapter) -> None:
    net = Net().to(torch.bfloat16)
    tensors = {key: (value / 7).half() for key, value in up().items()}
    merge_lora(net, adapter(tensors))
    exact = 1 + 4 * tensors["up.lora_B"].float() @ tensors["up.lora_A"].float()
    assert net.up.weight.dtype == torch.bfloat16
    assert torch.equal(net.up.weight, exact.to(torch.bfloat16))


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "rank_pattern": {"up_proj": 5}}])
def test_it_is_what_peft_computes(settings: dict[str, Any], tiny_model: Any, tiny_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = peft.LoraConfig(
            r=3,
            lora_alpha=8,
            target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
            layers_to_transform=[1, 2],
            **settings,
        )
        wrapped = peft.get_peft_model(copy.deepcopy(tiny_model), config).eval()
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.1)
    wrapped.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    wrapped.save_pretrained(tmp_path, save_embedding_layers=False)
    with torch.no_grad():
        expected = wrapped(TOKENS).logits
        merged, _ = load_model(tmp_path, device="cpu", dtype="float32")
        base, _ = load_model(tiny_folder, device="cpu", dtype="float32")
        assert type(merged) is type(base)  # no layer more than the base has
        torch.testing.assert_close(merged(TOKENS).logits, expected, atol=2e-5, rtol=1e-4)
        assert float((base(TOKENS).logits - expected).abs().max()) > 0.5
    assert not merged.training


def test_an_adapter_may_have_been_trained_on_an_adapter(adapter: Adapter, tiny_folder: Path, tmp_path: Path) -> None:
    name = "model.layers.2.mlp.up_proj"
    factors = {f"{name}.lora_A": torch.ones(1, 32), f"{name}.lora_B": torch.ones(64, 1)}
    first = adapter(factors, base_model_name_or_path=str(tiny_folder)).rename(tmp_path / "first")
    second = adapter(factors, base_model_name_or_path=str(first), lora_alpha=1)
    weights = [
        load_model(folder, device="cpu", dtype="float32")[0].get_submodule(name).weight
        for folder in (tiny_folder, first, second)
    ]
    torch.testing.assert_close(weights[1] - weights[0], torch.full((64, 32), 4.0))
    torch.testing.assert_close(weights[2] - weights[1], torch.full((64, 32), 1.0))


def test_an_adapter_that_is_its_own_base_is_told(adapter: Adapter, tmp_path: Path) -> None:
    folder = adapter(up(), base_model_name_or_path=str(tmp_path / "adapter"))
    with pytest.raises(AssetError, match=r"adapter_config\.json names its own folder as the base model"):
        load_model(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"alpha_pattern": {"up": 2}}, r"alpha_pattern = \{'up': 2\}"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "describes no LoRA adapter"),
        ({"lora_alpha": None}, "describes no LoRA adapter"),
    ],
)
def test_what_is_no_plain_lora_is_refused(adapter: Adapter, config: dict[str, Any], said: str) -> None:
    with pytest.raises(AssetError, match=rf"adapter_config\.json .*{said}.*: load adapter with peft, and save what"):
        read_lora(adapter(up(), **config))


def test_settings_that_change_nothing_are_taken(adapter: Adapter) -> None:
    plain = {"use_dora": False, "bias": "none", "init_lora_weights": "gaussian", "lora_dropout": 0.1}
    assert len(read_lora(adapter(up(), megatron_core="megatron.core", qalora_group_size=16, **plain))[1]) == 2


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "holds no weights"),
        (up() | {"up.lora_magnitude_vector": torch.ones(2)}, "lora_magnitude_vector.*no plain LoRA"),
        ({"embed.lora_embedding_A": torch.ones(1, 4)}, "lora_embedding_A.*no plain LoRA"),
        ({"head": torch.ones(4, 3)}, r"base_model\.model\.head\.weight, which is no plain LoRA"),
        ({"up.lora_A": torch.ones(1, 3)}, r"factors for up, \(1, 3\) and \(0,\), do not fit together"),
        ({"up.lora_A": torch.ones(1, 3), "up.lora_B": torch.ones(2, 2)}, "do not fit"),
        ({"up.lora_A": torch.ones(1, 2), "up.lora_B": torch.ones(2, 1)}, "do not fit"),
        ({"down.lora_A": torch.ones(1, 3), "down.lora_B": torch.ones(2, 1)}, "the base has no down"),
        ({"embed.lora_A": torch.ones(1, 3), "embed.lora_B": torch.ones(4, 1)}, "embed is no linear layer"),
        ({"head.lora_A": torch.ones(1, 3), "head.lora_B": torch.ones(4, 1)}, "shares its weights with the embeddings"),
    ],
)
def test_weights_that_do_not_fit_are_told(adapter: Adapter, tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(AssetError, match=said) as caught:
        merge_lora(Net(), adapter(tensors))
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_or_cut_short_are_told(adapter: Adapter) -> None:
    folder = adapter(up())
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(AssetError, match=r"adapter_model\.safetensors cannot be read .*: save the adapter again"):
        read_lora(folder)
    weights.unlink()
    with pytest.raises(AssetError, match=r"adapter_model\.safetensors cannot be read"):
        read_lora(folder)


def test_it_needs_no_peft(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    folder = adapter(up())
    merge_lora(Net(), folder)
    assert set(load_file(str(folder / "adapter_model.safetensors"))) == {
        f"base_model.model.up.lora_{x}.weight" for x in "AB"
    }

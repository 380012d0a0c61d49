"""Loads a causal LM and its tokenizer from disk: safetensors only, no code from the model's folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from r1ranker.assets.shipped import ADAPTER_CONFIG, base_name
from r1ranker.errors import AssetError, ConfigError
from r1ranker.llm.lora import merge_lora
from r1ranker.llm.sliding import other_layers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA where there is any, else the CPU. Raises ConfigError for an unknown name, or what is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device '{device}' is not known; use auto, cpu, cuda or cuda:1") from error
    if where.type == "cuda" and (where.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"device '{device}' is not there: torch sees {count} CUDA devices; use auto or cpu")
    return where


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool((probe and probe()) or (amx and amx()))


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware has it, else float32. Raises ConfigError for an unknown name."""
    if dtype == "auto":
        return torch.bfloat16 if fast_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"dtype '{dtype}' is not known; use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def load_model(path: str | Path, *, device: str = "auto", dtype: str = "auto") -> tuple[nn.Module, Any]:
    """The model in eval mode, and its tokenizer.

    path: a folder with safetensors, or with a LoRA adapter whose config names its base; it is merged into the base.
    Raises AssetError for a folder that holds neither, and for a model with layers other than attention.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    model: Any
    folder = Path(path)
    if (adapter := folder / ADAPTER_CONFIG).exists():
        model, tokenizer = load_model(adapter_base(adapter), device=device, dtype=dtype)
        merge_lora(model, folder)
        return model, tokenizer
    if not (folder / "config.json").exists():
        raise AssetError(f"{folder} holds no model: there is no config.json and no {ADAPTER_CONFIG} in it")
    if encoder := _encoder(folder / "config.json"):
        raise AssetError(f"{folder} holds a {encoder}, which has no head to write with: choose a causal LLM")
    where = pick_device(device)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=pick_dtype(dtype, where),
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AssetError(f"{folder}: the model cannot be loaded ({reason})") from error
    decoder = model.get_decoder()
    if getattr(decoder, "config", None) is None or getattr(decoder.config, "is_encoder_decoder", False):
        raise AssetError(f"{folder}: a {type(model).__name__} is not read by one decoder alone: choose a causal LLM")
    if getattr(decoder.config, "alibi", False):
        raise AssetError(f"{folder}: a model that tells positions by ALiBi is not supported: choose another")
    if other := other_layers(decoder.config):
        raise AssetError(
            f"{folder}: a model with layers of {', '.join(other)} reads a text only as a whole, and here prompts share "
            "their beginnings: serve it by vLLM or another server, and rank with openai:MODEL@URL"
        )
    model.to(where).eval()
    return model, tokenizer


_HEADLESS = re.compile(
    r"(?<!Head)Model$|For(?:SequenceClassification|TokenClassification|MaskedLM|QuestionAnswering|MultipleChoice|"
    r"NextSentencePrediction|PreTraining)$"
)


def _encoder(config: Path) -> str:
    """The architecture of a model without a language head, which would be made up at random; else an empty text."""
    try:
        written = json.loads(config.read_text(encoding="utf-8"))
        names = [str(name) for name in written.get("architectures") or ()]
    except (OSError, ValueError, AttributeError, TypeError):
        return ""  # transformers says what is wrong with it
    return next((name for name in names if _HEADLESS.search(name)), "")


def adapter_base(adapter: Path) -> Path:
    """The folder of the model an adapter was trained on: as written in its config, or a known model's name."""
    from r1ranker.assets import fetch_model

    base = base_name(adapter)
    folder = Path(base) if Path(base).exists() else fetch_model(base)
    if folder.resolve() == adapter.parent.resolve():
        raise AssetError(f"{adapter} names its own folder as the base model: write the base's name there")
    return folder

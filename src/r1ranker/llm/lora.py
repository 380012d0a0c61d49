"""Plain LoRA adapters in peft's format, added to the weights of their base: so they cost nothing when they are used."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from r1ranker.assets.shipped import ADAPTER_CONFIG, read_adapter_config
from r1ranker.errors import AssetError

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_OTHER_KINDS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "alpha_pattern", "modules_to_save",
    "target_parameters", "trainable_token_indices", "layer_replication", "alora_invocation_tokens", "arrow_config",
    "kasa_config", "monteclora_config",
)  # fmt: skip
"""Settings of peft's under which an adapter computes something else than W + scale * B @ A."""
_PLAIN = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian")}
"""And those that must be one of these: other ways to begin change the base's weights too."""


class LoraPair(NamedTuple):
    """The factors of one linear layer: A (rank, in), B (out, rank)."""

    a: Tensor
    b: Tensor


@torch.no_grad()
def merge_lora(model: nn.Module, folder: Path) -> None:
    """Add the adapter of a folder to the model's weights: W + scale * B @ A (arXiv 2106.09685), computed in float32.

    A is (rank, in), B (out, rank); scale is alpha / rank, with rsLoRA alpha / sqrt(rank).
    Raises AssetError for an adapter that is no plain LoRA, or was not made for this model.
    """
    config, tensors = read_lora(folder)
    for name, pair in pairs_of(tensors, folder).items():
        weight = _weight(model, name, folder)
        a, b = (factor.to(weight.device, torch.float32) for factor in pair)
        if (len(b), a.shape[1]) != tuple(weight.shape):
            raise AssetError(
                f"{folder}: its factors for {name}, {tuple(a.shape)} and {tuple(b.shape)}, do not fit the base's "
                f"weight {tuple(weight.shape)}: give it the base that it was trained on"
            )
        weight.copy_(weight.float() + scale_of(config, len(a)) * (b @ a))


def scale_of(config: Mapping[str, Any], rank: int) -> float:
    """What B @ A is multiplied by: alpha / rank, with rsLoRA alpha / sqrt(rank)."""
    return float(config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank))


def pairs_of(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, LoraPair]:
    """The factors by linear layer. Raises AssetError for a layer that lacks one, or whose factors do not fit together.

    folder: what messages name.
    """
    factors: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        module, letter = _split(key, folder)
        factors[module][letter] = tensor
    pairs = {}
    for name, pair in factors.items():
        a, b = (pair.get(letter, torch.empty(0)) for letter in "AB")
        if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
            raise AssetError(
                f"{folder}: its factors for {name}, {tuple(a.shape)} and {tuple(b.shape)}, do not fit together: save "
                "the adapter again"
            )
        pairs[name] = LoraPair(a, b)
    return pairs


def named_pairs(pairs: Mapping[str, LoraPair]) -> dict[str, Tensor]:
    """The factors by peft's names, as `read_lora` gives them."""
    return {
        f"base_model.model.{name}.lora_{letter}.weight": factor
        for name, pair in pairs.items()
        for letter, factor in zip("AB", pair, strict=True)
    }


def read_lora(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A plain LoRA adapter's config and its tensors by peft's names. Raises AssetError for anything else."""
    path = folder / ADAPTER_CONFIG
    config = read_adapter_config(path)
    if config.get("peft_type") != "LORA" or not isinstance(config.get("lora_alpha"), int | float):
        raise AssetError(f"{path} describes no LoRA adapter: {_remedy(folder)}")
    odd = [key for key in _OTHER_KINDS if config.get(key)]
    odd += [key for key, plain in _PLAIN.items() if config.get(key, plain[0]) not in plain]
    if odd:
        raise AssetError(f"{path} has {odd[0]} = {config[odd[0]]!r}, which is no plain LoRA: {_remedy(folder)}")
    try:
        tensors = load_file(str(folder / ADAPTER_WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise AssetError(f"{folder / ADAPTER_WEIGHTS} cannot be read ({error}): save the adapter again") from error
    if not tensors:
        raise AssetError(f"{folder / ADAPTER_WEIGHTS} holds no weights: save the adapter again")
    for key in tensors:
        _split(key, folder)
    return config, tensors


def _split(key: str, folder: Path) -> tuple[str, str]:
    """A tensor's module and which of the factors it is."""
    if (match := _KEY.fullmatch(key)) is None:
        raise AssetError(f"{folder / ADAPTER_WEIGHTS} holds {key}, which is no plain LoRA: {_remedy(folder)}")
    return match[1], match[2]


def _weight(model: Any, name: str, folder: Path) -> Tensor:
    try:
        module = model.get_submodule(name)
    except AttributeError as error:
        raise AssetError(f"{folder}: the base has no {name}: give it the base that it was trained on") from error
    if not isinstance(module, nn.Linear):
        raise AssetError(f"{folder}: {name} is no linear layer, and cannot be added to: {_remedy(folder)}")
    if module.weight is model.get_input_embeddings().weight:
        raise AssetError(f"{folder}: {name} shares its weights with the embeddings, which would change too: train anew")
    weight: Tensor = module.weight
    return weight


def _remedy(folder: Path) -> str:
    return f"load {folder.name} with peft, and save what merge_and_unload() gives"

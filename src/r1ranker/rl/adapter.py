"""The LoRA adapter that is trained (arXiv 2106.09685): new, or one that goes on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from r1ranker.assets.shipped import ADAPTER_CONFIG
from r1ranker.config import ModelConfig
from r1ranker.errors import AssetError, ConfigError, MissingExtraError
from r1ranker.llm.load import adapter_base
from r1ranker.llm.lora import ADAPTER_WEIGHTS, read_lora
from r1ranker.llm.packing import decoder_blocks


def with_lora(model: nn.Module, config: ModelConfig, seed: int = 0) -> nn.Module:
    """The model with an adapter on every linear layer above the frozen ones, which changes nothing yet.

    seed: of A, which is drawn; B is 0.
    Raises MissingExtraError without peft, ConfigError if every layer is frozen.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("model.lora_rank > 0", "peft", "lora") from error
    blocks = decoder_blocks(model)
    if config.frozen_layers >= len(blocks):
        raise ConfigError(
            f"model.frozen_layers = {config.frozen_layers}, but the model has {len(blocks)} layers: leave some to train"
        )
    # "all-linear" cannot be limited to some layers: name the modules.
    linear = {name.rpartition(".")[2] for name, part in blocks.named_modules() if isinstance(part, nn.Linear)}
    if not linear:
        raise ConfigError("model.lora_rank > 0, but no part of the model's layers is one that LoRA knows: set it to 0")
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=sorted(linear),
        layers_to_transform=list(range(config.frozen_layers, len(blocks))),
        task_type="CAUSAL_LM",
    )
    # peft draws from PyTorch's own generators: they are as before afterwards.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        wrapped: nn.Module = get_peft_model(model, lora)
    return wrapped.train(model.training)  # the wrapping alone would have another mode than what it wraps


def find_adapter(adapter: str) -> Path:
    """The folder of an adapter, by its known name or as it is. Raises AssetError where there is none."""
    from r1ranker.assets import fetch_model

    try:
        return fetch_model(adapter)
    except AssetError as error:
        raise AssetError(f"model.adapter, where LoRA begins: {error}; or train that adapter first") from error


@torch.no_grad()
def begin_at(model: nn.Module, folder: Path, config: ModelConfig) -> None:
    """Give the weights of the adapter in a folder to that of a model from `with_lora`.

    Raises AssetError where it cannot be read, and ConfigError where it is of another base, rank, alpha or layers.
    """
    from r1ranker.assets import fetch_model

    if not (folder / ADAPTER_CONFIG).exists():
        raise ConfigError(f"model.adapter: {folder} holds no adapter (no {ADAPTER_CONFIG}): give it as model.path")
    base = adapter_base(folder / ADAPTER_CONFIG)
    if base.resolve() != fetch_model(config.path).resolve():
        raise ConfigError(
            f"model.adapter: {folder} was trained on {base}, and model.path is {config.path}: give it its own base"
        )
    own, tensors = read_lora(folder)
    if own.get("use_rslora") or own["lora_alpha"] != config.lora_alpha:
        scale = f"lora_alpha = {own['lora_alpha']}" + (" and rsLoRA" if own.get("use_rslora") else "")
        raise ConfigError(
            f"model.adapter: {folder} has {scale}, and model.lora_alpha is {config.lora_alpha}: it would be scaled anew"
        )
    named = {name.replace(".default.", "."): p for name, p in model.named_parameters() if ".lora_" in name}
    shapes = {name: tuple(p.shape) for name, p in named.items()}
    if odd := sorted(shapes.items() ^ {name: tuple(t.shape) for name, t in tensors.items()}.items()):
        raise ConfigError(
            f"model.adapter: {folder / ADAPTER_WEIGHTS} and the adapter of this recipe differ in {odd[0][0]}: give "
            "model.lora_rank and model.frozen_layers as it was trained with"
        )
    for name, parameter in named.items():
        parameter.copy_(tensors[name])

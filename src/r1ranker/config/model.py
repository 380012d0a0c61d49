"""[model]."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from r1ranker.sections import Section

Precision = Literal["auto", "fp32", "bf16"]


class ModelConfig(Section):
    """[model]: which LLM is trained, and which of its weights."""

    path: str = "smollm2-135m-instruct"
    """A known name, a hub id, or a folder."""
    device: str = "auto"
    precision: Precision = "auto"
    """bf16: bfloat16 autocast over float32 weights. auto: bf16 where the hardware multiplies it."""
    frozen_layers: int = Field(0, ge=0)
    """Lower layers (and the embeddings, if any) that stay as they are."""
    lora_rank: int = Field(0, ge=0)
    """0 trains the weights themselves."""
    lora_alpha: int = Field(32, gt=0)
    adapter: str | None = None
    """With LoRA, where it begins: a trained adapter of `path`, by its known name or folder. None: at nothing."""

    @model_validator(mode="after")
    def _adapter_fits(self) -> ModelConfig:
        if self.adapter is not None and not self.lora_rank:
            raise ValueError(
                f"model.adapter = '{self.adapter}' is where LoRA begins: set model.lora_rank to its rank, or give it "
                "as model.path, which merges it"
            )
        return self

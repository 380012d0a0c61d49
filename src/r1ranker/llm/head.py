"""What some models do to the logits of their LM head, which runs here on the positions that are asked for alone."""

from __future__ import annotations

from torch import Tensor, nn

from r1ranker.llm.packing import causal_lm


def settle(model: nn.Module, logits: Tensor) -> Tensor:
    """The model's own logits, from those of its head: divided (Granite), multiplied (Cohere, HyperCLOVA X) or capped
    (Gemma)."""
    config = causal_lm(model).config.get_text_config()
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits * scaling if config.model_type == "hyperclovax" else logits / scaling
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * (logits / cap).tanh()
    return logits

"""GGUF -> safetensors, so that a model which came as GGUF can be trained and saved like any other."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from r1ranker.files import share_weights


def convert_gguf(gguf: Path, target: Path, *, name: str) -> None:
    """Write a GGUF model into the folder `target` as float32 safetensors with its tokenizer.

    name: what the configuration calls the model (`_name_or_path`). Takes half a minute for 135M parameters,
    most of it for the tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # transformers takes weights that came from GGUF for quantized ones, although it has written them out
        # in full, and then refuses to save or train them.
        for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
            if attribute in vars(model):
                delattr(model, attribute)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        if hasattr(model.config, "_model_name_or_path"):
            del model.config._model_name_or_path  # the title in the GGUF file, of a training run long ago
        model.config._name_or_path = name
        tokenizer.name_or_path = name
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    share_weights(target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings and progress bars, which are about steps that no user asked for."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the bar over the tensors obeys no setting
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]

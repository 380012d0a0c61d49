"""Shared by all tests: a tiny random model made in code (no download), its tokenizer, and small examples."""

from __future__ import annotations

import os

# Tiny models gain nothing from threads, and threads that wait for each other waste the cores of a busy machine.
# Before torch is imported anywhere; the commands that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from factories import ITEMS, ExampleFactory, example

if TYPE_CHECKING:
    from r1ranker.llm.transformers import TransformersLLM

# Machines that also run experiments are slow at times: no deadline, and the same examples every time.
settings.register_profile("r1ranker", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("r1ranker")


@pytest.fixture(scope="session")
def make_example() -> ExampleFactory:
    """make_example(n, positives=..., scenario=..., id=..., **fields) -> RankingExample."""
    return example


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE of about 300 tokens with ChatML's special tokens; decodes back exactly."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [
        text
        for texts in ITEMS.values()
        for text in (*texts, "<think>reason</think><answer>passage 1</answer>", "You rank candidates.")
    ]
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any) -> Any:
    """A random Llama in eval mode (float32, 3 layers, about 50,000 parameters). Copy it before you train it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        # Wide, so that what a position may see changes the logits by far more than rounding does.
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).float().eval()


@pytest.fixture
def tiny_llm(tiny_model: Any, tiny_tokenizer: Any) -> TransformersLLM:
    """A fresh backend (empty prefix store) over the shared tiny model."""
    from r1ranker.llm.transformers import TransformersLLM

    return TransformersLLM(tiny_model, tiny_tokenizer, name="tiny")


@pytest.fixture(scope="session")
def tiny_folder(tiny_model: Any, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and its tokenizer on disk, as safetensors. Read only: copy it before you change it."""
    folder: Path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder

"""Shared by all tests: a tiny random model made in code (no download), its tokenizer, and small examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from r1ranker.types import Candidate, RankingExample, Scenario

if TYPE_CHECKING:
    from r1ranker.llm.transformers import TransformersLLM

# Machines that also run experiments are slow at times: no deadline, and the same examples every time.
settings.register_profile("r1ranker", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("r1ranker")

ITEMS = {
    "recommendation": (
        "Toy Story (1995)",
        "Heat (1995)",
        "Casablanca (1942)",
        "Alien (1979)",
        "Vertigo (1958)",
        "Fargo (1996)",
        "Psycho (1960)",
        "Jaws (1975)",
    ),
    "routing": ("Qwen2 7B", "Mistral 7B", "Llama 3 70B", "Mixtral 8x7B", "Gemma 9B", "Phi 3", "Yi 34B", "Gpt Mini"),
    "passage": (
        "Rome was not built in a single day, as the saying goes, nor was Paris.",
        "The Tiber flows through Rome and reaches the sea near Ostia.",
        "A whale is a mammal and breathes air.",
        "Bread is made of flour, water, salt and yeast.",
        "Glaciers carve valleys over thousands of years.",
        "The violin has four strings tuned in fifths.",
        "Copper conducts electricity better than iron does.",
        "Tea grows best on cool, wet slopes.",
    ),
}

ExampleFactory = Callable[..., RankingExample]


def _example(
    n: int = 4,
    *,
    positives: Mapping[str, float] | tuple[str, ...] | None = None,
    scenario: Scenario = "recommendation",
    id: str = "e1",
    **fields: Any,
) -> RankingExample:
    """An example with candidates c1, c2, … (at most 8 differ); c1 is the positive unless `positives` says otherwise."""
    texts = ITEMS[scenario]
    if scenario == "routing":
        candidates = [
            Candidate(f"c{k + 1}", f"{texts[k % 8]} costs {k + 1} cents a call.", texts[k % 8]) for k in range(n)
        ]
    else:
        candidates = [Candidate(f"c{k + 1}", texts[k % 8]) for k in range(n)]
    grades = positives if isinstance(positives, Mapping) else dict.fromkeys(positives or ("c1",), 1.0)
    context: dict[str, Any] = (
        {"history": ("Rocky (1976)", "Big (1988)"), "item_type": "movie"}
        if scenario == "recommendation"
        else {"query": "What is the capital of Italy?"}
    )
    return RankingExample(id, scenario, tuple(candidates), relevance=grades, **{**context, **fields})


@pytest.fixture(scope="session")
def make_example() -> ExampleFactory:
    """make_example(n, positives=..., scenario=..., id=..., **fields) -> RankingExample."""
    return _example


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

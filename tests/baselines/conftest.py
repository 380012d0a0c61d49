"""Tiny random encoders and cross-encoders on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WORDS = ("the", "a", "cat", "dog", "sat", "red", "blue", "heat", "alien", "star", "wars", "trek", "what", "is", "rome")


def _tokenizer(folder: Path) -> Any:
    from transformers import BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _save(folder: Path, name: str, **fields: Any) -> Path:
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=len(_tokenizer(folder)),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.5,
        **fields,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, name)(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 16 dimensions; sentence-transformers takes the mean over its tokens."""
    pytest.importorskip("sentence_transformers")
    return _save(tmp_path_factory.mktemp("encoder") / "model", "BertModel")


@pytest.fixture(scope="session")
def cross_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with one score for a pair."""
    pytest.importorskip("sentence_transformers")
    return _save(tmp_path_factory.mktemp("cross") / "model", "BertForSequenceClassification", num_labels=1)


@pytest.fixture(scope="session")
def three_scores_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with three scores for a pair."""
    pytest.importorskip("sentence_transformers")
    return _save(tmp_path_factory.mktemp("three") / "model", "BertForSequenceClassification", num_labels=3)

"""Dense embeddings through sentence-transformers: candidates by their cosine to the query or the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1ranker.assets import fetch_model
from r1ranker.baselines.base import Baseline, read_text, steady
from r1ranker.errors import AssetError, MissingExtraError
from r1ranker.types import RankingExample

MODEL = "all-minilm-l6-v2"
Vectors = NDArray[np.float32]


class Encoder:
    """Unit vectors of texts; each text is computed once, however often it is asked for.

    model: a folder, a name in ASSETS, or organisation/name on the hub. Safetensors only, and no code from
        the model's folder. A text that is too long for the model is cut at its end.
    flops: 2 x parameters x tokens read so far, an estimate.

    Raises MissingExtraError without sentence-transformers, AssetError for a model that cannot be had.
    """

    def __init__(self, model: str | Path = MODEL) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtraError("The embeddings", "sentence-transformers", "embeddings") from error
        self._model = load_sentence_model(SentenceTransformer, fetch_model(model))
        self._parameters = sum(p.numel() for p in self._model.parameters())
        self._vectors: dict[str, Vectors] = {}
        self.flops = 0.0

    def warm(self, texts: Iterable[str]) -> None:
        """Compute the vectors of all texts that are not known yet, in batches of texts of about the same length."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            self.flops += 2.0 * self._parameters * count_tokens(self._model, missing)
            # encode() sorts by length itself.
            found = self._model.encode(missing, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            self._vectors.update(zip(missing, np.asarray(found, dtype=np.float32), strict=True))

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (texts, dimensions). `texts` must not be empty."""
        self.warm(texts)
        return np.stack([self._vectors[text] for text in texts])

    def context(self, example: RankingExample) -> Vectors | None:
        """The unit vector of the query, or of the mean over the history's items, or halfway between; None without."""
        sides = [texts for texts in ((example.query,) if example.query else (), example.history) if texts]
        if not sides:
            return None
        mean: Vectors = np.stack([self.vectors(texts).mean(axis=0) for texts in sides]).mean(axis=0)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        return mean


class Embeddings(Baseline):
    """Orders candidates by the cosine of their text to the query, or to a history, or to both at equal parts.

    A history's items are embedded one by one and their vectors averaged: items recur between users, so that this costs
    less than one long text for each user.
    """

    name = "embeddings"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def flops(self) -> float:
        """See Encoder."""
        return self.encoder.flops

    def warm(self, examples: Sequence[RankingExample]) -> None:
        """Embed all texts of the examples."""
        self.encoder.warm(text for e in examples for text in (*context_texts(e), *(read_text(c) for c in e.candidates)))

    def scores(self, example: RankingExample) -> list[float]:
        """Cosines; all 0 without query and history."""
        context = self.encoder.context(example)
        if context is None:
            return [0.0] * len(example.candidates)
        return steady(self.encoder.vectors([read_text(c) for c in example.candidates]) @ context)


def context_texts(example: RankingExample) -> tuple[str, ...]:
    """The texts that are embedded for what is ranked for: the query and the history's items."""
    return (example.query, *example.history) if example.query else example.history


def load_sentence_model(kind: Any, folder: Path) -> Any:
    """A SentenceTransformer or CrossEncoder from a folder, silently. Raises AssetError if it cannot be loaded."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return kind(str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AssetError(f"{folder}: the encoder cannot be loaded ({reason}): check the folder") from error


def count_tokens(model: Any, texts: Sequence[str], pairs: Sequence[str] | None = None) -> int:
    """Tokens that the model reads of the texts (or of texts with their pairs), after cutting what is too long."""
    read = model.tokenizer(list(texts), pairs and list(pairs), truncation=True)
    return sum(len(ids) for ids in read["input_ids"])

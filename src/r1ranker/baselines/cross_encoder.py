"""A cross-encoder reads query and candidate together and gives one score (through sentence-transformers)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from r1ranker.assets import fetch_model
from r1ranker.baselines.base import Baseline, read_text, steady
from r1ranker.baselines.embeddings import count_tokens, load_sentence_model
from r1ranker.errors import AssetError, MissingExtraError
from r1ranker.types import RankingExample

Pair = tuple[str, str]


class CrossEncoder(Baseline):
    """Orders candidates by a cross-encoder's score of (query and history joined, text).

    model: a folder, or organisation/name on the hub, for instance cross-encoder/ms-marco-MiniLM-L6-v2; there is
        none that comes with the package. Safetensors only, and no code from the model's folder. A pair that
        is too long for the model loses the end of its longer text.

    Raises MissingExtraError without sentence-transformers, AssetError for a model that cannot be had or that
    does not give one score.
    """

    name = "cross-encoder"

    def __init__(self, model: str | Path) -> None:
        try:
            import sentence_transformers
        except ImportError as error:
            raise MissingExtraError("A cross-encoder", "sentence-transformers", "embeddings") from error
        folder = fetch_model(model)
        _require_head(folder)
        self._model = load_sentence_model(sentence_transformers.CrossEncoder, folder)
        if self._model.num_labels != 1:
            raise AssetError(f"{folder} gives {self._model.num_labels} scores a pair: choose a cross-encoder with one")
        self._parameters = sum(p.numel() for p in self._model.parameters())
        self._scores: dict[Pair, float] = {}
        self._flops = 0.0

    @property
    def flops(self) -> float:
        """2 x parameters x tokens read so far."""
        return self._flops

    def warm(self, examples: Sequence[RankingExample]) -> None:
        """Score all pairs of the examples."""
        self._score(pair for example in examples for pair in pairs_of(example))

    def scores(self, example: RankingExample) -> list[float]:
        """The model's scores; all 0 without query and history."""
        pairs = pairs_of(example)
        if not pairs:
            return [0.0] * len(example.candidates)
        self._score(pairs)
        return [self._scores[pair] for pair in pairs]

    def _score(self, pairs: Iterable[Pair]) -> None:
        if missing := [pair for pair in dict.fromkeys(pairs) if pair not in self._scores]:
            self._flops += 2.0 * self._parameters * count_tokens(self._model, *zip(*missing, strict=True))
            # predict() sorts by length itself. Its sigmoid would make ties of all high scores.
            found = self._model.predict(missing, batch_size=32, show_progress_bar=False, activation_fn=_as_they_are)
            self._scores.update(zip(missing, steady(found), strict=True))


def pairs_of(example: RankingExample) -> list[Pair]:
    """What is read of each candidate, in listed order; empty without query and history."""
    query = "; ".join(text for text in (example.query, *example.history) if text)
    return [(query, read_text(c)) for c in example.candidates] if query else []


def _as_they_are(logits: Any) -> Any:
    return logits


def _require_head(folder: Path) -> None:
    """Refuse a model without a classification head: the library would make one up at random."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = [str(name) for name in config.get("architectures") or ()]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise AssetError(f"{folder / 'config.json'} cannot be read ({error}): check the folder") from error
    if not any(name.endswith("ForSequenceClassification") for name in names):
        raise AssetError(
            f"{folder} holds no cross-encoder ({', '.join(names) or 'no architecture is named'}): choose a model "
            "for sequence classification"
        )

"""A cross-encoder made from an encoder: it learns from a data set's own training lists, before it ranks."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from r1ranker.assets import fetch_model
from r1ranker.baselines.cross_encoder import CrossEncoder, Pair, pairs_of
from r1ranker.baselines.embeddings import MODEL
from r1ranker.errors import AssetError, InputError, MissingExtraError
from r1ranker.types import RankingExample

WARMUP = 0.1
"""Of all steps, in which the rate rises; it falls to 0 in the others."""
TOGETHER = 16
"""Pairs that are read in one batch."""
Lists = Sequence[tuple[list[Pair], list[float]]]


class TrainedCrossEncoder(CrossEncoder):
    """Orders candidates as `CrossEncoder`, by an encoder that was trained as one on `train`.

    The encoder gets a new head of one score. A list's loss is the cross-entropy between the softmax of its scores and
    its grades as shares of their sum (listwise, as in ListNet, Cao et al. 2007). Lists without a query and a history,
    or of which no candidate is relevant, teach nothing. It trains on the CPU; `flops` counts what is ranked alone.

    model: an encoder: a folder, a name in ASSETS, or organisation/name on the hub. epochs: passes over the lists.
    learning_rate: the highest. lists: of one step. seed: of the head, of dropout and of the lists' order.
    on_share: told after each step which share of them is done.

    Raises InputError where there is nothing to learn from, MissingExtraError and AssetError as `CrossEncoder`.
    """

    name = "trained cross-encoder"

    def __init__(
        self,
        train: Sequence[RankingExample],
        model: str | Path = MODEL,
        *,
        seed: int = 0,
        epochs: int = 2,
        learning_rate: float = 1e-4,
        lists: int = 8,
        on_share: Callable[[float], None] = lambda _: None,
    ) -> None:
        if min(epochs, lists) < 1:
            raise InputError(f"epochs is {epochs} and lists {lists}; both must be at least 1")
        known = [(pairs_of(e), [e.grade(i) for i in e.ids]) for e in train if any(e.grade(i) > 0 for i in e.ids)]
        taught = [(pairs, grades) for pairs, grades in known if pairs]
        if not taught:
            raise InputError(f"{self.name} needs training lists with a query and a relevant candidate: there are none")
        try:
            import sentence_transformers  # noqa: F401 - asked for before minutes are spent
            import torch
        except ImportError as error:
            raise MissingExtraError("A cross-encoder", "sentence-transformers", "embeddings") from error
        order = random.Random(seed)
        passes = [order.sample(range(len(taught)), len(taught)) for _ in range(epochs)]
        steps = [[taught[k] for k in one[i : i + lists]] for one in passes for i in range(0, len(one), lists)]
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _train(fetch_model(model), steps, learning_rate, Path(folder), on_share)
            super().__init__(folder)


def _train(
    encoder: Path, steps: Sequence[Lists], learning_rate: float, out: Path, on_share: Callable[[float], None]
) -> None:
    """Train on every step's lists in turn, and save the model."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    silent = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call] # it would warn of the new head
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            encoder, num_labels=1, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AssetError(f"{encoder}: the encoder cannot be loaded ({reason}): check the folder") from error
    finally:
        logging.set_verbosity(silent)
    places = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.model_max_length = min(tokenizer.model_max_length, places)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    rising = max(1, round(WARMUP * len(steps)))
    schedule = get_linear_schedule_with_warmup(optimizer, rising, len(steps) + 1)  # type: ignore[no-untyped-call]
    model.train()
    for done, step in enumerate(steps, start=1):
        loss = torch.stack(list(_losses(model, tokenizer, step))).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        on_share(done / len(steps))
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)


def _losses(model: Any, tokenizer: Any, lists: Lists) -> Iterator[Any]:
    """The loss of each list, a scalar tensor."""
    import torch

    scores = _scores(model, tokenizer, [pair for pairs, _ in lists for pair in pairs])
    for of_list, (_, grades) in zip(scores.split([len(pairs) for pairs, _ in lists]), lists, strict=True):
        target = torch.tensor(grades)
        yield torch.nn.functional.cross_entropy(of_list[None], (target / target.sum())[None])


def _scores(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> Any:
    """A score for each pair, (pairs,). Pairs of about the same length are read together, so that little is padding."""
    import torch

    by_length = sorted(range(len(pairs)), key=lambda k: sum(map(len, pairs[k])))
    parts = []
    for start in range(0, len(pairs), TOGETHER):
        queries, texts = zip(*(pairs[k] for k in by_length[start : start + TOGETHER]), strict=True)
        read = tokenizer(list(queries), list(texts), truncation=True, padding=True, return_tensors="pt")
        parts.append(model(**read).logits.float()[:, 0])
    return torch.cat(parts)[torch.tensor(by_length).argsort()]

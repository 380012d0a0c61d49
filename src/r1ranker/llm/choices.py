"""What backends that get log-probs token by token share: drawing a choice, and whether a prompt fits."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1ranker.errors import InputError
from r1ranker.types import Request, Sampling

if TYPE_CHECKING:
    from r1ranker.llm.base import LLM


def choose(scores: Sequence[float], sampling: Sampling, generator: random.Random) -> int:
    """The place of the best mean log-prob, or one drawn by the softmax of sharpness x score / temperature."""
    best = max(scores)
    if sampling.temperature <= 0:
        return scores.index(best)
    weights = [math.exp((score - best) * sampling.sharpness / sampling.temperature) for score in scores]
    return generator.choices(range(len(scores)), weights)[0]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two sequences share."""
    pairs = zip(one, other, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def require_room(request: Request, prompt_tokens: int, answer_tokens: int, llm: LLM) -> None:
    """Raises InputError where a prompt and its answer are longer than the LLM reads."""
    need = prompt_tokens + answer_tokens
    if llm.context_tokens is not None and need > llm.context_tokens:
        raise InputError(
            f"the prompt of '{request.session or 'a request'}' and its answer take {need} tokens; "
            f"{llm.name} reads {llm.context_tokens}: rank fewer or shorter candidates, or allow fewer new tokens"
        )

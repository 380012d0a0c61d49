"""Rank with reasoning LLMs: DRanker writes the whole ranking at once, IRanker excludes again and again.

Importing the package loads neither torch nor transformers; the names below load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1ranker.firststep import FirstStep
    from r1ranker.pointwise import Pointwise
    from r1ranker.rankers import DRanker, IRanker
    from r1ranker.reranker import RankedDocument, RankResult, Reranker, make_example
    from r1ranker.types import Candidate, RankingExample, Trace

__version__ = "0.1.0"

_HOMES = {
    "Candidate": "types",
    "DRanker": "rankers",
    "FirstStep": "firststep",
    "IRanker": "rankers",
    "Pointwise": "pointwise",
    "RankResult": "reranker",
    "RankedDocument": "reranker",
    "RankingExample": "types",
    "Reranker": "reranker",
    "Trace": "types",
    "make_example": "reranker",
}

__all__ = [
    "Candidate",
    "DRanker",
    "FirstStep",
    "IRanker",
    "Pointwise",
    "RankResult",
    "RankedDocument",
    "RankingExample",
    "Reranker",
    "Trace",
    "__version__",
    "make_example",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'r1ranker' has no attribute '{name}'")
    return getattr(import_module(f"r1ranker.{_HOMES[name]}"), name)

"""Rankers that need no LLM; every report shows them beside the ones that do."""

from r1ranker.baselines.base import Baseline, trace
from r1ranker.baselines.bm25 import BM25
from r1ranker.baselines.popularity import Popularity
from r1ranker.baselines.random import RandomRanker, expected_measures

__all__ = ["BM25", "Baseline", "Popularity", "RandomRanker", "expected_measures", "trace"]

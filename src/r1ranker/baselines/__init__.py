"""Rankers that need no LLM; every report shows them beside the ones that do."""

from r1ranker.baselines.base import AsListed, Baseline
from r1ranker.baselines.bm25 import BM25
from r1ranker.baselines.first_stage import presort, presort_dataset
from r1ranker.baselines.popularity import Popularity
from r1ranker.baselines.random import RandomRanker, expected_measures
from r1ranker.baselines.registry import BASELINES, BaselineInfo, baseline_names, fit_baseline

__all__ = [
    "BASELINES",
    "BM25",
    "AsListed",
    "Baseline",
    "BaselineInfo",
    "Popularity",
    "RandomRanker",
    "baseline_names",
    "expected_measures",
    "fit_baseline",
    "presort",
    "presort_dataset",
]

"""Rewards (arXiv 2506.21638, section 3.2): pure functions of a parsed answer, in named parts and a total.

They see the parsed completion and never the prompt. Where the paper has one positive, these take grades
and several positives, and give the paper's values in its case.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1ranker.types import ParsedAnswer

NO_ANSWER = -1.0
NOT_A_CANDIDATE = -0.5
WRONG_FORMAT = -1.0
WRONG_TAG = -0.25
NDCG_CUTOFF = 20


@dataclass(frozen=True, slots=True)
class Reward:
    """The parts of a reward. `answer` is the part that depends on the ranking."""

    answer: float
    coverage: float = 0.0
    format: float = 0.0
    tags: float = 0.0

    @property
    def total(self) -> float:
        """The sum of the parts, all with the same weight, as in the paper."""
        return self.answer + self.coverage + self.format + self.tags


def exclusion_values(relevance: Mapping[str, float], remaining: Sequence[str]) -> tuple[float, ...]:
    """What excluding each of `remaining` earns: 1 - (grade - lowest) / (highest - lowest), in [0, 1].

    With one positive that is the paper's 1 for a negative and 0 for the positive. Where all grades are
    alike no exclusion is wrong, and each earns 1.
    """
    grades = [float(relevance.get(i, 0.0)) for i in remaining]
    low, high = min(grades), max(grades)
    if high == low:
        return (1.0,) * len(grades)
    return tuple(1.0 - (g - low) / (high - low) for g in grades)


def exclusion_reward(parsed: ParsedAnswer, relevance: Mapping[str, float], remaining: Sequence[str]) -> Reward:
    """An IRanker's reward for one exclusion. -0.5 for an answer that is no candidate of this turn, -1 for none."""
    if parsed.ids:
        answer = exclusion_values(relevance, remaining)[list(remaining).index(parsed.ids[0])]
    else:
        answer = NO_ANSWER if parsed.status == "failed" else NOT_A_CANDIDATE
    return _with_format(parsed, answer, 0.0)


def ranking_reward(parsed: ParsedAnswer, relevance: Mapping[str, float], candidates: Sequence[str]) -> Reward:
    """A DRanker's reward: nDCG@20 of the list as it was written, and the share of candidates it left out.

    coverage: named / candidates - 1, in [-1, 0]. Without an answer -1 stands in place of the nDCG.
    """
    coverage = len(parsed.ids) / len(candidates) - 1.0
    answer = NO_ANSWER if parsed.status == "failed" else ndcg(parsed.ids, relevance, NDCG_CUTOFF)
    return _with_format(parsed, answer, coverage)


def listing_values(relevance: Mapping[str, float], remaining: Sequence[str], place: int) -> tuple[float, ...]:
    """What writing each of `remaining` at `place` of a list (from 0) adds to its nDCG@20: an exact part of it."""
    if place >= NDCG_CUTOFF:
        return (0.0,) * len(remaining)
    return tuple(gain / math.log2(place + 2) for gain in listing_gains(relevance, remaining))


def listing_gains(relevance: Mapping[str, float], remaining: Sequence[str]) -> tuple[float, ...]:
    """The same at the first place, where nothing is discounted; 0 where nothing is relevant."""
    best = _ideal_dcg(relevance, NDCG_CUTOFF)
    return tuple(float(relevance.get(i, 0.0)) / best if best else 0.0 for i in remaining)


def ndcg(ranking: Sequence[str], relevance: Mapping[str, float], cutoff: int) -> float:
    """nDCG@cutoff with linear gains (Järvelin and Kekäläinen, 2002), 0 where nothing is relevant."""
    best = _ideal_dcg(relevance, cutoff)
    return _dcg([float(relevance.get(i, 0.0)) for i in ranking[:cutoff]]) / best if best else 0.0


def _ideal_dcg(relevance: Mapping[str, float], cutoff: int) -> float:
    return _dcg(sorted((g for g in relevance.values() if g > 0), reverse=True)[:cutoff])


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))


def _with_format(parsed: ParsedAnswer, answer: float, coverage: float) -> Reward:
    return Reward(
        answer=answer,
        coverage=coverage,
        format=0.0 if parsed.well_formed else WRONG_FORMAT,
        tags=WRONG_TAG * parsed.wrong_tags,
    )

"""What [validation] of a recipe measures: the policy as it is, on training lists that are kept out of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from r1ranker.cli.console import say
from r1ranker.config import RunConfig
from r1ranker.datasets import Dataset
from r1ranker.datasets.aside import Aside, set_aside
from r1ranker.evaluation.harness import run_ranker
from r1ranker.evaluation.measures import MEASURES, per_query
from r1ranker.reranker import Reranker
from r1ranker.types import RankingExample

if TYPE_CHECKING:
    from r1ranker.rl.policy import Policy
    from r1ranker.rl.validation import Measure


def keep_out(config: RunConfig, data: Dataset) -> Aside:
    """What a run trains on, and what it is measured on; without [validation] it trains on all."""
    if config.validation is None:
        return Aside(data.train, data.origins, {}, 0)
    aside = set_aside(data.name, data.train, data.origins, lists=config.validation.lists, seed=config.seed)
    kept = sum(map(len, aside.lists.values()))
    say(
        f"  {kept:,} training lists kept out for validation, and {aside.left_out:,} more of the same users or queries: "
        f"{len(aside.train):,} to train on"
    )
    return aside


def measure_of(config: RunConfig, policy: Policy, lists: Mapping[str, Sequence[RankingExample]]) -> Measure | None:
    """Ranks the lists as the recipe does, or by its first step, and gives the means over data sets; the recipe's own
    measure of each data set too. None without [validation]. Calling it raises MissingExtraError without ir_measures.
    """
    settings, asked = config.validation, config.ranker
    if settings is None:
        return None
    if settings.first_step:
        asked = asked.model_copy(update={"kind": "first_step"})
    reranker = Reranker(policy.llm, asked, seed=config.seed)
    examples = [example for own in lists.values() for example in own]
    origins = [origin for origin, own in lists.items() for _ in own]

    def run() -> dict[str, float]:
        traces, _ = run_ranker(
            "validation",
            reranker.ranker,
            examples,
            policy.llm,
            reranker.sampling,
            concurrency=config.evaluation.concurrency,
        )
        values = per_query({trace.example_id: trace.ranking for trace in traces}, examples)
        means = {
            name: {o: fmean(v for v, of in zip(values[name], origins, strict=True) if of == o) for o in lists}
            for name in MEASURES
        }
        own = means[settings.measure]
        by_data = {f"{settings.measure}/{origin}": own[origin] for origin in own if len(own) > 1}
        return {**{name: fmean(found.values()) for name, found in means.items()}, **by_data}

    return run

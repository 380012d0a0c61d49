"""Drives many rankers over one LLM. The same driver trains, evaluates and serves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from r1ranker.llm.base import LLM
from r1ranker.rankers import Ranker, Ranking
from r1ranker.types import Completion, RankingExample, Request, Sampling, Trace


def rollout(
    ranker: Ranker,
    examples: Iterable[RankingExample],
    llm: LLM,
    sampling: Sampling | None = None,
    *,
    concurrency: int = 32,
) -> Iterator[tuple[int, Trace]]:
    """Rank every example; yields (position in `examples`, trace) as each is finished.

    Up to `concurrency` rankings are under way, each waiting for one completion; all that wait go to
    the LLM in one batch. A finished ranking makes room for the next at once, so none waits for a
    slower one to end. Examples are drawn only when there is room: they can be an endless stream.
    """
    sampling = sampling or Sampling()
    source = iter(enumerate(examples))
    waiting: list[tuple[int, Ranking, Request]] = []
    rounds = 0
    while True:
        while len(waiting) < concurrency and (drawn := next(source, None)) is not None:
            position, example = drawn
            ranking = ranker.rank(example)
            step = _advance(ranking, None)
            if isinstance(step, Trace):
                yield position, step
            else:
                waiting.append((position, ranking, step))
        if not waiting:
            return
        requests = [request for _, _, request in waiting]
        # A seed of its own for each round: one seed for all would draw the same noise in every turn.
        completions = llm.complete(requests, replace(sampling, seed=sampling.seed + rounds))
        rounds += 1
        still = []
        for (position, ranking, _), completion in zip(waiting, completions, strict=True):
            step = _advance(ranking, completion)
            if isinstance(step, Trace):
                yield position, step
            else:
                still.append((position, ranking, step))
        waiting = still


def rank_all(
    ranker: Ranker,
    examples: Iterable[RankingExample],
    llm: LLM,
    sampling: Sampling | None = None,
    *,
    concurrency: int = 32,
) -> list[Trace]:
    """All traces, in the order of the examples."""
    finished = dict(rollout(ranker, examples, llm, sampling, concurrency=concurrency))
    return [finished[k] for k in sorted(finished)]


def _advance(ranking: Ranking, completion: Completion | None) -> Request | Trace:
    try:
        return next(ranking) if completion is None else ranking.send(completion)
    except StopIteration as stop:
        trace: Trace = stop.value
        return trace

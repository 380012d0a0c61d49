"""Drives many rankers over one LLM. The same driver trains, evaluates and serves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from r1ranker.errors import InputError
from r1ranker.fit import fit
from r1ranker.llm.base import LLM
from r1ranker.prompted import Asked, Ranker, Ranking, Told, advance, deal, one_ahead, requests_of
from r1ranker.types import RankingExample, Sampling, Trace

OnError = Callable[[int, InputError], None]
Waiting = tuple[int, Ranking, Asked]
"""An example's position, its ranking, and what that waits to be told."""


def rollout(
    ranker: Ranker,
    examples: Iterable[RankingExample],
    llm: LLM | None = None,
    sampling: Sampling | None = None,
    *,
    concurrency: int = 32,
    on_error: OnError | None = None,
) -> Iterator[tuple[int, Trace]]:
    """Rank every example; yields (position in `examples`, trace) as each is finished.

    Up to `concurrency` rankings are under way, each waiting for one completion, or for those of several requests
    that it asks at once (the very first of them goes ahead, see `one_ahead`); all that wait go to the LLM in one
    batch. A finished ranking makes room for the next at once, so none waits for a slower one to end. Examples are
    drawn only when there is room: they can be an endless stream.

    Texts that are too long for the LLM's context, or for the ranker's `document_tokens`, are cut as `fit.py` says; the
    trace counts them. An example that
    cannot be made to fit, or whose request the LLM refuses, is handed to `on_error`, and the others go on; without it,
    it raises.

    llm: may be left out for a ranker that asks nothing (a baseline). Raises InputError where one asks all the same.
    """
    if concurrency < 1:
        raise InputError(f"concurrency is {concurrency}; it must be at least 1")
    sampling = sampling or Sampling()
    budget = _budget(ranker, llm, sampling)
    source = iter(enumerate(examples))
    waiting: list[Waiting] = []
    rounds = 0
    while True:
        while len(waiting) < concurrency and (drawn := next(source, None)) is not None:
            position, example = drawn
            ranking = _fitted(ranker, example, llm, budget)
            try:
                step = advance(ranking)
            except InputError as error:
                if on_error is None:
                    raise
                on_error(position, error)
                continue
            if isinstance(step, Trace):
                yield position, step
            else:
                waiting.append((position, ranking, step))
        if not waiting:
            return
        if llm is None:
            raise InputError(f"{type(ranker).__name__} needs an LLM: give one, or rank with a baseline")
        # A seed of its own for each round: one seed for all would draw the same noise in every turn.
        seed = random.Random(f"{sampling.seed}/{rounds}").getrandbits(62)
        rounds += 1
        still = []
        for (position, ranking, _), own in _answered(waiting, llm, replace(sampling, seed=seed), on_error):
            try:
                step = advance(ranking, own)
            except InputError as error:
                if on_error is None:
                    raise
                on_error(position, error)
                continue
            if isinstance(step, Trace):
                yield position, step
            else:
                still.append((position, ranking, step))
        waiting = still


def _answered(
    waiting: Sequence[Waiting], llm: LLM, sampling: Sampling, on_error: OnError | None
) -> list[tuple[Waiting, Told]]:
    """Each ranking with what it is told. A request that the LLM refuses is found by asking for each ranking alone."""
    try:
        requests = [request for _, _, asked in waiting for request in requests_of(asked)]
        told = deal([asked for _, _, asked in waiting], llm.complete(requests, sampling))
        return list(zip(waiting, told, strict=True))
    except InputError as error:
        if on_error is None:
            raise
        if len(waiting) == 1:
            on_error(waiting[0][0], error)
            return []
    alone = [
        replace(sampling, seed=random.Random(f"{sampling.seed}/{one[0]}").getrandbits(62)) for one in waiting
    ]  # one seed for all would draw the same noise for each
    return [pair for one, own in zip(waiting, alone, strict=True) for pair in _answered([one], llm, own, on_error)]


def rank_all(
    ranker: Ranker,
    examples: Iterable[RankingExample],
    llm: LLM | None = None,
    sampling: Sampling | None = None,
    *,
    concurrency: int = 32,
) -> list[Trace]:
    """All traces, in the order of the examples."""
    finished = dict(rollout(ranker, examples, llm, sampling, concurrency=concurrency))
    return [finished[k] for k in sorted(finished)]


def _budget(ranker: Ranker, llm: LLM | None, sampling: Sampling) -> int | None:
    """Tokens that an example's texts may take; None where there is no LLM, or it has no limit."""
    if llm is None or llm.context_tokens is None:
        return None
    budget = ranker.text_budget(llm.context_tokens, sampling.max_tokens)
    if budget <= 0:
        raise InputError(
            f"{llm.name} reads {llm.context_tokens} tokens, which an answer of max_tokens = {sampling.max_tokens} and "
            "the instructions fill: allow fewer new tokens"
        )
    return budget


def _fitted(ranker: Ranker, example: RankingExample, llm: LLM | None, budget: int | None) -> Ranking:
    """The ranking of the example with texts that fit; its trace says how many were cut."""
    if llm is None:
        return (yield from one_ahead(ranker.rank(example)))
    fitting, cut = fit(example, budget, llm.count_tokens, ranker.shown, ranker.document_tokens)
    trace = yield from one_ahead(ranker.rank(fitting))
    return replace(trace, truncated=trace.truncated + cut)

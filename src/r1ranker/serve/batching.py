"""What waits is ranked together: one thread has the model, and each request gets its result as soon as it is there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from r1ranker.errors import InputError, R1RankerError
from r1ranker.reranker import RankResult, Reranker, with_settings
from r1ranker.types import RankingExample


class Overloaded(R1RankerError):
    """More lists wait than the server takes."""


@dataclass(frozen=True)
class _Job:
    example: RankingExample
    document_tokens: int | None
    result: asyncio.Future[RankResult]


class Batcher:
    """Ranks lists in batches, in the order of their arrival.

    most_waiting: lists that may wait; more are refused. concurrency: lists that are ranked side by side. Who asks for
    other `document_tokens` than the first of those that wait is in a later batch.
    """

    def __init__(self, reranker: Reranker, *, most_waiting: int = 256, concurrency: int = 32) -> None:
        self.reranker, self.most_waiting, self.concurrency = reranker, most_waiting, concurrency
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ranking")
        self._asked = lru_cache(maxsize=8)(self._with_document_tokens)

    @property
    def waiting(self) -> int:
        """Lists that are not begun."""
        return len(self._jobs)

    async def rank(self, example: RankingExample, document_tokens: int | None = None) -> RankResult:
        """The list's result; all places are in it. A cancelled wait takes the list out, if it is not begun.

        document_tokens: tokens of a text at most; the ranker's own limit holds too.
        Raises Overloaded, and what the ranking raises.
        """
        if len(self._jobs) >= self.most_waiting:
            raise Overloaded(f"{len(self._jobs):,} lists wait already: try again later")
        job = _Job(example, document_tokens, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.result

    async def run(self) -> None:
        """Rank what arrives, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not batch:
                self._arrived.clear()
                continue
            ranking = loop.run_in_executor(self._pool, self._rank, batch, loop)
            [error] = await asyncio.gather(ranking, return_exceptions=True)
            if error is not None:  # of the model, not of one list: whoever still waits is told
                for job in batch:
                    _fail(job, error)

    def close(self) -> None:
        """Let the thread end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[_Job]:
        """The next batch: what still waits, all with the limit of the first."""
        waiting = [job for job in self._jobs if not job.result.done()]
        batch = [job for job in waiting if job.document_tokens == waiting[0].document_tokens][: self.concurrency]
        taken = set(map(id, batch))
        self._jobs = deque(job for job in waiting if id(job) not in taken)
        return batch

    def _rank(self, batch: Sequence[_Job], loop: asyncio.AbstractEventLoop) -> None:
        """In the thread. Each result goes to its request at once."""

        def give_up(position: int, error: InputError) -> None:
            loop.call_soon_threadsafe(_fail, batch[position], error)

        reranker = self._asked(batch[0].document_tokens)
        examples = [job.example for job in batch]
        for position, result in reranker.rank_stream(examples, concurrency=self.concurrency, on_error=give_up):
            loop.call_soon_threadsafe(_finish, batch[position], result)

    def _with_document_tokens(self, document_tokens: int | None) -> Reranker:
        """The same model, asked with shorter texts."""
        if document_tokens is None:
            return self.reranker
        own = self.reranker.config.document_tokens
        limit = document_tokens if own is None else min(own, document_tokens)
        config = with_settings(self.reranker.config, {"document_tokens": limit})
        return Reranker(self.reranker.llm, config, seed=self.reranker.sampling.seed)


def _finish(job: _Job, result: RankResult) -> None:
    if not job.result.done():
        job.result.set_result(result)


def _fail(job: _Job, error: BaseException) -> None:
    if not job.result.done():
        job.result.set_exception(error)

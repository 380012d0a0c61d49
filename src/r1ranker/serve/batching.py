"""What waits is ranked together: one thread has the model, and each request gets its result as soon as it is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

from r1ranker.errors import InputError, R1RankerError
from r1ranker.reranker import RankResult, Reranker
from r1ranker.types import RankingExample


class Overloaded(R1RankerError):
    """More lists wait than the server takes."""


@dataclass(frozen=True, eq=False)
class _Job:
    example: RankingExample
    document_tokens: int | None
    result: asyncio.Future[RankResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def finish(self, result: RankResult) -> None:
        self._tell(self.result.set_result, result)

    def fail(self, error: Exception) -> None:
        self._tell(self.result.set_exception, error)

    def _tell(self, tell: Callable[[Any], None], what: object) -> None:
        """From the thread. Whoever has left is told nothing."""
        with suppress(RuntimeError):  # the loop has ended
            self.result.get_loop().call_soon_threadsafe(lambda: None if self.result.done() else tell(what))


class Batcher:
    """Ranks lists in batches, in the order of their arrival.

    most_waiting: lists that may wait; more are refused. concurrency: lists that are ranked side by side. In a batch all
    have the same `document_tokens`, and no two the same id. The thread begins with the first list, and keeps no process
    from ending.
    """

    def __init__(self, reranker: Reranker, *, most_waiting: int = 256, concurrency: int = 32) -> None:
        self.reranker, self.most_waiting, self.concurrency = reranker, most_waiting, concurrency
        self._jobs: list[_Job] = []
        self._running: set[_Job] = set()
        self._begun = 0.0
        self._changed = Condition()
        self._thread: Thread | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Lists that are not begun."""
        return len(self._jobs)

    @property
    def running(self) -> int:
        """Lists under way: begun, and not finished."""
        return len(self._running)

    @property
    def running_seconds(self) -> float:
        """How long the batch under way has run, in seconds; 0 without one."""
        with self._changed:
            return time.monotonic() - self._begun if self._running else 0.0

    async def rank(self, example: RankingExample, document_tokens: int | None = None) -> RankResult:
        """The list's result; all places are in it. A cancelled wait takes the list out, if it is not begun.

        document_tokens: tokens of a text at most; the ranker's own limit holds too.
        Raises Overloaded, and what the ranking raises.
        """
        own = self.reranker.config.document_tokens
        limit = None if document_tokens is None or (own and own <= document_tokens) else document_tokens
        with self._changed:
            if len(self._jobs) >= self.most_waiting:
                raise Overloaded(f"{len(self._jobs):,} lists wait already: try again later")
            job = _Job(example, limit)
            self._jobs.append(job)
            if self._thread is None or not self._thread.is_alive():
                self._closed = False
                self._thread = Thread(target=self._work, name="ranking", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            return await job.result
        finally:
            with self._changed, suppress(ValueError):  # begun
                self._jobs.remove(job)

    def close(self) -> None:
        """Let the thread end, after the batch under way."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        """In the thread: rank what waits, until closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    self._thread = None
                    return
                batch = self._take()
            try:
                self._rank(batch)
            except Exception as error:  # noqa: BLE001 - of the model, not of one list: whoever still waits is told
                for job in batch:
                    self._over(job)
                    job.fail(error)

    def _take(self) -> list[_Job]:
        """The next batch: those that can go with the first."""
        batch: dict[str, _Job] = {}
        for job in self._jobs:
            if job.document_tokens == self._jobs[0].document_tokens and len(batch) < self.concurrency:
                batch.setdefault(job.example.id, job)
        self._jobs = [job for job in self._jobs if batch.get(job.example.id) is not job]
        self._running, self._begun = set(batch.values()), time.monotonic()
        return list(batch.values())

    def _over(self, job: _Job) -> None:
        """No longer under way. Before its request is told, so that whoever has an answer sees it ended."""
        with self._changed:
            self._running.discard(job)

    def _rank(self, batch: Sequence[_Job]) -> None:
        """Each result goes to its request at once."""

        def give_up(position: int, error: InputError) -> None:
            self._over(batch[position])
            batch[position].fail(error)

        limit = batch[0].document_tokens
        reranker = self.reranker if limit is None else self.reranker.limited(limit)
        examples = [job.example for job in batch]
        for position, result in reranker.rank_stream(examples, concurrency=self.concurrency, on_error=give_up):
            self._over(batch[position])
            batch[position].finish(result)

"""What a server counts since it began, as Prometheus reads it at `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1ranker.serve.batching import Batcher
from r1ranker.serve.schemas import RerankResponse

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Seconds: a short list on a GPU takes a part of one, a long one that thinks on a CPU minutes."""


class Metrics:
    """The numbers of one app, in a registry of their own."""

    def __init__(self, batcher: Batcher) -> None:
        self._own = own = CollectorRegistry()
        self._requests = Counter("r1ranker_requests", "Rerank requests, by HTTP status.", ["code"], registry=own)
        self._seconds = Histogram(
            "r1ranker_request_seconds",
            "Seconds of a rerank request that got its ranking, the wait included.",
            buckets=BUCKETS,
            registry=own,
        )
        self._documents = Counter("r1ranker_documents", "Documents of answered requests.", registry=own)
        self._tokens = Counter(
            "r1ranker_tokens", "Tokens of answered requests; cached ones are prompt ones too.", ["kind"], registry=own
        )
        self._truncated = Counter("r1ranker_truncated_texts", "Texts that were cut or left out.", registry=own)
        self._defaulted = Counter("r1ranker_defaulted_turns", "Turns whose answer named no candidate.", registry=own)
        gauges = {
            "lists_waiting": ("Lists that are not begun.", lambda: batcher.waiting),
            "lists_running": ("Lists under way.", lambda: batcher.running),
            "running_seconds": (
                "How long the batch under way has run; 0 without one.",
                lambda: batcher.running_seconds,
            ),
        }
        for name, (told, read) in gauges.items():
            Gauge(f"r1ranker_{name}", told, registry=own).set_function(read)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._own)

    def answered(self, answer: RerankResponse) -> None:
        """Count what a ranking had; all its results are in the answer."""
        self._documents.inc(len(answer.results))
        for kind in ("prompt", "completion", "cached"):
            self._tokens.labels(kind).inc(getattr(answer.usage, f"{kind}_tokens"))
        self._truncated.inc(answer.truncated)
        self._defaulted.inc(answer.defaulted)

    def ended(self, status: int, seconds: float) -> None:
        """Count a rerank request. status: of HTTP."""
        self._requests.labels(str(status)).inc()
        if status == 200:
            self._seconds.observe(seconds)


class Counted:
    """Counts the requests at some paths, also those that are refused unread."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Collection[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI's specification."""
        if scope["type"] != "http" or scope["path"] not in self.paths:
            return await self.app(scope, receive, send)
        status, begin = 500, time.perf_counter()  # an error without an answer gets its 500 outside of this

        async def told(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            return await self.app(scope, receive, told)
        finally:
            self.metrics.ended(status, time.perf_counter() - begin)

"""The routes: `/rerank` (also as `/v1/rerank` and `/v2/rerank`), `/v1/models`, `/health`, `/metrics`, and a page."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from r1ranker import __version__
from r1ranker.errors import InputError, R1RankerError
from r1ranker.reranker import RankResult, Reranker, make_example
from r1ranker.serve.batching import Batcher, Overloaded
from r1ranker.serve.guard import Guard
from r1ranker.serve.metrics import Counted, Metrics
from r1ranker.serve.schemas import RerankRequest, RerankResponse, response
from r1ranker.types import RankingExample

RERANK = ("/rerank", "/v1/rerank", "/v2/rerank")
"""Paths that rank."""
LOOK_EVERY = 0.5
"""Seconds between looks whether a client that waits is still there."""
_CLIENT_GONE = 499
_TOLD = 5
"""How many wrong fields are named."""


def create_app(
    reranker: Reranker,
    model: str,
    *,
    aliases: Sequence[str] = (),
    api_key: str | None = None,
    hosts: Collection[str] | None = None,
    max_documents: int = 1000,
    max_query_characters: int = 20_000,
    max_waiting: int = 256,
    concurrency: int = 32,
) -> FastAPI:
    """The server of one model.

    model, aliases: the names that a request may call it by. api_key, hosts: see `Guard`. max_documents: of a request.
    max_query_characters: of its query, history, item type and goal together. max_waiting, concurrency: see `Batcher`.
    Raises InputError for a key without a character.
    """
    if api_key is not None and not api_key.strip():
        raise InputError("the key is empty: give one, or leave it out")
    batcher = Batcher(reranker, most_waiting=max_waiting, concurrency=concurrency)
    metrics = Metrics(batcher)
    names = {model, *aliases}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    # FastAPI's own pages of the fields load scripts of another server.
    app = FastAPI(title="r1ranker", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, api_key=api_key, hosts=hosts)
    app.add_middleware(Counted, metrics=metrics, paths=RERANK)  # the last one stands outside
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(R1RankerError, _not_ranked)
    app.add_exception_handler(Exception, _unexpected)

    async def rerank(asked: RerankRequest, request: Request) -> RerankResponse:
        """Rank documents, best first."""
        if asked.model and asked.model not in names:
            raise HTTPException(404, f"{asked.model[:100]!a} is not served here, '{model}' is (--alias adds a name)")
        if (n := len(asked.documents)) > max_documents:
            raise _too_much(n, "documents", max_documents, "--max-documents")
        if (n := sum(map(len, (asked.query, *asked.history, asked.item_type, asked.goal)))) > max_query_characters:
            what = "characters of query, history, item type and goal"
            raise _too_much(n, what, max_query_characters, "--max-query-characters")
        ranked = asyncio.create_task(batcher.rank(_example(asked), asked.max_tokens_per_doc))
        result = await _while_there(request, ranked)
        config = reranker.config
        answer = response(result, asked, model=model, kind=config.kind, sharpness=config.sharpness)
        metrics.answered(answer)
        answer.id = f"rerank-{uuid.uuid4().hex}"
        answer.results = answer.results[: asked.top_n or None]
        return answer

    for path in RERANK:
        app.post(path, response_model_exclude_none=True)(rerank)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The names that a request may give."""
        listed = [{"id": name, "object": "model", "owned_by": "r1ranker"} for name in (model, *aliases)]
        return {"object": "list", "data": listed}

    @app.get("/health")
    @app.head("/health", include_in_schema=False)
    async def health() -> dict[str, Any]:
        """Whether the server answers, how many lists wait and are under way, and for how long these are."""
        lists = {"waiting": batcher.waiting, "running": batcher.running}
        return {"status": "ok", "model": model, **lists, "running_seconds": round(batcher.running_seconds, 3)}

    @app.get("/metrics", response_class=Response)
    async def counts() -> Response:
        """What was asked and ranked since the server began, as Prometheus reads it."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    page = files("r1ranker.serve").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> str:
        return page

    return app


def _example(asked: RerankRequest) -> RankingExample:
    """What is ranked. Its id is a digest of it: what is shuffled by id comes out alike for the same request."""
    documents = [d if isinstance(d, str) else d.model_dump() for d in asked.documents]
    told: dict[str, Any] = asked.model_dump(include={"history", "presorted", "scenario", "item_type", "goal"})
    example = make_example(asked.query, documents, **told)
    digest = hashlib.sha256(json.dumps([asked.query, documents, told]).encode())
    return replace(example, id=digest.hexdigest()[:32])


async def _while_there(request: Request, ranked: asyncio.Task[RankResult]) -> RankResult:
    """The result. A client that leaves is not ranked for, if its list is not begun."""
    while True:
        done, _ = await asyncio.wait({ranked}, timeout=LOOK_EVERY)
        if done:
            return ranked.result()
        if await request.is_disconnected():
            ranked.cancel()
            raise HTTPException(_CLIENT_GONE, "the client has left")


def _too_much(n: int, what: str, most: int, option: str) -> HTTPException:
    return HTTPException(413, f"{n:,} {what}: this server takes {most:,} at most ({option})")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"message": error.detail}, error.status_code, error.headers)


async def _not_valid(_: Request, error: Exception) -> Response:
    """The first wrong keys with what is wrong; what was sent is not sent back."""
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    told = [f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in errors[:_TOLD]]
    more = [f"and {len(errors) - _TOLD} more"] if len(errors) > _TOLD else []
    return JSONResponse({"message": "; ".join([*told, *more])}, 422)


async def _not_ranked(_: Request, error: Exception) -> Response:
    """A list that cannot be ranked is the client's (400); too many at once (503); or the model's own server fails."""
    if isinstance(error, Overloaded):
        return JSONResponse({"message": str(error)}, 503, {"Retry-After": "1"})
    return JSONResponse({"message": str(error)}, 400 if isinstance(error, InputError) else 502)


async def _unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"the ranking failed ({type(error).__name__}): the server's log says more"}, 500)

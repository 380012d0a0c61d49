"""The routes: `/rerank` (also as `/v1/rerank` and `/v2/rerank`), `/v1/models`, `/health`, and a page to try it on."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1ranker import __version__
from r1ranker.errors import InputError, R1RankerError
from r1ranker.reranker import RankResult, Reranker, make_example
from r1ranker.serve.batching import Batcher, Overloaded
from r1ranker.serve.schemas import RerankRequest, RerankResponse, response

LARGEST_BODY = 32 * 1024 * 1024
"""Bytes of a request."""
_LOOK_EVERY = 0.5
"""Seconds between looks whether a client that waits is still there."""
_CLIENT_GONE = 499


def create_app(
    reranker: Reranker,
    model: str,
    *,
    aliases: Sequence[str] = (),
    api_key: str | None = None,
    max_documents: int = 1000,
    max_waiting: int = 256,
    concurrency: int = 32,
) -> FastAPI:
    """The server of one model.

    model, aliases: the names that a request may call it by. api_key: what `Authorization: Bearer …` must hold (None:
    anyone may ask). max_documents: of a request. max_waiting, concurrency: see `Batcher`.
    """
    batcher = Batcher(reranker, most_waiting=max_waiting, concurrency=concurrency)
    names = {model, *aliases}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ranking = asyncio.create_task(batcher.run())
        yield
        ranking.cancel()
        batcher.close()

    async def authorized(request: Request) -> None:
        told = request.headers.get("authorization", "").removeprefix("Bearer ")
        # Header bytes come as Latin-1, clients send UTF-8.
        if api_key is not None and not secrets.compare_digest(told.encode("latin-1"), api_key.encode()):
            raise HTTPException(401, "this server wants its key: Authorization: Bearer KEY")

    app = FastAPI(title="r1ranker", version=__version__, lifespan=lifespan, redoc_url=None)
    app.add_middleware(BodyLimit)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(R1RankerError, _not_ranked)
    app.add_exception_handler(Exception, _unexpected)

    @app.post("/rerank", dependencies=[Depends(authorized)], response_model_exclude_none=True)
    @app.post("/v1/rerank", dependencies=[Depends(authorized)], response_model_exclude_none=True)
    @app.post("/v2/rerank", dependencies=[Depends(authorized)], response_model_exclude_none=True)
    async def rerank(asked: RerankRequest, request: Request) -> RerankResponse:
        """Rank documents, best first."""
        if asked.model and asked.model not in names:
            raise HTTPException(404, f"'{asked.model}' is not served here, '{model}' is (--alias adds a name)")
        if (n := len(asked.documents)) > max_documents:
            raise HTTPException(413, f"{n:,} documents: this server takes {max_documents:,} at most (--max-documents)")
        id = f"rerank-{uuid.uuid4().hex}"
        example = make_example(
            asked.query,
            [d if isinstance(d, str) else d.model_dump(exclude_none=True) for d in asked.documents],
            history=asked.history,
            id=id,  # rankings under way side by side must differ in it
            presorted=asked.presorted,
            scenario=asked.scenario,
            item_type=asked.item_type,
        )
        ranked = asyncio.create_task(batcher.rank(example, asked.max_tokens_per_doc))
        result = await _while_there(request, ranked)
        answer = response(
            result,
            asked,
            id=id,
            model=model,
            kind=reranker.config.kind,
            sharpness=reranker.config.sharpness,
        )
        answer.results = answer.results[: asked.top_n or None]
        return answer

    @app.get("/v1/models", dependencies=[Depends(authorized)])
    async def models() -> dict[str, Any]:
        """The names that a request may give."""
        listed = [{"id": name, "object": "model", "owned_by": "r1ranker"} for name in (model, *aliases)]
        return {"object": "list", "data": listed}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server answers, and how many lists wait to be begun."""
        return {"status": "ok", "model": model, "waiting": batcher.waiting}

    page = files("r1ranker.serve").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> str:
        return page

    return app


async def _while_there(request: Request, ranked: asyncio.Task[RankResult]) -> RankResult:
    """The result. A client that leaves is not ranked for, if its list is not begun."""
    while True:
        done, _ = await asyncio.wait({ranked}, timeout=_LOOK_EVERY)
        if done:
            return ranked.result()
        if await request.is_disconnected():
            ranked.cancel()
            raise HTTPException(_CLIENT_GONE, "the client has left")


class BodyLimit:
    """Refuses a request of more than `LARGEST_BODY` bytes while it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI's specification."""
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > LARGEST_BODY:
                raise HTTPException(413, f"the request has more than {LARGEST_BODY:,} bytes")
            return message

        await self.app(scope, limited if scope["type"] == "http" else receive, send)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"message": error.detail}, error.status_code, error.headers)


async def _not_valid(_: Request, error: Exception) -> Response:
    """Each key with what is wrong; what was sent is not sent back."""
    assert isinstance(error, RequestValidationError)
    told = [f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors()]
    return JSONResponse({"message": "; ".join(told)}, 422)


async def _not_ranked(_: Request, error: Exception) -> Response:
    """A list that cannot be ranked is the client's (400); too many at once (503); or the model's own server fails."""
    if isinstance(error, Overloaded):
        return JSONResponse({"message": str(error)}, 503, {"Retry-After": "1"})
    return JSONResponse({"message": str(error)}, 400 if isinstance(error, InputError) else 502)


async def _unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"the ranking failed ({type(error).__name__}): the server's log says more"}, 500)

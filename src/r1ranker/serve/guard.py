"""What is refused before a request is read: a wrong key, a foreign page, too many bytes, a body that never ends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 32 * 1024 * 1024
"""Bytes of a request."""
READ_SECONDS = 30.0
"""How long the next part of a body may take."""
OPEN = ("/", "/health")
"""Paths that need no key."""


class Guard:
    """Looks at a request before its body is read.

    api_key: what `Authorization: Bearer …` must hold (None: nothing). hosts: names by which the server may be called
    (None: any). A page of another site that is open in a browser on this machine can send requests here, and with a
    name of its own that leads here read the answers: the first is refused by its content type, the second by its host.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None = None, hosts: Collection[str] | None = None) -> None:
        self.app, self.api_key, self.hosts = app, api_key, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI's specification."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, text = self._refusal(scope, Headers(scope=scope))
        if text:
            return await JSONResponse({"message": text}, status)(scope, receive, send)
        return await self.app(scope, _limited(receive), send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str]:
        if self.hosts is not None and (host := _name(headers.get("host", ""))) not in self.hosts:
            return 400, f"{host!a} is not this machine's name: --host names it, or give the server a key (--api-key)"
        if self.api_key is not None and scope["path"] not in OPEN:
            scheme, _, told = headers.get("authorization", "").partition(" ")
            # Header bytes come as Latin-1, clients send UTF-8.
            same = secrets.compare_digest(told.strip().encode("latin-1"), self.api_key.encode())
            if scheme.lower() != "bearer" or not same:
                return 401, "this server wants its key: Authorization: Bearer KEY"
        if scope["method"] == "POST" and not headers.get("content-type", "").lower().startswith("application/json"):
            return 415, "a request is JSON: Content-Type: application/json"
        if headers.get("content-length", "0").isdigit() and int(headers.get("content-length", "0")) > LARGEST_BODY:
            return 413, _too_large()
        return 0, ""


def _limited(receive: Receive) -> Receive:
    """Ends a body that is too large, or that stops."""
    read, whole = 0, False

    async def limited() -> Message:
        nonlocal read, whole
        if whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), READ_SECONDS)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, f"nothing more of the request came for {READ_SECONDS:g} seconds") from error
        read += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if read > LARGEST_BODY:
            raise HTTPException(413, _too_large())
        return message

    return limited


def _too_large() -> str:
    return f"the request has more than {LARGEST_BODY:,} bytes"


def _name(host: str) -> str:
    """A Host header without its port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.lower()

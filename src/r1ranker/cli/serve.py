"""`r1ranker serve`: a ranker behind HTTP, in the format that rerank clients know."""

from __future__ import annotations

import copy
import ipaddress
import os
import socket
from typing import Annotated, Any

import typer

from r1ranker.cli import options
from r1ranker.cli.console import say
from r1ranker.cli.errors import INTERRUPTED, complain
from r1ranker.cli.rank import load_reranker
from r1ranker.errors import InputError, MissingExtraError

EPILOG = options.examples(
    "r1ranker serve",
    "r1ranker serve --model runs/mine/model --port 9000 --ranker first-step --document-tokens 128",
    """curl localhost:8080/rerank -H 'Content-Type: application/json' -d '{"query": "who wrote Emma?", """
    """"documents": ["A town.", "Jane Austen wrote Emma."]}'""",
)


@options.takes_ranker
def serve(
    model: options.Model = options.DEFAULT_MODEL,
    *,
    settings: dict[str, Any],
    host: Annotated[str, typer.Option("--host", help="The address to listen at; 0.0.0.0: all of this machine's.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0: a free one, which is told.")] = 8080,
    alias: Annotated[
        list[str] | None,
        typer.Option("--alias", metavar="NAME", help="Another name that requests may call the model by; repeat it."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="R1RANKER_API_KEY",
            help="What requests must bring as 'Authorization: Bearer KEY'.",
            show_default="none: anyone may ask",
        ),
    ] = None,
    max_documents: Annotated[int, typer.Option("--max-documents", min=1, help="Documents of a request.")] = 1000,
    max_query_characters: Annotated[
        int, typer.Option("--max-query-characters", min=1, help="Of a request's query and history.")
    ] = 20_000,
    max_waiting: Annotated[int, typer.Option("--max-waiting", min=1, help="Requests that may wait; more: 503.")] = 256,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Lists under way at once; fewer take less memory.")
    ] = 32,
    device: options.Device = "auto",
) -> None:
    """Serve a ranker over HTTP, and a page to try it on.

    POST /rerank, /v1/rerank or /v2/rerank, as clients of Cohere and Jina do; /openapi.json tells every field. Ctrl-C or
    SIGTERM answers what is under way and what waits, and ends; a second Ctrl-C ends at once.
    """
    try:
        import uvicorn
        from uvicorn.config import LOGGING_CONFIG

        from r1ranker.serve.app import create_app
    except ImportError as error:
        raise MissingExtraError("serve", error.name or "fastapi", "serve") from error
    from r1ranker.modelfolder import short_name

    if api_key is not None and not api_key.strip():
        raise InputError("--api-key is empty: give a key, or leave the option out")
    with _listening(host, port) as listening:  # a port that is taken is told before the model is loaded
        reranker = load_reranker(model, settings, device)
        name = short_name(model)
        app = create_app(
            reranker,
            name,
            aliases=alias or [],
            api_key=api_key,
            # Without a key, a page of another site may not call this machine by a name of its own.
            hosts={host, *_LOCAL} if api_key is None and _is_local(host) else None,
            max_documents=max_documents,
            max_query_characters=max_query_characters,
            max_waiting=max_waiting,
            concurrency=concurrency,
        )
        logging = copy.deepcopy(LOGGING_CONFIG)
        logging["handlers"]["access"]["stream"] = "ext://sys.stderr"
        server = uvicorn.Server(uvicorn.Config(app, log_config=logging, log_level="info"))
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        say(f"serving {name} at {address} (a page to try it on; POST {address}/rerank)")
        if api_key is None and not _is_local(host):
            say("anyone who reaches this address may ask: --api-key (or R1RANKER_API_KEY) wants a key")
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            complain("stopped")
            os._exit(INTERRUPTED)  # a list may still be under way in torch, which the usual end would abort


_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InputError where the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = f"cannot listen at {host}, port {port} ({str(error.strerror).partition(' (while ')[0]})"
        raise InputError(f"{why}: --port or --host take another") from error


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

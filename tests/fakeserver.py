"""A small OpenAI-compatible server in a thread, for tests: it answers what a function of the request says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = Callable[[Body], "str | Body | tuple[int, Any]"]


def reply(content: str | None, *, finish: str = "stop", usage: Body | None = None, **message: Any) -> Body:
    """A chat completion; further arguments are fields of its message."""
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
        ],
        **({} if usage is None else {"usage": usage}),
    }


def failure(status: int, message: str, **fields: Any) -> tuple[int, Body]:
    """An error as OpenAI words it."""
    return status, {"error": {"message": message, "type": "x", "param": None, "code": None, **fields}}


class FakeServer:
    """What was asked of the server, in the order of arrival."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.url = ""
        self.lock = threading.Lock()


@contextmanager
def serving(answer: Answer) -> Iterator[FakeServer]:
    """A server at `url` while the block runs.

    answer: a text, a whole response, or (status, body): a text is sent as HTML, bytes as if they were JSON.
    """
    fake = FakeServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                fake.bodies.append(body)
                fake.headers.append({name.lower(): value for name, value in self.headers.items()})
                fake.paths.append(self.path)
            given = fake.answer(body)
            status, value = given if isinstance(given, tuple) else (200, given)
            if not isinstance(given, tuple) and isinstance(value, str):
                value = reply(value)
            html = isinstance(value, str)
            raw = value if isinstance(value, bytes) else (value if html else json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if html else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("retry-after-ms", "1")  # what is tried again is tried at once
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()

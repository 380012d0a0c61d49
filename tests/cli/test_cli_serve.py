"""`r1ranker serve`, as a process of its own."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from typer.testing import Result

from r1ranker.cli import options

Invoke = Callable[..., Result]


def _hears_ctrl_c() -> None:
    """A shell that runs the tests in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def served(folder: Path, *options: object) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """The address of a server on a free port, its process, and what it said until it was ready."""
    command = [sys.executable, "-m", "r1ranker.cli.app", "serve", "--model", str(folder), "--port", "0"]
    with subprocess.Popen(
        [*command, *map(str, options)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        preexec_fn=_hears_ctrl_c,
    ) as process:
        said: list[str] = []
        try:
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                if "startup complete" in line:
                    break
            found = re.search(r"serving \S+ at (http://\S+)", "".join(said))
            assert found, said
            yield found[1], process, said
        finally:
            process.kill()


def ask(address: str, body: dict[str, object]) -> dict[str, object]:
    request = Request(f"{address}/v2/rerank", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as reply:
        answer: dict[str, object] = json.load(reply)
    return answer


def test_a_model_is_served_until_it_is_told_to_end(tiny_folder: Path) -> None:
    with served(tiny_folder, "--ranker", "first-step", "--document-tokens", 8, "--max-query-characters", 11) as (
        address,
        process,
        said,
    ):
        documents = ["whale " * 30, "Rome", "Paris"]
        answer = ask(address, {"query": "which city?", "documents": documents, "top_n": 2, "trace": True})
        assert len(answer["results"]) == 2  # type: ignore[arg-type]
        assert len(answer["trace"]) == 1  # type: ignore[arg-type]
        assert answer["truncated"] == 1
        with pytest.raises(HTTPError, match="413"):
            ask(address, {"query": "which city??", "documents": documents})
        assert not any("anyone" in line for line in said)  # no other machine reaches it
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert out == ""
    assert "Traceback" not in err
    assert '"POST /v2/rerank HTTP/1.1" 200' in err


def test_a_server_that_others_reach_without_a_key_says_so(tiny_folder: Path) -> None:
    with served(tiny_folder, "--host", "0.0.0.0") as (_, process, said):
        assert any("anyone who reaches this address may ask: --api-key" in line for line in said)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_named_before_a_model_is_loaded(cli: Invoke, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("serve", "--model", tmp_path / "none", "--port", port)
    assert result.exit_code == 1
    why = f"cannot listen at 127.0.0.1, port {port} ({os.strerror(errno.EADDRINUSE)})"
    assert result.stderr == f"error: {why}: --port or --host take another\n"


def test_without_the_extra_it_is_named(cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = cli("serve")
    assert result.exit_code == 1
    assert "pip install 'r1ranker[serve]'" in result.stderr
    assert "'uvicorn'" in result.stderr


def test_an_empty_key_is_refused(cli: Invoke) -> None:
    result = cli("serve", "--host", "0.0.0.0", "--api-key", "")
    assert result.exit_code == 1
    assert result.stderr == "error: --api-key is empty: give a key, or leave the option out\n"


@pytest.mark.parametrize("kind", options.RankerKind)
def test_every_typer_reads_a_kind(kind: options.RankerKind) -> None:
    assert str(kind) == kind.value

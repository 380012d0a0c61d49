"""llama.cpp's server inside this process, by the `xllamacpp` package, and the tokenizer of the model it runs."""

from __future__ import annotations

import http.client
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1ranker.errors import AssetError, MissingExtraError

PROMPT_CACHE_MB = 1024
"""Memory for the states of prompts that no slot holds at the moment."""
_FIELDS = ["content", "tokens", "stop_type", "stopping_word", "timings/cache_n", "completion_probabilities"]


class LlamaServer:
    """A GGUF model that answers requests, `slots` at a time, each with room for `context_tokens`.

    It listens on a free port of 127.0.0.1, and answers nobody without a key that is drawn anew each time.
    meta: the model's facts, as the server tells them (n_params, n_ctx_train, n_vocab).
    Raises MissingExtraError without the package, AssetError for a file that is no model.
    """

    def __init__(self, path: Path, context_tokens: int, slots: int, threads: int | None) -> None:
        self.path = path
        self._key = secrets.token_urlsafe(16)
        self._server = _start(path, context_tokens * slots, slots, threads or _threads(), self._key)
        self._address = self._server.listening_address.removeprefix("http://")
        self.meta: dict[str, Any] = self.ask("GET", "/v1/models")["data"][0]["meta"]

    def complete(self, prompt: Sequence[int], room: int, **settings: Any) -> dict[str, Any]:
        """A completion of at most `room` tokens; settings are llama.cpp's own."""
        body = {"prompt": list(prompt), "n_predict": room, "samplers": ["temperature"], "return_tokens": True}
        reply: dict[str, Any] = self.ask("POST", "/completion", body | settings | {"response_fields": _FIELDS})
        return reply

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server replies. Raises AssetError where it fails."""
        connection = http.client.HTTPConnection(self._address)
        try:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            reply = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AssetError(f"{self.path}: llama.cpp has stopped ({error}): load the model again") from error
        finally:
            connection.close()
        if response.status != 200:
            said = " ".join(str(reply.get("error", {}).get("message", reply)).split())
            raise AssetError(f"{self.path}: llama.cpp fails ({response.status}: {said})")
        return reply


class LlamaTokenizer:
    """The tokenizer and the chat template of the file, as `ChatEncoder` asks for them."""

    def __init__(self, server: LlamaServer) -> None:
        self._server = server
        props = server.ask("GET", "/props")
        # What the file does not say, llama.cpp makes up: ChatML's template, the token 11.
        said = _said(server.path, ("chat_template", "ggml.bos_token_id", "ggml.eos_token_id"))
        self.chat_template, self._bos, self._eos = (
            props[name] if there else None
            for name, there in zip(("chat_template", "bos_token", "eos_token"), said, strict=True)
        )
        self.bos_token_id = self.encode(self._bos)[0] if self._bos else None

    def encode(self, text: str, *, add_special_tokens: bool = False, split_special_tokens: bool = False) -> list[int]:
        """Token ids of a text; where special tokens are split, what looks like one is plain text."""
        body = {"content": text, "add_special": add_special_tokens, "parse_special": not split_special_tokens}
        tokens: list[int] = self._server.ask("POST", "/tokenize", body)["tokens"]
        return tokens

    def apply_chat_template(
        self,
        messages: list[dict[str, str]],
        *,
        tokenize: bool,  # noqa: ARG002
        chat_template: str | None = None,
        **settings: Any,
    ) -> str:
        """By transformers' own rendering: llama.cpp's leaves out a beginning-of-text token that a template writes."""
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template(
            [messages],
            chat_template=chat_template or self.chat_template,
            bos_token=self._bos or "",
            eos_token=self._eos or "",
            **settings,
        )
        return str(rendered[0][0])


def _said(path: Path, keys: Sequence[str]) -> list[bool]:
    """Which settings of the tokenizer a GGUF file has."""
    with path.open("rb") as file:
        head = file.read(1 << 26)  # settings come before the weights
    names = [f"tokenizer.{key}".encode() for key in keys]
    return [len(name).to_bytes(8, "little") + name in head for name in names]  # a key is its length and its text


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(given) if given.isdecimal() and int(given) else os.cpu_count() or 1


def _start(path: Path, n_ctx: int, slots: int, threads: int, key: str) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtraError("a GGUF model", "xllamacpp", "llamacpp") from error
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise AssetError(f"{path}: cannot be read ({error.strerror}): give the path of a GGUF file") from error
    if magic != b"GGUF":
        raise AssetError(f"{path} is no GGUF file: write one with  r1ranker model export FOLDER --out FILE.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel = n_ctx, slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = PROMPT_CACHE_MB
    params.api_keys = [key]
    params.warmup = params.ui = params.endpoint_slots = params.endpoint_metrics = params.kv_unified = False
    params.verbosity = -1  # silent
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise AssetError(
            f"{path}: llama.cpp cannot load it; see that the file is whole and the memory enough"
        ) from error

"""How an LLM is named that is not loaded by transformers: `openai:MODEL[@BASE_URL]` behind a server, `vllm:NAME`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from r1ranker.errors import ConfigError

SPEC = "openai:"
VLLM = "vllm:"
_NO_SCHEME = re.compile(r".@(localhost|[^@]*[:/])")


def is_server(name: str) -> bool:
    """Whether a model's name is `openai:…`."""
    return name.startswith(SPEC)


def is_vllm(name: str) -> bool:
    """Whether a model's name is `vllm:…`."""
    return name.startswith(VLLM)


def split_spec(spec: str) -> tuple[str, str | None]:
    """The model's name and the server's address, or None. Raises ConfigError where either cannot be read."""
    model, at, rest = spec.removeprefix(SPEC).partition("@http")
    # A local server's prompts must not go to the default one because "http://" was left out.
    if not model or (not at and _NO_SCHEME.search(model)):
        raise ConfigError(
            f"the model '{without_credentials(spec)}' cannot be read: write openai:MODEL, or "
            "openai:MODEL@http://HOST:PORT/v1"
        )
    if not at:
        return model, None
    check_address(f"http{rest}")
    return model, f"http{rest}"


def check_address(base_url: str) -> None:
    """Raises ConfigError for a text that is no server's address."""
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:  # a port that is no number
        good = False
    if not good:
        raise ConfigError(
            f"'{without_credentials(base_url)}' is no server's address: write it as http://HOST:PORT/v1, without ?…"
        )


def without_credentials(text: str) -> str:
    """A text in which no web address has a user or a password."""
    return re.sub(r"(https?://)[^/\s]*@", r"\1", text)

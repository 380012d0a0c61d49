"""Prompts -> token ids, by the model's own chat template; user text never becomes a special token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from r1ranker.llm.constrained import LINE_END
from r1ranker.types import Prompt

_DAY = date(2024, 7, 26)
"""What a template that writes the day's date is told: a prompt must be the same tomorrow."""
_NOW = re.compile(r"""strftime_now\((["'])(.*?)\1\)""")
_SYSTEM, _USER = "R1RANKERSYSTEMSLOT", "R1RANKERUSERSLOT"
_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
KEPT_CHARACTERS = 500
"""Of texts whose tokens are kept: labels and titles come again and again, whole prompts do not."""


class ChatEncoder:
    """Renders the chat template once around two empty slots, and fills them with tokens of the texts.

    Text that goes into a slot, the prefill, and the choices are encoded with special tokens switched
    off: a candidate called "<|im_end|>" stays text. So does one called "<tool_call>", which some models have as one
    token without marking it special: users' texts and choices are cut within it. (llama.cpp does not tell which those
    are; what a GGUF file has so is one token there.) Models without a chat template get the two texts separated by
    blank lines. What a template writes to open a thought is left out: the prefill opens it, or the answer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._controls = _controls(tokenizer)
        self._kept = lru_cache(maxsize=65536)(self._encode_apart)
        self._wording = lru_cache(maxsize=64)(self._encode_text)
        self._frame = self._render_frame()

    def encode(self, prompt: Prompt, written: Sequence[str] = ()) -> list[int]:
        """Token ids of the whole prompt, the prefill included. written: lines that stand after it already."""
        before, between, after = self._frame
        user = self.encode_text(prompt.user)
        prefill = self.encode_wording(prompt.prefill) if prompt.prefill else ()
        lines = [token for line in written for token in (*self.encode_text(line), *self.encode_wording(LINE_END))]
        return [*before, *self.encode_wording(prompt.system), *between, *user, *after, *prefill, *lines]

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text of users' (a choice)."""
        return self._kept(text) if len(text) <= KEPT_CHARACTERS else self._encode_apart(text)

    def encode_wording(self, text: str) -> tuple[int, ...]:
        """Token ids of a text of our own (a tag, the end of a line), which may be one of the model's added tokens."""
        return self._wording(text)

    def _encode_apart(self, text: str) -> tuple[int, ...]:
        """Token ids of a text of users', in parts of which none holds a whole control token."""
        cuts = [match.start() + 1 for match in self._controls.finditer(text)] if self._controls else []
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        return tuple(token for part in parts for token in self._encode_text(part))

    def _encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def _render_frame(self) -> tuple[list[int], list[int], list[int]]:
        if not getattr(self.tokenizer, "chat_template", None):
            newline = list(self._encode_text("\n\n"))
            bos = self.tokenizer.bos_token_id
            return ([bos] if bos is not None else []), newline, newline
        try:
            text = self._render([{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}])
        except TemplateError:  # some refuse a system role, others leave it out
            text = ""
        if _SYSTEM not in text:  # a model without a system role reads it first in the user's turn
            text = self._render([{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}])
        before, _, rest = text.partition(_SYSTEM)
        between, _, after = rest.partition(_USER)
        after = _OPEN_THOUGHT.sub("", after)
        encode = self.tokenizer.encode
        parts = [encode(part, add_special_tokens=False) for part in (before, between, after)]
        return parts[0], parts[1], parts[2]

    def _render(self, messages: list[dict[str, str]]) -> str:
        given = self.tokenizer.chat_template
        template = _NOW.sub(lambda now: repr(_DAY.strftime(now[2])), given) if isinstance(given, str) else None
        text = self.tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            date_string=_DAY.strftime("%d %b %Y"),
        )
        return str(text)


def _controls(tokenizer: Any) -> re.Pattern[str] | None:
    """Where a text holds a token in brackets that is added and not marked special, also where several overlap."""
    added = [token.content for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if not token.special]
    names = [name for name in added if len(name) > 1 and name[0] in "<[{" and name[-1] in ">]}"]
    return re.compile(f"(?={'|'.join(map(re.escape, names))})") if names else None

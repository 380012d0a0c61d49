"""The backends that the conformance suite runs over, each made as its users make it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from fakeserver import Body, reply, serving
from r1ranker.llm.base import LLM, ScriptedLLM
from r1ranker.types import Request


@dataclass(frozen=True)
class Backend:
    """What is promised beyond the protocol. writes: it is a model, and not a script.

    scores: it tells choices' log-probs. limited: it knows how long a prompt may be. counts: it tells tokens.
    """

    llm: LLM
    writes: bool = True
    scores: bool = True
    limited: bool = True
    counts: bool = True


@contextmanager
def backend(name: str, folder: Path, gguf: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """A fresh backend over the tiny model."""
    if name == "scripted":
        yield Backend(ScriptedLLM(_script), writes=False, limited=False)
    elif name == "transformers":
        from r1ranker.llm.transformers import TransformersLLM

        yield Backend(TransformersLLM.load(folder, dtype="float32"))
    elif name == "llamacpp":
        pytest.importorskip("xllamacpp")
        from r1ranker.llm.llamacpp import LlamaCppLLM

        yield Backend(LlamaCppLLM(gguf(), threads=1))
    elif name == "openai":
        pytest.importorskip("openai")
        from r1ranker.llm.openai import OpenAILLM

        with serving(_serve) as fake:
            yield Backend(OpenAILLM.from_spec(f"openai:m@{fake.url}"), writes=False, scores=False, limited=False)
    else:
        from r1ranker.llm.vllm import VllmLLM

        stub_vllm(monkeypatch)
        yield Backend(VllmLLM.load(folder))


def _script(request: Request) -> str:
    return request.choices[-1] if request.choices else f"{request.prompt.user}</answer>"


def _serve(body: Body) -> Body:
    return reply(f"<answer>{body['messages'][-1]['content'][:40]}", usage={"prompt_tokens": 7, "completion_tokens": 3})


# vLLM


def stub_vllm(monkeypatch: pytest.MonkeyPatch) -> type[StubLLM]:
    """Put a stub in vLLM's place: signatures as in 0.10, computed with transformers."""
    StubLLM.made.clear()
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.LLM, module.SamplingParams = StubLLM, _SamplingParams  # type: ignore[attr-defined]
    request.LoRARequest = _LoRARequest  # type: ignore[attr-defined]
    for part in (module, lora, request):
        monkeypatch.setitem(sys.modules, part.__name__, part)
    return StubLLM


@dataclass
class _LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class _SamplingParams:
    temperature: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None
    stop: list[str] | None = None
    include_stop_str_in_output: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None


class StubLLM:
    """`vllm.LLM`, offline inference; token ids in, one RequestOutput a prompt out."""

    made: list[StubLLM] = []  # noqa: RUF012 - what a test looks at

    def __init__(self, model: str, *, enable_prefix_caching: bool | None = None, **options: Any) -> None:
        from r1ranker.llm.load import load_model

        self.model, self.tokenizer = load_model(model, device="cpu", dtype="float32")
        self.options = {"model": model, "enable_prefix_caching": enable_prefix_caching, **options}
        limit = self.model.config.max_position_embeddings
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=limit))
        self.calls: list[tuple[list[list[int]], list[_SamplingParams], Any]] = []
        self.made.append(self)

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: list[_SamplingParams],
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
    ) -> list[Any]:
        assert not use_tqdm
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        self.calls.append((ids, sampling_params, lora_request))
        return [self._one(prompt, params) for prompt, params in zip(ids, sampling_params, strict=True)]

    @torch.no_grad()
    def _logits(self, ids: list[int]) -> torch.Tensor:
        assert len(ids) <= self.llm_engine.model_config.max_model_len
        logits: torch.Tensor = self.model(input_ids=torch.tensor([ids])).logits[0]
        return logits

    def _one(self, prompt: list[int], params: _SamplingParams) -> Any:
        told: list[Any] | None = None
        if params.prompt_logprobs is not None:
            steps = self._logits(prompt).log_softmax(1)
            told = [None, *({t: _logprob(steps[k, t])} for k, t in enumerate(prompt[1:]))]
        generator = torch.Generator().manual_seed(params.seed or 0)
        tokens: list[int] = []
        logprobs: list[Any] = []
        text, reason = "", "length"
        while len(tokens) < (params.max_tokens or 16):
            logits = self._logits([*prompt, *tokens])[-1]
            if params.temperature > 0:
                weights = (logits / params.temperature).softmax(0)
                token = int(torch.multinomial(weights, 1, generator=generator))
            else:
                token = int(logits.argmax())
            tokens.append(token)
            logprobs.append({token: _logprob(logits.log_softmax(0)[token])})
            text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
            found = [stop for stop in params.stop or () if stop in text]
            if token == self.tokenizer.eos_token_id or found:
                reason = "stop"
                end = text.index(found[0]) if found else len(text)
                text = text[: end + len(found[0])] if found and params.include_stop_str_in_output else text[:end]
                break
        written = SimpleNamespace(
            text=text, token_ids=tokens, logprobs=None if params.logprobs is None else logprobs, finish_reason=reason
        )
        return SimpleNamespace(outputs=[written], prompt_logprobs=told, num_cached_tokens=None)


def _logprob(value: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(logprob=float(value), rank=1, decoded_token=None)

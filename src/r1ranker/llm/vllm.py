"""Models in vLLM, on a GPU: `vllm:` and a model's name or folder.

Written against the interface of vLLM 0.10 and later, and tested against a stub of it; it has not been run on a GPU.
Prompts are sent as token ids, so that what a user wrote never becomes a special token. Choices are scored as prompts,
one a choice, by the log-probs of their last tokens; vLLM computes such prompts whole, also where their beginning is
cached.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1ranker.errors import AssetError, InputError, MissingExtraError
from r1ranker.llm.chat import ChatEncoder
from r1ranker.llm.choices import choose, require_room
from r1ranker.types import Completion, Request, Sampling

_SEEDS = 2**31


class VllmLLM:
    """Completes and scores with an engine of vLLM, which batches all requests of a call.

    engine: a `vllm.LLM`. adapter: its LoRARequest, or None. parameters: the model's size, if it is known.
    Log-probs of sampled tokens are told at temperature 0 and 1: vLLM's are those before the temperature.
    """

    def __init__(self, engine: Any, *, name: str, adapter: Any = None, parameters: int | None = None) -> None:
        self.engine, self.adapter = engine, adapter
        self.name, self.parameters = name, parameters
        self.context_tokens: int | None = engine.llm_engine.model_config.max_model_len
        self.chat = ChatEncoder(engine.get_tokenizer())

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> VllmLLM:
        """Load safetensors from a folder, or a LoRA adapter over its base.

        options: vLLM's own, such as max_model_len, gpu_memory_utilization or tensor_parallel_size.
        Raises MissingExtraError without the package, AssetError for a folder that vLLM cannot load.
        """
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise MissingExtraError("vllm:MODEL", "vllm", "vllm") from error
        folder = Path(folder)
        base, adapter = folder, None
        if (config := folder / "adapter_config.json").exists():
            from r1ranker.llm.load import adapter_base

            base = adapter_base(config)
            rank = json.loads(config.read_text(encoding="utf-8")).get("r", 8)
            adapter = LoRARequest(folder.name or "adapter", 1, str(folder.resolve()))
            options = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _allowed_rank(rank), **options}
        try:
            engine = LLM(model=str(base), **{"enable_prefix_caching": True, **options})
        except (RuntimeError, ValueError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise AssetError(f"{folder}: vLLM cannot load it ({reason})") from error
        return cls(engine, name=folder.name, adapter=adapter, parameters=_parameters(base))

    def count_tokens(self, text: str) -> int:
        """Tokens of a user's text."""
        return len(self.chat.encode_text(text))

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """See `LLM.complete`. Raises InputError for a prompt that is too long, or a constrained answer."""
        generator = random.Random(sampling.seed)
        seeds = [generator.randrange(_SEEDS) for _ in requests]
        trunks = [self.chat.encode(request.prompt) for request in requests]
        for request, trunk in zip(requests, trunks, strict=True):
            if request.answers:
                raise InputError(f"{self.name} in vLLM cannot hold a reply to given answers: leave out 'constrained'")
            longest = max(map(len, self._choices(request)), default=sampling.max_tokens - 1)
            require_room(request, len(trunk), longest + 1, self)  # vLLM writes one token after a prompt that it scores
        out: dict[int, Completion] = {}
        out |= self._write([k for k, r in enumerate(requests) if not r.choices], requests, trunks, sampling, seeds)
        out |= self._score([k for k, r in enumerate(requests) if r.choices], requests, trunks, sampling, seeds)
        return [out[k] for k in range(len(requests))]

    def _choices(self, request: Request) -> list[tuple[int, ...]]:
        end = self.chat.encode_wording(request.stop)[:1]
        return [self.chat.encode_text(choice) + end for choice in request.choices]

    def _write(
        self,
        places: list[int],
        requests: Sequence[Request],
        trunks: list[list[int]],
        sampling: Sampling,
        seeds: list[int],
    ) -> dict[int, Completion]:
        settings = [
            {
                "temperature": sampling.temperature,
                "max_tokens": sampling.max_tokens,
                "seed": seeds[k],
                "stop": [requests[k].stop] if requests[k].stop else None,
                "include_stop_str_in_output": True,
                "logprobs": 0,
            }
            for k in places
        ]
        out = {}
        for k, result in zip(places, self._ask([trunks[k] for k in places], settings), strict=True):
            written = result.outputs[0]
            tokens = tuple(written.token_ids)
            told = sampling.temperature in (0.0, 1.0)
            out[k] = Completion(
                text=written.text,
                token_ids=tokens,
                logprobs=tuple(s[t].logprob for s, t in zip(written.logprobs, tokens, strict=True)) if told else (),
                prompt_tokens=len(trunks[k]),
                completion_tokens=len(tokens),
                cached_tokens=result.num_cached_tokens or 0,
                finish="length" if written.finish_reason == "length" else "stop",
            )
        return out

    def _score(
        self,
        places: list[int],
        requests: Sequence[Request],
        trunks: list[list[int]],
        sampling: Sampling,
        seeds: list[int],
    ) -> dict[int, Completion]:
        choices = {k: self._choices(requests[k]) for k in places}
        # Equal prompts, of samples that are asked for again, are scored once.
        prompts = dict.fromkeys((*trunks[k], *tokens) for k in places for tokens in choices[k])
        settings = [{"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}] * len(prompts)
        results = dict(zip(prompts, self._ask([list(prompt) for prompt in prompts], settings), strict=True))
        out = {}
        for k in places:
            means = []
            for tokens in choices[k]:
                prompt = (*trunks[k], *tokens)
                steps = results[prompt].prompt_logprobs[len(trunks[k]) :]
                means.append(sum(s[t].logprob for s, t in zip(steps, tokens, strict=True)) / len(tokens))
            chosen = choose(means, sampling, random.Random(seeds[k]))
            out[k] = Completion(
                text=requests[k].choices[chosen] + requests[k].stop,
                token_ids=choices[k][chosen],
                choice_logprobs=tuple(means),
                prompt_tokens=len(trunks[k]),
                completion_tokens=sum(map(len, choices[k])),
                finish="choice",
            )
        return out

    def _ask(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Any]:
        """vLLM's results, in the order of the prompts."""
        if not prompts:
            return []
        from vllm import SamplingParams

        results: list[Any] = self.engine.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [SamplingParams(**given) for given in settings],
            use_tqdm=False,
            lora_request=self.adapter,
        )
        return results


def _allowed_rank(rank: int) -> int:
    """The smallest bound on an adapter's rank that vLLM takes and that holds it."""
    return next((bound for bound in (8, 16, 32, 64, 128, 256) if bound >= rank), rank)


def _parameters(folder: Path) -> int:
    """Numbers in a folder's safetensors, read off their headers."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    return total

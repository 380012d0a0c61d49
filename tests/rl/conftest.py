"""Helpers for the training tests: policies over copies of the tiny model, recipes, states, scripted completions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from r1ranker.config import ModelConfig, RunConfig, parse_config
from r1ranker.rl.policy import Policy
from r1ranker.rl.states import State
from r1ranker.types import Candidate, Completion, ParsedAnswer, RankingExample, Request, Sampling

TRAIN = {"learning_rate": 1e-3, "kl_coef": 0.0, "states_per_step": 4}
OWN: dict[str, dict[str, Any]] = {"grpo": {"group_size": 4}, "ppo": {"critic_learning_rate": 1e-3}}
RANKER = {"max_tokens": 6}
WORDING = """
[system]
thinking = "Think."
no_thinking = "Rank."
[turn]
user = "$context\\n$candidates\\n${excluded}$question"
[recommendation]
context = "$history"
iterative = "Least?"
direct = "Best?"
"""
"""Short prompts: the tiny tokenizer makes a token of nearly every byte."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower on two threads, and many times slower where something else runs beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_policy(tiny_model: Any, tiny_tokenizer: Any) -> Callable[..., Policy]:
    """make_policy(**model settings): a policy over a fresh copy of the tiny model, in fp32."""

    def make(**settings: Any) -> Policy:
        config = ModelConfig(**{"device": "cpu", "precision": "fp32", **settings})
        with torch.random.fork_rng(devices=[]):  # LoRA draws its weights: the same ones every time
            torch.manual_seed(0)
            return Policy(copy.deepcopy(tiny_model), tiny_tokenizer, config)

    return make


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunConfig]:
    """recipe(algorithm, kind=..., thinking=..., ranker={}, model={}, **train settings)."""
    wording = tmp_path_factory.mktemp("wording") / "short.toml"
    wording.write_text(WORDING)

    def make(
        algorithm: str = "all_actions",
        *,
        kind: str = "iterative",
        thinking: bool = False,
        ranker: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        seed: int = 0,
        **train: Any,
    ) -> RunConfig:
        raw = {
            "name": "test",
            "seed": seed,
            "model": {"device": "cpu", "precision": "fp32", **(model or {})},
            "ranker": {**RANKER, "templates": str(wording), "kind": kind, "thinking": thinking, **(ranker or {})},
            "train": {**TRAIN, **OWN.get(algorithm, {}), "algorithm": algorithm, **train},
        }
        return parse_config(raw, "test")

    return make


@pytest.fixture
def examples(make_example: Callable[..., RankingExample]) -> list[RankingExample]:
    """Five examples of 3 to 5 movies; the positive stands at different places."""
    return [
        make_example(3 + k % 3, positives=(f"c{1 + k % 3}",), id=f"e{k}", history=(f"Rocky {k}",)) for k in range(5)
    ]


@pytest.fixture
def states(examples: list[RankingExample]) -> list[State]:
    """The five examples with all candidates left."""
    return [State(e, e.ids) for e in examples]


@pytest.fixture(scope="session")
def good_or_bad() -> Callable[..., list[RankingExample]]:
    """good_or_bad(count, fillers): three movies each, one "good …" (the positive), two "bad …"."""

    def make(count: int, fillers: Sequence[str]) -> list[RankingExample]:
        out = []
        for k in range(count):
            words = [fillers[(3 * k + j) % len(fillers)] for j in range(3)]
            place = k % 3
            candidates = tuple(
                Candidate(f"c{j}", f"{'good' if j == place else 'bad'} {word}") for j, word in enumerate(words)
            )
            out.append(
                RankingExample(
                    f"g{k}",
                    "recommendation",
                    candidates,
                    history=("Rocky (1976)",),
                    relevance={f"c{place}": 1.0},
                )
            )
        return out

    return make


@pytest.fixture(scope="session")
def letters_reward() -> Callable[[Any, State, ParsedAnswer], Any]:
    """A stand-in for `Sampled._reward` that a random model can earn: the share of lower-case letters in the thought."""
    from r1ranker.rewards import Reward

    def reward(self: Any, state: State, parsed: ParsedAnswer) -> Reward:  # noqa: ARG001
        text = parsed.thought
        return Reward(sum("a" <= c <= "z" for c in text) / max(1, len(text)))

    return reward


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Policy, Sequence[str]], list[list[Request]]]:
    """script(policy, texts): the policy's backend "writes" these texts in turn; returns the list of its calls."""

    def install(policy: Policy, texts: Sequence[str]) -> list[list[Request]]:
        calls: list[list[Request]] = []
        at = 0

        def complete(requests: Sequence[Request], sampling: Sampling) -> list[Completion]:  # noqa: ARG001
            nonlocal at
            calls.append(list(requests))
            out = []
            for _ in requests:
                text = texts[at % len(texts)]
                at += 1
                ids = policy.llm.chat.encode_text(text)
                out.append(Completion(text, token_ids=ids, completion_tokens=len(ids)))
            return out

        monkeypatch.setattr(policy.llm, "complete", complete)
        return calls

    return install


def _gradients(policy: Policy) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="session")
def gradients() -> Callable[[Policy], dict[str, torch.Tensor]]:
    """The gradients of a policy's parameters that have one, by name."""
    return _gradients


@pytest.fixture(scope="session")
def same_gradients() -> Callable[..., None]:
    """same_gradients(a, b, rel): every tensor agrees to `rel` of its norm, and they are not all zero."""

    def check(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], rel: float) -> None:
        assert a
        assert a.keys() == b.keys()
        whole = float(torch.cat([t.flatten() for t in b.values()]).norm())
        assert whole > 1e-4
        for name in a:
            off = float((a[name] - b[name]).norm())
            assert off <= rel * max(float(b[name].norm()), 1e-3 * whole), name

    return check

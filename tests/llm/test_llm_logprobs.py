from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    HyperCLOVAXConfig,
    HyperCLOVAXForCausalLM,
)

from r1ranker.llm.head import settle
from r1ranker.llm.logprobs import branch_means, held_logprobs, token_logprobs
from r1ranker.llm.packing import Pack, collate, packed_hidden
from r1ranker.llm.sampling import draw
from r1ranker.types import Sampling

PACKS = [Pack([5, 6, 7, 8, 9], [[10, 11, 12], [13], [14, 15, 16, 17]]), Pack([20], [[21, 22]])]


def test_the_head_in_chunks_gives_the_same(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate(PACKS)
    with torch.no_grad():
        hidden = packed_hidden(tiny_model, batch)
        whole = token_logprobs(tiny_model, hidden, batch.targets)
        monkeypatch.setattr("r1ranker.llm.logprobs.HEAD_CHUNK", 3)
        torch.testing.assert_close(token_logprobs(tiny_model, hidden, batch.targets), whole, atol=1e-6, rtol=0)
    empty = torch.zeros(0, tiny_model.config.hidden_size)
    assert token_logprobs(tiny_model, empty, torch.zeros(0, dtype=torch.long)).shape == (0,)


@pytest.mark.parametrize("chunk", [1000, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_cross_entropy(
    tiny_model: Any, chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("r1ranker.llm.logprobs.HEAD_CHUNK", chunk)
    torch.manual_seed(0)
    targets = torch.tensor([3, 8, 3, 0, 20, 7, 7])
    weights = torch.linspace(-1, 2, 7)
    found = []
    start = torch.randn(7, tiny_model.config.hidden_size)
    for ours in (False, True):
        hidden = start.clone().requires_grad_()
        if ours:
            logprobs = token_logprobs(tiny_model, hidden, targets, temperature)
        else:
            logits = tiny_model.lm_head(hidden) / temperature
            logprobs = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        gradients = torch.autograd.grad((logprobs * weights).sum(), [hidden, tiny_model.lm_head.weight])
        assert all(float(g.abs().sum()) > 0 for g in gradients)
        found.append((logprobs, *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def _shaped(kind: str, size: int) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "attn_implementation": "sdpa",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "hyperclovax":
            return HyperCLOVAXForCausalLM(HyperCLOVAXConfig(**shape, logits_scaling=0.25)).float().eval()
        if kind == "granite":
            return GraniteForCausalLM(GraniteConfig(**shape, logits_scaling=4.0)).float().eval()
        return CohereForCausalLM(CohereConfig(**shape, logit_scale=0.25)).float().eval()


@pytest.mark.parametrize("kind", ["granite", "cohere", "hyperclovax"])
def test_logits_that_a_model_scales_are_scaled(kind: str) -> None:
    model = _shaped(kind, 64)
    trunk, branch = [5, 6, 7, 8], [10, 11, 12]
    batch = collate([Pack(trunk, [branch])])
    with torch.no_grad():
        logits = model(torch.tensor([trunk + branch])).logits[0, len(trunk) - 1 : -1]
        expected = logits.log_softmax(1)
        hidden = packed_hidden(model, batch)
        wanted = expected.gather(1, batch.targets[:, None]).squeeze(1)
        torch.testing.assert_close(token_logprobs(model, hidden, batch.targets), wanted, atol=1e-5, rtol=0)
        among = [(10, 20), (11, 21, 22), (12,)]
        held = [logits[k, list(known)].log_softmax(0)[0] for k, known in enumerate(among)]
        found = held_logprobs(model, hidden, batch.targets, among)
        torch.testing.assert_close(found, torch.stack(held), atol=1e-5, rtol=0)
        tokens, told = draw(model, hidden, [None] * 3, Sampling(temperature=1.0), torch.Generator().manual_seed(0))
        drawn = expected[range(3), tokens]
        torch.testing.assert_close(torch.tensor(told), drawn, atol=1e-5, rtol=0)
    assert float((logits * 4).log_softmax(1).gather(1, batch.targets[:, None]).sub(wanted[:, None]).abs().max()) > 0.01


def test_a_cap_holds_logits_within_it() -> None:
    model = _shaped("granite", 64)
    model.config.logits_scaling, model.config.final_logit_softcapping = 1.0, 2.0
    # 2 * tanh(x / 2): of 1, 0.9242; of 100, 2.
    assert settle(model, torch.tensor([1.0, 100.0])).tolist() == pytest.approx([0.9242343, 2.0])


def test_a_second_backward_pass_is_refused(tiny_model: Any) -> None:
    hidden = torch.randn(2, tiny_model.config.hidden_size, requires_grad=True)
    total = token_logprobs(tiny_model, hidden, torch.tensor([1, 2])).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
    tiny_model.zero_grad()


def test_branch_means_by_hand() -> None:
    means = branch_means(torch.tensor([-1.0, -3.0, -5.0, -2.0, -2.0, -8.0]), (2, 1, 3))
    assert means.tolist() == [-2.0, -5.0, -4.0]

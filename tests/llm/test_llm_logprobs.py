from __future__ import annotations

from typing import Any

import pytest
import torch

from r1ranker.llm.logprobs import branch_means, token_logprobs
from r1ranker.llm.packing import Pack, collate, packed_hidden

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

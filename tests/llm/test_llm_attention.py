from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from r1ranker.llm.attention import NAME, grouped_attention, share_keys
from r1ranker.llm.packing import Pack, collate, packed_hidden


@pytest.mark.parametrize(
    ("heads", "key_heads", "new", "keys"), [(6, 2, 5, 9), (6, 2, 1, 9), (4, 4, 5, 5), (4, 1, 3, 7)]
)
@pytest.mark.parametrize("floats", [False, True])
def test_it_is_what_repeated_keys_give(heads: int, key_heads: int, new: int, keys: int, floats: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, heads, new, 8, generator=generator, requires_grad=True)
    key, value = torch.randn(2, 2, key_heads, keys, 8, generator=generator)
    mask = torch.rand(2, 1, new, keys, generator=generator) < 0.7
    mask[..., 0] = True
    given = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if floats else mask
    module = torch.nn.Module()
    module.num_key_value_groups = heads // key_heads  # type: ignore[assignment]
    out, gradients = [], []
    for attend in (grouped_attention, sdpa_attention_forward):
        result, _ = attend(module, query, key, value, given, scaling=0.3)
        assert result.shape == (2, new, heads, 8)
        out.append(result)
        gradients.append(torch.autograd.grad(result.square().sum(), query)[0])
    torch.testing.assert_close(*out, atol=1e-6, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)


def test_what_it_is_not_made_for_goes_the_usual_way() -> None:
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = 2, True  # type: ignore[assignment]
    query, key, value = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    expected, _ = sdpa_attention_forward(module, query, key, value, None)
    assert torch.equal(grouped_attention(module, query, key, value, None)[0], expected)
    by_head = torch.rand(1, 4, 3, 3) < 2
    assert torch.equal(
        grouped_attention(module, query, key, value, by_head)[0],
        sdpa_attention_forward(module, query, key, value, by_head)[0],
    )
    with pytest.raises(ValueError, match="softcap"):
        grouped_attention(module, query, key, value, by_head[:, :1], softcap=30.0)


def test_a_model_computes_and_generates_the_same_and_its_folder_says_nothing_of_it(
    tiny_model: Any, tmp_path: Path
) -> None:
    plain = copy.deepcopy(tiny_model)
    plain.config._attn_implementation = "sdpa"
    shared = copy.deepcopy(plain)
    share_keys(shared)
    assert (plain.config._attn_implementation, shared.config._attn_implementation) == ("sdpa", NAME)
    batch = collate([Pack([5, 6, 7], [[8, 9], [10]]), Pack([11, 12], [[13, 14, 15]])])
    ids = torch.tensor([[0, 0, 20, 21], [22, 23, 24, 25]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    with torch.no_grad():
        torch.testing.assert_close(packed_hidden(shared, batch), packed_hidden(plain, batch), atol=1e-5, rtol=0)
        written = [
            m.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
            for m in (plain, shared)
        ]
    assert torch.equal(*written)
    shared.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"


def test_another_way_to_attend_is_left_alone(tiny_model: Any) -> None:
    model = copy.deepcopy(tiny_model)
    model.config._attn_implementation = "eager"
    share_keys(model)
    assert model.config._attn_implementation == "eager"

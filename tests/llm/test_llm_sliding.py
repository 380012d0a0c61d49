"""Layers that look only so far back: their masks by hand, and whole models against their own masks, row by row."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
)

from r1ranker.errors import AssetError
from r1ranker.llm.load import load_model
from r1ranker.llm.logprobs import token_logprobs
from r1ranker.llm.packing import attention_mask, collate, packed_hidden
from r1ranker.llm.sliding import FULL, SLIDING, layer_masks
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.llm.tree import collate_trees
from r1ranker.types import Prompt, Request, Sampling

WINDOW = 12
LONG = "A question that is much longer than the window: is it Rome, or is it Paris?"
PROMPTS = [Prompt("You rank.", LONG, "<answer>"), Prompt("You rank.", f"{LONG} Or is it Lima?", "<answer>")]
CHOICES = ("Rome, the city on the Tiber", "Paris", "Lima in Peru")


@pytest.fixture(params=["gemma3", "mistral"])
def sliding_model(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Any:
    """Gemma 3 has layers of both kinds, every layer of a Mistral has the window."""
    shape: dict[str, Any] = {
        "vocab_size": len(tiny_tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "sliding_window": WINDOW,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": tiny_tokenizer.eos_token_id,
        "pad_token_id": tiny_tokenizer.pad_token_id,
        "attn_implementation": "sdpa",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if request.param == "mistral":
            return MistralForCausalLM(MistralConfig(**shape)).float().eval()
        kinds = [SLIDING, FULL, SLIDING]
        return Gemma3ForCausalLM(Gemma3TextConfig(**shape, layer_types=kinds)).float().eval()


def logprobs_row_by_row(model: Any, trunk: list[int], branch: tuple[int, ...]) -> torch.Tensor:
    """By one plain call, under the masks that the model makes for itself."""
    logits = model(input_ids=torch.tensor([[*trunk, *branch]])).logits[0].float()
    return logits.log_softmax(1)[len(trunk) - 1 : -1].gather(1, torch.tensor(branch)[:, None]).squeeze(1)


def test_a_window_counts_positions_along_a_path() -> None:
    """A trunk of three, branches of two and one: the second branch is as near to the trunk as the first."""
    mask = attention_mask(torch.tensor([[0, 0, 0, 1, 1, 2]]))
    positions = torch.tensor([[0, 1, 2, 3, 4, 3]])
    config = SimpleNamespace(sliding_window=3, layer_types=[SLIDING, FULL])
    masks = layer_masks(config, mask, positions, None)
    assert isinstance(masks, dict)
    assert masks[FULL] is mask
    assert masks[SLIDING][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 1],
    ]
    # The same with the trunk in the cache, which padding precedes
    cached = torch.tensor([[-1, 0, 0, 0]])
    new = layer_masks(
        config, attention_mask(torch.tensor([[1, 1, 2]]), cached), positions[:, 3:], torch.tensor([[0, 0, 1, 2]])
    )
    assert isinstance(new, dict)
    assert torch.equal(new[SLIDING][..., 1:], masks[SLIDING][:, :, 3:])
    assert not new[SLIDING][..., 0].any()


def test_without_a_window_that_matters_the_mask_is_the_mask() -> None:
    mask, positions = attention_mask(torch.zeros(1, 5, dtype=torch.long)), torch.arange(5)[None]
    for settings in (
        {},
        {"sliding_window": None, "layer_types": [FULL]},
        {"sliding_window": 2, "layer_types": [FULL]},  # as Qwen's, which is switched off
        {"sliding_window": 5, "layer_types": [SLIDING]},
    ):
        assert layer_masks(SimpleNamespace(**settings), mask, positions, None) is mask
    alone = layer_masks(SimpleNamespace(sliding_window=2), mask, positions, None)
    assert isinstance(alone, torch.Tensor)
    assert alone.sum() == 9  # five that see themselves, four the one before


def test_packs_and_trees_give_what_plain_calls_give(sliding_model: Any, tiny_tokenizer: Any) -> None:
    plain = copy.deepcopy(sliding_model)
    llm = TransformersLLM(sliding_model, tiny_tokenizer, name="sliding")
    packs = [llm.choice_pack(Request(prompt, CHOICES, stop="</answer>")) for prompt in PROMPTS]
    assert min(len(pack.trunk) for pack in packs) > 3 * WINDOW
    expected = torch.cat([logprobs_row_by_row(plain, list(p.trunk), tuple(b)) for p in packs for b in p.branches])
    for batch in (collate(packs), collate_trees([packs])):
        with torch.no_grad():
            found = token_logprobs(llm.model, packed_hidden(llm.model, batch), batch.targets)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    # It is the window that is at work: without it the values are others
    for config in (llm.model.config, llm.model.get_decoder().config):
        config.sliding_window = None
    with torch.no_grad():
        wide = token_logprobs(llm.model, packed_hidden(llm.model, batch), batch.targets)
    assert (wide - expected).abs().max() > 0.05


def test_gradients_are_those_of_plain_calls(sliding_model: Any, tiny_tokenizer: Any) -> None:
    plain = copy.deepcopy(sliding_model)
    llm = TransformersLLM(sliding_model, tiny_tokenizer, name="sliding")
    pack = llm.choice_pack(Request(PROMPTS[0], CHOICES, stop="</answer>"))
    batch = collate([pack])
    token_logprobs(llm.model, packed_hidden(llm.model, batch), batch.targets).sum().backward()
    torch.cat([logprobs_row_by_row(plain, list(pack.trunk), tuple(b)) for b in pack.branches]).sum().backward()
    ours, theirs = (m.get_decoder().layers[0].self_attn.k_proj.weight.grad for m in (llm.model, plain))
    assert theirs.abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_turns_over_a_kept_prefix_and_what_is_written(sliding_model: Any, tiny_tokenizer: Any) -> None:
    plain = copy.deepcopy(sliding_model)
    llm = TransformersLLM(sliding_model, tiny_tokenizer, name="sliding")
    end = llm.chat.encode_text("</answer>")[:1]
    for prompt in PROMPTS:  # the second turn goes on where the first one's prompt ended
        (done,) = llm.complete([Request(prompt, CHOICES, stop="</answer>", session="q")], Sampling())
        trunk = llm.chat.encode(prompt)
        branches = [llm.chat.encode_text(choice) + end for choice in CHOICES]
        means = [logprobs_row_by_row(plain, trunk, branch).mean().item() for branch in branches]
        assert done.choice_logprobs == pytest.approx(means, abs=2e-4)
    assert done.cached_tokens > WINDOW
    sampling = Sampling(temperature=1.0, max_tokens=2 * WINDOW, seed=1)
    written = llm.complete([Request(prompt, session="w") for prompt in (*PROMPTS, PROMPTS[0])], sampling)
    assert len(written) == 3
    for prompt, reply in zip((*PROMPTS, PROMPTS[0]), written, strict=True):
        expected = logprobs_row_by_row(plain, llm.chat.encode(prompt), reply.token_ids).tolist()
        assert reply.logprobs == pytest.approx(expected, abs=2e-4)
    assert max(len(reply.token_ids) for reply in written) > WINDOW


def test_layers_that_read_a_text_only_as_a_whole_are_refused(tiny_tokenizer: Any, tmp_path: Path) -> None:
    config = Qwen3_5TextConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["linear_attention", FULL],
    )
    Qwen3_5ForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(AssetError, match=r"layers of linear_attention .* openai:MODEL@URL"):
        load_model(tmp_path, dtype="float32")

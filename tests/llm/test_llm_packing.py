from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from r1ranker.llm.logprobs import token_logprobs
from r1ranker.llm.packing import PAD_BRANCH, Pack, attention_mask, collate, packed_hidden

PACKS = [
    Pack([5, 6, 7, 8, 9], [[10, 11, 12], [13], [14, 15, 16, 17]]),
    Pack([20], [[21, 22]]),
    Pack([30, 31, 32, 33, 34, 35, 36, 37, 38], [[40, 41], [40, 42]]),
]


def rows(text: str) -> list[list[bool]]:
    return [[c == "x" for c in line] for line in text.split()]


def test_the_mask_of_a_small_pack_by_hand() -> None:
    # A trunk of two, branches of two and one, and a padding.
    mask = attention_mask(torch.tensor([[0, 0, 1, 1, 2, PAD_BRANCH]]))
    assert mask.shape == (1, 1, 6, 6)
    assert mask[0, 0, :5].tolist() == rows(
        """
            x.....
            xx....
            xxx...
            xxxx..
            xx..x.
            """
    )
    # The padding looks at itself, so that its softmax is not empty, and nothing looks at it.
    assert bool(mask[0, 0, 5, 5])
    assert not mask[0, 0, :5, 5].any()


def test_the_mask_over_a_cache_by_hand() -> None:
    # Cached: a padding on the left, a trunk of two, a token of branch 1, one of branch 2. New: one of each branch.
    cached = torch.tensor([[PAD_BRANCH, 0, 0, 1, 2]])
    mask = attention_mask(torch.tensor([[2, 1]]), cached)
    assert mask[0, 0].tolist() == rows(".xx.xx. .xxx..x")


def test_a_growing_pack_and_a_whole_one_have_one_rule() -> None:
    whole = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])
    full = attention_mask(whole)
    for k in range(1, 7):
        assert torch.equal(attention_mask(whole[:, k:], whole[:, :k]), full[:, :, k:])


def test_collate_lays_out_rows() -> None:
    batch = collate([Pack([1, 2, 3], [[4, 5], [6]]), Pack([7], [[8, 9, 10]])])
    assert batch.ids.tolist() == [[1, 2, 3, 4], [7, 8, 9, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert batch.branch.tolist() == [[0, 0, 0, 1], [0, 1, 1, PAD_BRANCH]]
    assert batch.targets.tolist() == [4, 5, 6, 8, 9, 10]
    assert batch.source_row.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.source_column.tolist() == [2, 3, 2, 0, 1, 2]
    assert (batch.lengths, batch.branch_counts, batch.computed_tokens) == ((2, 1, 3), (2, 1), 7)


def test_collate_skips_what_is_cached() -> None:
    batch = collate([Pack([1, 2, 3], [[4, 5]]), Pack([7, 8], [[9]])], skip=[2, 0])
    assert batch.ids.tolist() == [[3, 4], [7, 8]]
    assert batch.positions.tolist() == [[2, 3], [0, 1]]
    assert batch.source_column.tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="at least the last token"):
        collate([Pack([1, 2], [[3]])], skip=[2])


def row_by_row(model: Any, packs: Sequence[Pack], temperature: float = 1.0) -> Tensor:
    """The log-probs of every branch token by plain calls of the model, one a branch."""
    parts = []
    for pack in packs:
        for tokens in pack.branches:
            ids = torch.tensor([[*pack.trunk, *tokens]])
            logprobs = (model(input_ids=ids).logits[0].float() / temperature).log_softmax(1)
            at = torch.arange(len(pack.trunk) - 1, ids.shape[1] - 1)
            parts.append(logprobs[at, torch.tensor(tokens)])
    return torch.cat(parts)


def packed(model: Any, packs: Sequence[Pack], temperature: float = 1.0) -> Tensor:
    batch = collate(packs)
    return token_logprobs(model, packed_hidden(model, batch), batch.targets, temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_packed_logprobs_are_those_of_plain_calls(tiny_model: Any, temperature: float) -> None:
    with torch.no_grad():
        expected, got = row_by_row(tiny_model, PACKS, temperature), packed(tiny_model, PACKS, temperature)
    assert expected.shape == (14,)
    # The model tells contexts apart by far more than the tolerance: same token, same trunk, another context.
    assert float(expected.std()) > 0.5
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_packs_logprobs_do_not_depend_on_its_neighbours(tiny_model: Any) -> None:
    with torch.no_grad():
        together = packed(tiny_model, PACKS)
        alone = torch.cat([packed(tiny_model, [pack]) for pack in PACKS])
        single = torch.cat([packed(tiny_model, [Pack(p.trunk, [b])]) for p in PACKS for b in p.branches])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, single, atol=1e-5, rtol=0)


TOKENS = st.integers(3, 300)


@settings(max_examples=15)
@given(
    st.lists(
        st.builds(
            Pack,
            st.lists(TOKENS, min_size=1, max_size=12),
            st.lists(st.lists(TOKENS, min_size=1, max_size=5), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_packs_logprobs_are_those_of_plain_calls(tiny_model: Any, packs: list[Pack]) -> None:
    with torch.no_grad():
        torch.testing.assert_close(packed(tiny_model, packs), row_by_row(tiny_model, packs), atol=2e-5, rtol=0)


def test_packed_gradients_are_those_of_plain_calls(tiny_model: Any) -> None:
    weights = torch.linspace(-1.0, 1.0, 14)
    grads = []
    for logprobs in (row_by_row, packed):
        model = copy.deepcopy(tiny_model).train()
        (logprobs(model, PACKS) * weights).sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    expected, got = grads
    assert len(expected) > 20
    for name, grad in expected.items():
        assert float(grad.norm()) > 1e-3, name
        assert float((got[name] - grad).norm() / grad.norm()) < 1e-4, name


def test_frozen_lower_layers_get_no_gradient_and_the_upper_ones_the_same(tiny_model: Any) -> None:
    grads = []
    for frozen in (False, True):
        model = copy.deepcopy(tiny_model)
        if frozen:
            model.get_input_embeddings().requires_grad_(False)
            for layer in model.model.layers[:2]:
                layer.requires_grad_(False)
        packed(model, PACKS).sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    free, upper = grads
    lower = {n for n in free if "embed_tokens" in n or "layers.0." in n or "layers.1." in n}
    assert len(lower) == 1 + 2 * 9
    assert all(free[name] is not None for name in free)
    assert {name for name, grad in upper.items() if grad is None} == lower
    for name in set(free) - lower:
        torch.testing.assert_close(upper[name], free[name])


def test_layers_below_the_first_that_trains_build_no_graph(tiny_model: Any) -> None:
    model = copy.deepcopy(tiny_model)
    model.requires_grad_(False)
    model.model.layers[2].requires_grad_(True)
    seen: list[bool] = []
    for layer in model.model.layers:
        layer.register_forward_hook(
            lambda _module, _args, out: seen.append((out if isinstance(out, Tensor) else out[0]).requires_grad)
        )
    packed(model, PACKS)
    assert seen == [False, False, True]


def test_packing_goes_through_peft(tiny_model: Any) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(
        copy.deepcopy(tiny_model), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).eval()
    with torch.no_grad():
        got, expected = packed(wrapped, PACKS), row_by_row(wrapped, PACKS)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        assert float((got - packed(tiny_model, PACKS)).abs().max()) > 1e-2

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from r1ranker.config import RunConfig
from r1ranker.errors import ConfigError
from r1ranker.llm.logprobs import branch_means, token_logprobs
from r1ranker.llm.packing import Pack, causal_lm, collate, packed_hidden
from r1ranker.llm.tree import collate_trees
from r1ranker.rankers import IRanker
from r1ranker.rl.losses import all_actions_loss, ppo_loss
from r1ranker.rl.policy import Critic, Policy, even_parts, freeze_lower, halve_frozen, pack_size, split_by_tokens
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.states import State
from r1ranker.types import RankingExample, Request, Sampling

MakePolicy = Callable[..., Policy]
PACKS = [
    Pack(list(range(40, 60)), [[100, 101, 102, 103], [110], [100, 101, 120]]),
    Pack([70, 71, 72], [[130, 131], [132, 133, 134, 135, 136]]),
    Pack(list(range(200, 245)), [[5, 6, 7]]),
]


def training(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def move(policy: Policy, size: float = 0.02) -> None:
    """Change the weights that train, as an optimizer would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in policy.parameters:
            p += size * torch.randn(p.shape, generator=generator)


def logprobs(policy: Policy) -> Tensor:
    with torch.no_grad():
        return policy.packed(PACKS)[2]


# What trains


def test_nothing_is_frozen_by_default(make_policy: MakePolicy, tiny_model: Any) -> None:
    policy = make_policy()
    assert training(policy.model) == {name for name, _ in tiny_model.named_parameters()}
    assert len(policy.parameters) == len(training(policy.model))


def test_freeze_lower_freezes_the_embeddings_and_the_first_layers(make_policy: MakePolicy) -> None:
    policy = make_policy(frozen_layers=2)
    names = training(policy.model)
    assert names
    assert all(n.startswith(("model.layers.2.", "model.norm.", "lm_head.")) for n in names)
    assert {"model.norm.weight", "lm_head.weight", "model.layers.2.mlp.up_proj.weight"} <= names
    assert {id(p) for p in policy.parameters} == {id(p) for p in policy.model.parameters() if p.requires_grad}


def test_a_tied_head_is_frozen_with_the_embeddings(tiny_model: Any) -> None:
    from transformers import LlamaForCausalLM

    config = copy.deepcopy(tiny_model.config)
    config.tie_word_embeddings = True
    tied = LlamaForCausalLM(config)
    freeze_lower(tied, 1)
    assert not tied.get_output_embeddings().weight.requires_grad
    assert training(tied) >= {"model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"}


def test_frozen_weights_in_half_precision_change_nothing_under_autocast(make_policy: MakePolicy) -> None:
    """Autocast rounds a weight to bfloat16 before it multiplies: held so, the same product comes out."""
    whole, halved = make_policy(frozen_layers=2), make_policy(frozen_layers=2)
    halve_frozen(halved.model)
    types = {name: p.dtype for name, p in halved.model.named_parameters()}
    assert types["model.layers.0.mlp.up_proj.weight"] == torch.bfloat16
    assert types["model.layers.2.mlp.up_proj.weight"] == types["model.embed_tokens.weight"] == torch.float32
    assert types["model.layers.0.input_layernorm.weight"] == torch.float32
    for policy in (whole, halved):
        policy.autocast = True
    with torch.no_grad(), whole.compute():
        assert torch.equal(whole.packed(PACKS)[2], halved.packed(PACKS)[2])


@pytest.mark.parametrize("settings", [{"frozen_layers": 3}, {"frozen_layers": 9}, {"frozen_layers": 3, "lora_rank": 2}])
def test_a_layer_must_be_left_to_train(make_policy: MakePolicy, settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"frozen_layers = \d, but the model has 3 layers"):
        make_policy(**settings)


def test_lora_wraps_every_linear_module_of_the_upper_layers_and_no_other(make_policy: MakePolicy) -> None:
    policy = make_policy(lora_rank=2, frozen_layers=1)
    names = training(policy.model)
    modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    expected = {(layer, module) for layer in "12" for module in modules}
    found = {(n.split(".layers.")[1][0], n.split(".")[-4]) for n in names}
    assert found == expected
    assert len(names) == 2 * len(expected)  # A and B of each
    assert all("lora_" in n for n in names)


def test_switching_the_adapter_off_gives_the_base(make_policy: MakePolicy) -> None:
    base = logprobs(make_policy())
    policy = make_policy(lora_rank=2)
    torch.testing.assert_close(logprobs(policy), base, atol=1e-5, rtol=0)  # B starts at zero
    move(policy, 0.2)
    assert float((logprobs(policy) - base).abs().max()) > 0.1
    policy.keep_reference()
    got = policy.reference_logprobs(collate(PACKS))
    torch.testing.assert_close(got, base, atol=1e-5, rtol=0)
    assert not got.requires_grad
    assert training(policy.model)  # and the adapter is on again
    assert float((logprobs(policy) - base).abs().max()) > 0.1


def test_the_reference_stays_when_the_policy_moves(make_policy: MakePolicy) -> None:
    policy = make_policy()
    before = logprobs(policy)
    policy.keep_reference()
    move(policy)
    assert float((logprobs(policy) - before).abs().max()) > 0.1
    reference = policy.reference_logprobs(collate(PACKS))
    torch.testing.assert_close(reference, before)
    assert not reference.requires_grad


def test_without_a_reference_it_says_so(make_policy: MakePolicy) -> None:
    with pytest.raises(ValueError, match="keep_reference"):
        make_policy().reference_logprobs(collate(PACKS))


# Micro-batches


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_split_by_tokens_holds_every_index_once_within_the_limit(sizes: list[int], limit: int) -> None:
    parts = split_by_tokens(sizes, limit)
    assert sorted(k for part in parts for k in part) == list(range(len(sizes)))
    for part in parts:
        # Padded to its longest; one that is too long by itself stands alone.
        assert len(part) == 1 or max(sizes[k] for k in part) * len(part) <= limit


def test_split_by_tokens_by_hand() -> None:
    # In order of size: 30 (k=1), 31 (k=3), 50 (k=0), 90 (k=2). 31 * 2 <= 80, 50 * 3 > 80, 90 > 80.
    assert split_by_tokens([50, 30, 90, 31], 80) == [[1, 3], [0], [2]]
    assert split_by_tokens([5, 5, 5], 10) == [[0, 1], [2]]
    # 20, 21, 22 hold an eighth of 160 and waste 3 of 66; with 30, 27 of 120 would be padding. 8 and 9 wait for more.
    assert split_by_tokens([22, 30, 20, 21], 160) == [[2, 3, 0], [1]]
    assert split_by_tokens([9, 20, 8, 21], 240) == [[2, 0, 1], [3]]
    # Every part counts anew: 7 of 5, 3 of 10, 1 of 20.
    assert split_by_tokens([5] * 7 + [10] * 3 + [20], 240) == [[*range(7)], [7, 8, 9], [10]]
    assert split_by_tokens([], 8) == []


def test_pack_size_is_what_collate_lays_out() -> None:
    # 20 + 3 + 0 + 2, 3 + 1 + 4, 45 + 2: a branch's last token takes no position.
    assert [pack_size(p) for p in PACKS] == [25, 8, 47]
    for pack in PACKS:
        assert collate([pack]).computed_tokens == pack_size(pack)


# The packed pass is the row-by-row pass


def row_by_row(model: nn.Module, packs: list[Pack]) -> tuple[Tensor, Tensor]:
    """Log-probs and final hidden states of the branch tokens, each branch by itself after its trunk."""
    lm = causal_lm(model)
    scores, states = [], []
    for pack in packs:
        for branch in pack.branches:
            ids = torch.tensor([[*pack.trunk, *branch]])
            hidden = lm.model(input_ids=ids).last_hidden_state[0, len(pack.trunk) - 1 : -1]
            logits = lm.lm_head(hidden)
            scores.append(logits.log_softmax(-1).gather(1, torch.tensor(branch)[:, None]).squeeze(1))
            states.append(hidden)
    return torch.cat(scores), torch.cat(states)


def actions_loss(scores: Tensor) -> Tensor:
    lengths = [len(branch) for pack in PACKS for branch in pack.branches]
    means = torch.split(branch_means(scores, lengths), [len(pack.branches) for pack in PACKS])
    rewards = [torch.tensor([1.0, 0.0, 0.25]), torch.tensor([0.0, 1.0]), torch.tensor([1.0])]
    return sum((all_actions_loss(m * 3, r) for m, r in zip(means, rewards, strict=True)), torch.zeros(()))


def clipped_loss(scores: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    old = scores.detach() + 0.3 * torch.randn(scores.shape, generator=generator)
    return ppo_loss(scores, old, torch.randn(scores.shape, generator=generator), 0.2).per_token.mean()


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("loss_of", [actions_loss, clipped_loss])
def test_the_packed_pass_equals_row_by_row(
    make_policy: MakePolicy,
    gradients: Callable[[Policy], dict[str, Tensor]],
    same_gradients: Callable[..., None],
    loss_of: Callable[[Tensor], Tensor],
    lora: int,
) -> None:
    policy = make_policy(lora_rank=lora)
    move(policy)  # with LoRA, B is zero at the start and A would have no gradient
    _, hidden, packed = policy.packed(PACKS)
    plain, states = row_by_row(policy.model, PACKS)
    assert packed.shape == (18,)
    assert float(packed.detach().std()) > 0.5
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(hidden, states, atol=1e-3, rtol=1e-3)
    loss_of(packed).backward()
    from_packed = gradients(policy)
    policy.model.zero_grad(set_to_none=True)
    loss_of(plain).backward()
    same_gradients(from_packed, gradients(policy), rel=1e-3)


TREES = [
    [Pack([*range(40, 60), 7, 8], [[100, 101, 102, 103], [110]]), Pack([*range(40, 60), 9], [[100, 101], [5, 6, 7]])],
    [Pack([70, 71, 72], [[130, 131], [132, 133, 134]])],
    [Pack([80], [[1, 2]]), Pack([81, 82], [[3, 4]])],  # nothing in common
]


@pytest.mark.parametrize("queries", [4, 128])
def test_trees_equal_row_by_row(
    make_policy: MakePolicy,
    gradients: Callable[[Policy], dict[str, Tensor]],
    same_gradients: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    queries: int,
) -> None:
    monkeypatch.setattr("r1ranker.llm.blocks.MIN_QUERIES", queries)
    policy = make_policy()
    weights = torch.randn(19, generator=torch.Generator().manual_seed(4))
    batch = collate_trees(TREES)
    hidden = packed_hidden(policy.model, batch)
    packed = token_logprobs(policy.model, hidden, batch.targets)
    plain, states = row_by_row(policy.model, [pack for row in TREES for pack in row])
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(hidden, states, atol=1e-3, rtol=1e-3)
    (packed * weights).sum().backward()
    from_packed = gradients(policy)
    policy.model.zero_grad(set_to_none=True)
    (plain * weights).sum().backward()
    same_gradients(from_packed, gradients(policy), rel=1e-3)


def test_frozen_layers_build_no_graph(make_policy: MakePolicy) -> None:
    """Below the first layer that trains nothing is kept for the backward pass."""
    policy = make_policy(frozen_layers=2)
    traced: list[bool] = []
    for layer in causal_lm(policy.model).get_decoder().layers:
        layer.register_forward_hook(lambda _module, _inputs, output: traced.append(output.requires_grad))
    _, _, scores = policy.packed(PACKS)
    assert traced == [False, False, True]
    assert scores.requires_grad


def test_a_temperature_divides_the_logits(make_policy: MakePolicy) -> None:
    policy = make_policy()
    with torch.no_grad():
        batch, hidden, got = policy.packed(PACKS, 2.5)
        logits = policy.model.lm_head(hidden) / 2.5
    expected = logits.log_softmax(-1).gather(1, batch.targets[:, None]).squeeze(1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert float((got - logprobs(policy)).abs().max()) > 0.1


# The critic


def with_head(critic: Critic) -> Critic:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        critic.head.weight.copy_(torch.randn(critic.head.weight.shape, generator=generator))
        critic.head.bias.fill_(0.5)
    return critic


@pytest.mark.parametrize("kind", ["head", "separate"])
def test_critic_values_equal_row_by_row(make_policy: MakePolicy, kind: Any) -> None:
    policy = make_policy()
    critic = with_head(Critic(policy, kind))
    batch, hidden, _ = policy.packed(PACKS)
    values = critic(batch, hidden)
    _, states = row_by_row(policy.model, PACKS)
    # The state before the first token of a branch ends with the trunk: its value does not depend on the branch.
    assert float(values[0].detach()) == float(values[4].detach()) == float(values[5].detach())
    torch.testing.assert_close(values, critic.head(states).squeeze(-1), atol=1e-3, rtol=1e-4)
    assert float(values.detach().std()) > 0.5


def test_a_new_critic_says_zero(make_policy: MakePolicy) -> None:
    policy = make_policy()
    batch, hidden, _ = policy.packed(PACKS)
    assert Critic(policy, "separate")(batch, hidden).tolist() == [0.0] * 18


def test_a_critic_head_does_not_change_the_policy(make_policy: MakePolicy) -> None:
    policy = make_policy()
    critic = with_head(Critic(policy, "head"))
    batch, hidden, _ = policy.packed(PACKS)
    critic(batch, hidden).sum().backward()
    assert critic.head.weight.grad is not None
    assert float(critic.head.weight.grad.norm()) > 0.1
    assert all(p.grad is None for p in policy.parameters)
    assert training(critic) == {"head.weight", "head.bias"}


def test_a_separate_critic_trains_weights_of_its_own(make_policy: MakePolicy) -> None:
    policy = make_policy(frozen_layers=1)
    critic = with_head(Critic(policy, "separate"))
    batch, hidden, before = policy.packed(PACKS)
    critic(batch, hidden).sum().backward()
    own = {n for n, p in critic.named_parameters() if p.grad is not None and float(p.grad.norm()) > 0}
    assert "head.weight" in own
    assert "backbone.model.layers.2.mlp.up_proj.weight" in own
    assert not any(".layers.0." in n or "embed" in n for n in own)
    assert all(p.grad is None for p in policy.parameters)
    with torch.no_grad():
        for p in critic.parameters():
            p.add_(0.05)
    assert torch.equal(logprobs(policy), before.detach())


# Sampling and training see the same probabilities


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
def test_sampling_logprobs_equal_the_packed_pass(
    make_policy: MakePolicy, make_example: Callable[..., RankingExample], temperature: float
) -> None:
    policy = make_policy()
    examples = [make_example(n, id=f"e{n}") for n in (2, 4, 5)]
    requests = [Request(IRanker(thinking=True).request(e, e.ids).prompt) for e in examples]
    requests = [r for r in requests for _ in range(3)]
    sampling = Sampling(temperature=temperature, max_tokens=12, seed=5)
    completions = policy.llm.complete(requests, sampling)
    packs = [
        Pack(policy.llm.chat.encode(requests[k].prompt), [c.token_ids for c in completions[k : k + 3]])
        for k in (0, 3, 6)
    ]
    sampled = torch.tensor([x for c in completions for x in c.logprobs])
    assert len(sampled) > 60
    assert len({c.token_ids for c in completions}) == 9
    with torch.no_grad():
        _, _, packed = policy.packed(packs, temperature)
    torch.testing.assert_close(packed, sampled, atol=1e-4, rtol=0)


def test_the_learner_keeps_what_was_sampled(
    make_policy: MakePolicy, recipe: Callable[..., RunConfig], states: list[State]
) -> None:
    policy = make_policy()
    config = recipe("grpo", thinking=True, group_size=3, temperature=1.3, epochs=2)
    learner = Sampled(policy, config.ranker.build(None), config)
    seen: list[Any] = []
    complete = policy.llm.complete

    def spy(requests: Any, sampling: Sampling) -> Any:
        seen.extend(complete(requests, sampling))
        return seen

    policy.llm.complete = spy  # type: ignore[method-assign]
    from r1ranker.rl.metrics import Averages

    learner.updates(states, Averages(), 0)
    assert len(seen) == 3 * len(states)
    old = torch.cat([g.old_logprobs for g in learner._groups])
    torch.testing.assert_close(old, torch.tensor([x for c in seen for x in c.logprobs]), atol=1e-4, rtol=0)
    assert [b for g in learner._groups for b in g.pack.branches] == [c.token_ids for c in seen]


def test_head_runs_in_parts_of_any_size(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy()
    with torch.no_grad():
        batch, hidden, whole = policy.packed(PACKS)
        monkeypatch.setattr("r1ranker.llm.logprobs.HEAD_CHUNK", 5)
        torch.testing.assert_close(token_logprobs(policy.model, hidden, batch.targets), whole, atol=1e-5, rtol=1e-5)


def test_a_head_in_parts_gives_the_same_gradients_and_keeps_no_logits(
    make_policy: MakePolicy,
    gradients: Callable[[Policy], dict[str, Tensor]],
    same_gradients: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, kept = [], []
    for chunk in (1000, 5):
        monkeypatch.setattr("r1ranker.llm.logprobs.HEAD_CHUNK", chunk)
        policy = make_policy()
        batch = collate(PACKS)
        hidden = packed_hidden(policy.model, batch)
        sizes: list[int] = []

        def watch(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(watch, lambda tensor: tensor):
            logprobs = token_logprobs(policy.model, hidden, batch.targets)
        (logprobs * torch.arange(1.0, len(logprobs) + 1)).sum().backward()
        found.append(gradients(policy))
        kept.append(sum(size == min(chunk, len(batch.targets)) * len(policy.tokenizer) for size in sizes))
    same_gradients(found[0], found[1], rel=1e-4)
    assert kept[0] > 0
    assert kept[1] == 0


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(24, 4, [4] * 6), (19, 6, [5, 5, 5, 4]), (7, 6, [4, 3]), (5, 9, [5]), (5, None, [5]), (0, 4, []), (0, None, [])],
)
def test_parts_of_a_step_differ_by_one_at_most(count: int, size: int | None, sizes: list[int]) -> None:
    """One state alone in a minibatch would move the weights as much as six."""
    parts = even_parts(range(count), size)
    assert [len(part) for part in parts] == sizes
    assert [k for part in parts for k in part] == list(range(count))

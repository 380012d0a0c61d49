from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from r1ranker.config import RunConfig
from r1ranker.config.train import SAMPLED
from r1ranker.errors import ConfigError, InputError
from r1ranker.llm.packing import Pack
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rewards import Reward, exclusion_values
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Policy
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.scored import Scored
from r1ranker.rl.states import State, request_of
from r1ranker.types import Completion, ParsedAnswer, RankingExample, Request, Sampling

MakePolicy = Callable[..., Policy]
Recipe = Callable[..., RunConfig]
Gradients = Callable[[Policy], dict[str, Tensor]]


def learner_of(policy: Policy, config: RunConfig) -> Scored | Sampled:
    ranker = config.ranker.build(policy.llm.parameters)
    if not config.train.samples:
        assert isinstance(ranker, IRanker | DRanker)
        return Scored(policy, ranker, config)
    return Sampled(policy, ranker, config)


def move(policy: Policy, size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in policy.parameters:
            p += size * torch.randn(p.shape, generator=generator)


def learn(policy: Policy, learner: Scored | Sampled, states: Sequence[State], steps: int) -> list[dict[str, float]]:
    """Optimizer steps on all the states; what each step tells, before its update."""
    optimizer = torch.optim.Adam(policy.parameters, lr=1e-3)
    rows = []
    for _ in range(steps):
        averages = Averages()
        optimizer.zero_grad()
        learner.backward(states, range(len(states)), averages)
        optimizer.step()
        rows.append(averages.result())
    return rows


def count_passes(policy: Policy) -> list[int]:
    """A list that grows by the number of packs of every packed pass."""
    passes: list[int] = []
    packed = policy.packed

    def counted(packs: Sequence[Pack], *args: Any) -> Any:
        passes.append(len(packs))
        return packed(packs, *args)

    packed_trees = policy.packed_trees

    def counted_trees(rows: Sequence[Sequence[Pack]]) -> Any:
        passes.append(sum(map(len, rows)))
        return packed_trees(rows)

    policy.packed = counted  # type: ignore[method-assign]
    policy.packed_trees = counted_trees  # type: ignore[method-assign]
    return passes


ALGORITHMS = [
    ("all_actions", {"entropy_coef": 0.05}),
    ("all_actions", {"ranker": {"constrained": True}}),
    ("all_actions", {"credit": "trajectory"}),
    ("all_actions", {"credit": "ndcg"}),
    ("all_actions", {"credit": "ndcg", "kind": "direct", "ranker": {"constrained": True}}),
    ("listwise", {}),
    ("grpo", {}),
    ("grpo", {"epochs": 2}),
    ("grpo", {"epochs": 2, "loss_aggregation": "reply_mean", "ratio": "reply", "clip_epsilon": 0.001}),
    ("grpo", {"loss_aggregation": "reply_sum", "scale_rewards": False}),
    ("ppo", {"critic": "head", "group_size": 2}),
    ("ppo", {"critic": "separate", "gae_lambda": 0.9}),
]


# Minibatches and micro-batches


@pytest.mark.parametrize(("algorithm", "train"), ALGORITHMS)
@pytest.mark.parametrize("lora", [0, 2])
def test_micro_batches_do_not_change_the_gradients(
    make_policy: MakePolicy,
    recipe: Recipe,
    states: list[State],
    gradients: Gradients,
    same_gradients: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    letters_reward: Any,
    algorithm: str,
    train: dict[str, Any],
    lora: int,
) -> None:
    monkeypatch.setattr(Sampled, "_reward", letters_reward)
    found: list[dict[str, Tensor]] = []
    passes: list[list[int]] = []
    results: list[dict[str, float]] = []
    for micro_tokens in (1, 1_000_000):
        policy = make_policy(lora_rank=lora)
        config = recipe(
            algorithm,
            thinking=algorithm in SAMPLED,
            micro_tokens=micro_tokens,
            kl_coef=0.1,
            model={"lora_rank": lora},
            **train,
        )
        learner = learner_of(policy, config)
        averages = Averages()
        parts = learner.updates(states, averages, 0)
        assert [sorted(part) for part in parts] == [list(range(len(states)))] * train.get("epochs", 1)
        # Away from the weights that sampled, so that ratios, the KL term and the values are not trivial.
        move(policy, 0.01 if not lora else 0.1)
        if isinstance(learner, Sampled) and learner.critic is not None:
            with torch.no_grad():
                learner.critic.head.weight.fill_(0.1)
        passes.append(count_passes(policy))
        learner.backward(states, parts[0], averages)
        own = gradients(policy)
        if isinstance(learner, Sampled) and learner.critic is not None:
            own |= {f"critic.{n}": p.grad for n, p in learner.critic.named_parameters() if p.grad is not None}
            assert any(n.startswith("critic.backbone") for n in own) == (train["critic"] == "separate")
        found.append(own)
        results.append(averages.result())
    assert passes == [[1] * len(states), [len(states)]]
    same_gradients(found[0], found[1], rel=1e-4)
    assert results[0] == pytest.approx(results[1], rel=1e-3, abs=1e-5)
    assert results[0]["kl"] > 1e-5
    if algorithm == "ppo" or "epochs" in train:  # GRPO's one update compares the policy with itself
        assert results[0]["approx_kl"] > 1e-5


@pytest.mark.parametrize("algorithm", ["all_actions", "grpo"])
def test_minibatches_cover_all_states(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], algorithm: str
) -> None:
    config = recipe(algorithm, thinking=algorithm == "grpo", minibatch_states=2)
    parts = learner_of(make_policy(), config).updates(states, Averages(), 0)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert sorted(k for part in parts for k in part) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("layout", ["append", "rebuild"])
@pytest.mark.parametrize("constrained", [False, True])
def test_states_of_one_example_share_what_their_prompts_begin_with(
    make_policy: MakePolicy,
    recipe: Recipe,
    examples: list[RankingExample],
    gradients: Gradients,
    same_gradients: Callable[..., None],
    layout: str,
    constrained: bool,
) -> None:
    """One row an example gives what one row a state gives, of fewer tokens; micro-batches keep rows whole."""
    first, second = examples[2], examples[1]
    states = [State(first, first.ids[:k]) for k in (5, 3, 2)] + [State(second, second.ids)]
    found, tokens, results = [], [], []
    for micro_tokens, rows in ((1, [1, 1, 1, 1]), (1_000_000, [4])):
        policy = make_policy()
        ranker = {"layout": layout, "sharpness": 10.0, "constrained": constrained}
        learner = learner_of(policy, recipe(ranker=ranker, micro_tokens=micro_tokens, kl_coef=0.1))
        move(policy, 0.02)
        passes = count_passes(policy)
        averages = Averages()
        learner.backward(states, [0, 1, 2, 3], averages)
        assert passes == rows
        found.append(gradients(policy))
        result = averages.result()
        tokens.append(result.pop("tokens"))
        results.append(result)
    same_gradients(found[0], found[1], rel=1e-3)
    assert results[0] == pytest.approx(results[1], rel=1e-3, abs=1e-5)
    assert tokens[1] < 0.9 * tokens[0]


@pytest.mark.parametrize(
    ("train", "kind", "message"),
    [
        ({"states_per_step": 6, "states_per_example": 4}, "iterative", "no multiple"),
        ({"states_per_step": 4, "states_per_example": 2}, "direct", "needs ranker.kind = 'iterative'"),
    ],
)
def test_states_per_example_must_fit(recipe: Recipe, train: dict[str, int], kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe("grpo", kind=kind, thinking=True, **train)


def test_every_epoch_is_shuffled_anew_and_the_same_for_the_same_step(
    make_policy: MakePolicy, recipe: Recipe, states: list[State]
) -> None:
    config = recipe("ppo", thinking=True, critic="head", minibatch_states=2, epochs=4)
    learner = learner_of(make_policy(), config)
    parts = learner.updates(states, Averages(), 3)
    assert [len(part) for part in parts] == [2, 2, 1] * 4
    epochs = [[k for part in parts[e : e + 3] for k in part] for e in range(0, 12, 3)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert learner.updates(states, Averages(), 3) == parts


def test_the_one_update_of_a_step_needs_no_old_logprobs(
    make_policy: MakePolicy,
    recipe: Recipe,
    states: list[State],
    gradients: Gradients,
    same_gradients: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    letters_reward: Any,
) -> None:
    monkeypatch.setattr(Sampled, "_reward", letters_reward)
    found = []
    for epochs in (1, 2):  # with a second update ahead, the old log-probs are computed
        policy = make_policy()
        learner = learner_of(policy, recipe("grpo", thinking=True, epochs=epochs))
        assert isinstance(learner, Sampled)
        parts = learner.updates(states, Averages(), 0)
        assert [len(g.old_logprobs) > 0 for g in learner._groups] == [epochs == 2] * len(states)
        learner.backward(states, parts[0], Averages())
        found.append(gradients(policy))
    same_gradients(found[0], found[1], rel=1e-4)


# Where the gradient goes


@pytest.mark.parametrize(("algorithm", "train"), ALGORITHMS)
def test_the_gradient_reaches_all_that_trains_and_nothing_else(
    make_policy: MakePolicy,
    recipe: Recipe,
    states: list[State],
    monkeypatch: pytest.MonkeyPatch,
    letters_reward: Any,
    algorithm: str,
    train: dict[str, Any],
) -> None:
    monkeypatch.setattr(Sampled, "_reward", letters_reward)
    policy = make_policy(frozen_layers=1)
    config = recipe(algorithm, thinking=algorithm in SAMPLED, kl_coef=0.1, model={"frozen_layers": 1}, **train)
    learner = learner_of(policy, config)
    averages = Averages()
    parts = learner.updates(states, averages, 0)
    if isinstance(learner, Sampled):  # a critic that says zero gives PPO equal advantages; see the trainer's tests
        for group in learner._groups:
            group.advantages = torch.linspace(-1, 1, len(group.advantages))
    learner.backward(states, parts[0], averages)
    reached = {n for n, p in policy.model.named_parameters() if p.grad is not None and float(p.grad.norm()) > 0}
    assert reached == {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert "model.layers.0.mlp.up_proj.weight" not in reached
    assert len(reached) == 2 * 9 + 2  # two layers of seven matrices and two norms; the last norm, the head


@pytest.mark.parametrize("critic", ["head", "separate"])
def test_the_value_loss_does_not_move_the_policy(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], critic: str
) -> None:
    policy = make_policy()
    learner = learner_of(policy, recipe("ppo", thinking=True, critic=critic))
    assert isinstance(learner, Sampled)
    assert learner.critic is not None
    parts = learner.updates(states, Averages(), 0)
    for group in learner._groups:
        group.advantages = torch.zeros_like(group.advantages)
        assert float(group.returns.abs().min()) > 0  # a random model's reward: -1 or worse
    learner.backward(states, parts[0], Averages())
    assert all(p.grad is None or float(p.grad.abs().max()) == 0 for p in policy.parameters)
    assert learner.critic.head.weight.grad is not None
    assert float(learner.critic.head.weight.grad.norm()) > 0


# Scored labels


@pytest.mark.parametrize("kind", ["iterative", "direct"])
def test_listwise_names_the_best_by_its_probability(
    make_policy: MakePolicy, recipe: Recipe, make_example: Callable[..., RankingExample], kind: str
) -> None:
    """By what the backend scores: an IRanker is unlikely to exclude the best, a DRanker likely to write it next."""
    policy = make_policy()
    example = replace(make_example(4, id="graded", history=("Rocky",)), relevance={"c1": 3.0, "c2": 1.0})
    state = State(example, example.ids, excluded=() if kind == "direct" else None)
    config = recipe("listwise", kind=kind, ranker={"sharpness": 2.0, "constrained": kind == "direct"})
    learner = learner_of(policy, config)
    averages = Averages()
    learner.backward([state], [0], averages)
    request = request_of(learner.ranker, state)  # type: ignore[arg-type]
    told = policy.llm.complete([replace(request, scored=True)], Sampling())[0].choice_logprobs
    naming = (torch.tensor(told) * (1.0 if kind == "direct" else -2.0)).log_softmax(0)
    best, second = example.ids.index("c1"), example.ids.index("c2")
    expected = -float(0.75 * naming[best] + 0.25 * naming[second])
    assert averages.result()["loss"] == pytest.approx(expected, rel=1e-4)


def test_all_actions_measures_the_expected_reward(make_policy: MakePolicy, recipe: Recipe, states: list[State]) -> None:
    policy = make_policy()
    config = recipe("all_actions", ranker={"sharpness": 2.0}, kl_coef=0.01)
    learner = learner_of(policy, config)
    averages = Averages()
    states = [replace(state, origin="films" if k < 2 else "") for k, state in enumerate(states)]
    learner.backward(states, range(len(states)), averages)
    got = averages.result()
    ranker = config.ranker.build(None)
    assert isinstance(ranker, IRanker)
    # What the backend scores for the same requests (evaluation's path) gives the same policy.
    completions = policy.llm.complete([ranker.request(s.example, s.remaining) for s in states], Sampling())
    expected, uniform = [], []
    for state, completion in zip(states, completions, strict=True):
        p = (torch.tensor(completion.choice_logprobs) * 2.0).softmax(0)
        values = torch.tensor(exclusion_values(state.example.relevance, state.remaining))
        expected.append(float((p * values).sum()))
        uniform.append(float(values.mean()))
    assert len(set(expected)) == 5
    assert got["reward"] == pytest.approx(sum(expected) / 5, abs=1e-4)
    # Sizes 3, 4, 5, 3, 4, one positive each: (2/3 + 3/4 + 4/5 + 2/3 + 3/4) / 5 = 0.72667.
    assert got["reward_uniform"] == pytest.approx(0.7266667, abs=1e-6)
    # And of the data set that is named, its two states alone: (2/3 + 3/4) / 2.
    assert got["reward/films"] == pytest.approx(sum(expected[:2]) / 2, abs=1e-4)
    assert got["reward_uniform/films"] == pytest.approx(17 / 24, abs=1e-6)
    assert got["choices"] == pytest.approx(19 / 5)
    assert got["kl"] == pytest.approx(0.0, abs=1e-6)
    assert 0 < got["entropy"] < math.log(5)


def test_what_a_right_exclusion_weighs_scales_the_gradient(
    make_policy: MakePolicy,
    recipe: Recipe,
    states: list[State],
    gradients: Gradients,
    same_gradients: Callable[..., None],
) -> None:
    found, rewards = [], []
    base = recipe()
    for weight in (1.0, 0.5):
        policy = make_policy()
        config = base.model_copy(update={"reward": base.reward.model_copy(update={"answer": weight})})
        averages = Averages()
        learner_of(policy, config).backward(states, range(len(states)), averages)
        found.append(gradients(policy))
        rewards.append(averages.result()["reward"])
    same_gradients({name: g / 2 for name, g in found[0].items()}, found[1], rel=1e-4)
    assert rewards[1] == pytest.approx(rewards[0] / 2)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_actions_trains_the_probability_that_a_constrained_answer_is_written(
    make_policy: MakePolicy,
    recipe: Recipe,
    states: list[State],
    gradients: Gradients,
    same_gradients: Callable[..., None],
    temperature: float,
) -> None:
    """By hand: each label's probability, token by token among those that could come next, by plain calls."""
    policy = make_policy()
    learner = learner_of(policy, recipe(ranker={"sharpness": 7.0, "constrained": True}, temperature=temperature))
    assert isinstance(learner, Scored)
    averages = Averages()
    learner.backward(states, range(len(states)), averages)
    found = gradients(policy)
    policy.model.zero_grad(set_to_none=True)
    chat, rewards = policy.llm.chat, []
    for state in states:
        request = learner.ranker.request(state.example, state.remaining)
        trunk = chat.encode(request.prompt)
        texts = [chat.encode_text(answer + "</answer>") for answer in request.answers]
        probabilities = []
        for own in texts:
            logprob = torch.zeros(())
            for k in range(len(own)):
                allowed = sorted({t[k] for t in texts if t[:k] == own[:k] and len(t) > k})
                logits = policy.model(input_ids=torch.tensor([[*trunk, *own[:k]]])).logits[0, -1]
                logprob = logprob + logits[allowed].log_softmax(0)[allowed.index(own[k])]
            probabilities.append(logprob.exp())
        assert float(torch.stack(probabilities).sum().detach()) == pytest.approx(1.0, abs=1e-5)
        values = torch.tensor(exclusion_values(state.example.relevance, state.remaining))
        flatter = torch.stack(probabilities) ** (1 / temperature)
        rewards.append((flatter / flatter.sum() * values).sum())
    reward = torch.stack(rewards).mean()
    assert averages.result()["reward"] == pytest.approx(float(reward.detach()), abs=1e-4)
    (-reward).backward()
    same_gradients(found, gradients(policy), rel=1e-3)


@pytest.mark.parametrize("credit", ["turn", "ndcg"])
def test_a_constrained_lists_gradient_is_that_of_its_next_line_or_of_all_that_follows(
    make_policy: MakePolicy,
    recipe: Recipe,
    examples: list[RankingExample],
    gradients: Gradients,
    same_gradients: Callable[..., None],
    credit: str,
) -> None:
    """By hand: the positive's probability to be written next, by plain calls, times what that adds to nDCG@20. Or over
    all orders of what is left, by their probabilities if they go by these calls, what the order adds.
    """
    policy = make_policy()
    # Three beginnings of one list, which share what is written; the positive is in none of them.
    states = [State(examples[2], examples[2].ids, excluded=())]
    positive = next(iter(examples[2].relevance))
    others = [i for i in examples[2].ids if i != positive]
    for length in (1, 2):
        left = tuple(i for i in examples[2].ids if i not in others[:length])
        states.append(State(examples[2], left, excluded=tuple(others[:length])))
    learner = learner_of(policy, recipe(kind="direct", ranker={"constrained": True}, credit=credit))
    assert isinstance(learner, Scored)
    averages = Averages()
    learner.backward(states, range(3), averages)
    found = gradients(policy)
    policy.model.zero_grad(set_to_none=True)
    chat, next_lines, rests = policy.llm.chat, [], []
    labels = learner.ranker.labels(examples[2])
    for state in states:
        assert state.excluded is not None
        prompt = learner.ranker.request(state.example).prompt
        trunk = [*chat.encode(prompt), *(t for i in state.excluded for t in chat.encode_text(labels[i] + "\n"))]
        texts = {i: chat.encode_text(labels[i] + "\n") for i in state.remaining}
        written = {}
        for i, own in texts.items():
            written[i] = torch.ones(())
            for k in range(len(own)):
                allowed = sorted({t[k] for t in texts.values() if t[:k] == own[:k] and len(t) > k})
                logits = policy.model(input_ids=torch.tensor([[*trunk, *own[:k]]])).logits[0, -1]
                written[i] = written[i] * logits[allowed].softmax(0)[allowed.index(own[k])]
        before = len(state.excluded)
        next_lines.append(written[positive] / math.log2(before + 2))
        rests.append(torch.zeros(()))
        for order in permutations(state.remaining):
            probability = torch.ones(())
            for k, i in enumerate(order):
                probability = probability * written[i] / sum(written[j] for j in order[k:])
            rests[-1] = rests[-1] + probability / math.log2(before + order.index(positive) + 2)
    reward, rest = torch.stack(next_lines).mean(), torch.stack(rests).mean()
    assert 0.01 < float(reward.detach()) < float(rest.detach()) < 0.99
    assert averages.result()["reward"] == pytest.approx(float(reward.detach()), abs=1e-4)
    if credit == "ndcg":
        assert averages.result()["return"] == pytest.approx(float(rest.detach()), abs=1e-4)
    (-(rest if credit == "ndcg" else reward)).backward()
    same_gradients(found, gradients(policy), rel=1e-3)


def test_scaled_rewards_weigh_states_alike(
    make_policy: MakePolicy,
    recipe: Recipe,
    states: list[State],
    gradients: Gradients,
    same_gradients: Callable[..., None],
) -> None:
    """One positive among n: the rewards' standard deviation is sqrt(1/n - 1/n^2), here sqrt(2)/3 and 0.4."""
    found = []
    for scale, state in ((False, states[0]), (True, states[0]), (False, states[2]), (True, states[2])):
        policy = make_policy()
        averages = Averages()
        learner_of(policy, recipe(scale_rewards=scale)).backward([state], [0], averages)
        assert averages.result()["reward"] <= 1.0  # what is told is the reward itself
        found.append(gradients(policy))
    for plain, scaled, deviation in ((found[0], found[1], 2**0.5 / 3), (found[2], found[3], 0.4)):
        same_gradients({name: g / deviation for name, g in plain.items()}, scaled, rel=1e-4)


@pytest.mark.parametrize("whole", ["trajectory", "ndcg"])
def test_the_return_of_the_elimination_is_climbed_and_told_beside_the_reward_of_the_turn(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], gradients: Gradients, whole: str
) -> None:
    told, found = {}, {}
    for credit in ("turn", whole):
        policy = make_policy()
        learner = learner_of(policy, recipe(credit=credit, ranker={"sharpness": 4.0}))
        averages = Averages()
        learner.backward(states, range(len(states)), averages)
        told[credit], found[credit] = averages.result(), gradients(policy)
    assert "return" not in told["turn"]
    assert told[whole]["reward"] == pytest.approx(told["turn"]["reward"])  # of the same weights
    assert 0.0 < told[whole]["return"] < 1.0
    assert any(float((found["turn"][n] - g).abs().max()) > 1e-6 for n, g in found[whole].items())

    policy = make_policy()
    learner = learner_of(policy, recipe(credit=whole, ranker={"sharpness": 4.0}))
    returns = [row["return"] for row in learn(policy, learner, states, 8)]
    assert returns[0] == pytest.approx(told[whole]["return"])
    assert returns[-1] > returns[0] + 0.03


def test_the_entropy_bonus_flattens_the_policy(make_policy: MakePolicy, recipe: Recipe, states: list[State]) -> None:
    after = {}
    for coefficient in (0.0, 5.0):
        policy = make_policy()
        learner = learner_of(policy, recipe("all_actions", entropy_coef=coefficient, ranker={"sharpness": 1.0}))
        after[coefficient] = learn(policy, learner, states, 5)[-1]["entropy"]
    assert after[5.0] > after[0.0] + 0.01


def test_the_kl_term_pulls_back_to_the_reference(make_policy: MakePolicy, recipe: Recipe, states: list[State]) -> None:
    policy = make_policy()
    learner = learner_of(policy, recipe("all_actions", kl_coef=100.0))
    move(policy, 0.02)
    kls = [row["kl"] for row in learn(policy, learner, states, 8)]
    assert kls[0] > 1e-3
    assert kls[-1] < 0.5 * kls[0]


# Sampled completions


def test_every_step_samples_anew_and_the_same_again(
    make_policy: MakePolicy, recipe: Recipe, states: list[State]
) -> None:
    learner = learner_of(make_policy(), recipe("grpo", thinking=True))
    assert isinstance(learner, Sampled)

    def sampled(step: int) -> list[Any]:
        return [list(g.pack.branches) for g in learner.roll_out(states, Averages(), step)]

    first = sampled(0)
    assert sampled(0) == first
    assert all(a != b for a, b in zip(sampled(1), first, strict=True))


def test_the_kl_term_of_sampled_completions_pulls_back_to_the_reference(
    make_policy: MakePolicy, recipe: Recipe, states: list[State]
) -> None:
    policy = make_policy()
    # A random model's completions all earn the same, so that nothing but the KL term has a gradient.
    learner = learner_of(policy, recipe("grpo", thinking=True, kl_coef=1.0))
    assert isinstance(learner, Sampled)
    move(policy, 0.02)
    optimizer = torch.optim.Adam(policy.parameters, lr=1e-3)
    parts = learner.updates(states, Averages(), 0)
    assert all(float(g.advantages.abs().max()) == 0 for g in learner._groups)
    kls = []
    for _ in range(8):
        averages = Averages()
        optimizer.zero_grad()
        learner.backward(states, parts[0], averages)
        optimizer.step()
        kls.append(averages.result()["kl"])
    assert kls[0] > 1e-3
    assert kls[-1] < 0.6 * kls[0]


# Completions written by a script


def test_dranker_rewards_groups_and_step(
    make_policy: MakePolicy,
    recipe: Recipe,
    make_example: Callable[..., RankingExample],
    script: Callable[..., list[list[Request]]],
) -> None:
    policy = make_policy()
    config = recipe("grpo", kind="direct", group_size=3, kl_coef=0.0)
    example = make_example(3)  # Toy Story is the positive
    state = State(example, example.ids)
    best = "Toy Story (1995)\nHeat (1995)\nCasablanca (1942)</answer>"
    worst = "Casablanca (1942)\nHeat (1995)\nToy Story (1995)</answer>"
    calls = script(policy, [best, worst, "blah"])
    learner = learner_of(policy, config)
    assert isinstance(learner, Sampled)
    averages = Averages()
    parts = learner.updates([state], averages, 0)
    # One request a completion, the same prompt, no choices: choices would be scored and not sampled.
    assert [len(call) for call in calls] == [3]
    assert len({r.prompt for r in calls[0]}) == 1
    assert all(r.choices == () and r.session == "" for r in calls[0])
    group = learner._groups[0]
    # best: nDCG 1. worst: 1 / log2(4) = 0.5. blah: names none, so nDCG 0, coverage -1, layout -1, a tag missing -0.25.
    assert group.rewards == pytest.approx([1.0, 0.5, -2.25])
    # Mean -0.75 / 3 = -0.25; distances 1.25, 0.75, -2;
    # sd = sqrt((1.5625 + 0.5625 + 4) / 3) = 1.428869: 0.874818, 0.524891, -1.399709.
    lengths = group.lengths
    per_completion = [float(a[0]) for a in torch.split(group.advantages, lengths)]
    assert per_completion == pytest.approx([0.874818, 0.524891, -1.399709], abs=1e-4)
    assert all(float(a.std(correction=0)) < 1e-6 for a in torch.split(group.advantages, lengths))
    got = averages.result()
    assert got["reward"] == pytest.approx(-0.25)
    assert got["reward_std"] == pytest.approx(1.428869, abs=1e-5)
    assert got["coverage_reward"] == pytest.approx(-1 / 3)
    assert got["format_reward"] == pytest.approx(-1.25 / 3)
    assert got["answered"] == pytest.approx(2 / 3)
    # A step raises what was better than the group's mean and lowers the rest.
    with torch.no_grad():
        _, _, before = policy.packed([group.pack])
    learner.backward([state], parts[0], averages)
    torch.optim.SGD(policy.parameters, lr=1e-3).step()
    with torch.no_grad():
        _, _, after = policy.packed([group.pack])
    change = [
        float((a - b).mean()) for a, b in zip(torch.split(after, lengths), torch.split(before, lengths), strict=True)
    ]
    assert change[0] > 0
    assert change[2] < 0


def test_grpo_does_not_divide_where_it_is_told_so(
    make_policy: MakePolicy, recipe: Recipe, make_example: Callable[..., RankingExample], script: Any
) -> None:
    example = make_example(3)  # Toy Story is the positive
    texts = [
        "Toy Story (1995)\nHeat (1995)\nCasablanca (1942)</answer>",
        "Casablanca (1942)\nHeat (1995)\nToy Story (1995)</answer>",
        "blah",
    ]
    found = {}
    for scale in (None, True, False):
        policy = make_policy()
        script(policy, texts)
        learner = learner_of(policy, recipe("grpo", kind="direct", group_size=3, scale_rewards=scale))
        assert isinstance(learner, Sampled)
        learner.updates([State(example, example.ids)], Averages(), 0)
        (group,) = learner._groups
        found[scale] = [float(a[0]) for a in torch.split(group.advantages, group.lengths)]
    # Rewards 1, 0.5 and -2.25 (see above), mean -0.25.
    assert found[False] == pytest.approx([1.25, 0.75, -2.0])
    assert found[None] == found[True] == pytest.approx([a / 1.428869 for a in found[False]], abs=1e-4)


@pytest.mark.parametrize(
    ("train", "shares"),
    [
        # What a token of a reply of 2 tokens and of one of 5 weighs, and those of the second if it was cut off.
        ({}, (1 / 7, 1 / 7)),
        ({"loss_aggregation": "reply_mean"}, (1 / 2 / 2, 1 / 5 / 2)),
        ({"loss_aggregation": "reply_sum"}, (1 / 8 / 2, 1 / 8 / 2)),
        ({"drop_cut_off": True}, (1 / 2, 0.0)),
        ({"drop_cut_off": True, "loss_aggregation": "reply_mean"}, (1 / 2, 0.0)),
        ({"drop_cut_off": True, "loss_aggregation": "reply_sum"}, (1 / 8, 0.0)),
    ],
)
def test_what_a_token_of_a_reply_weighs(
    make_policy: MakePolicy,
    recipe: Recipe,
    make_example: Callable[..., RankingExample],
    script: Any,
    gradients: Gradients,
    same_gradients: Callable[..., None],
    train: dict[str, Any],
    shares: tuple[float, float],
) -> None:
    policy = make_policy()
    learner = learner_of(policy, recipe("grpo", group_size=2, ranker={"max_tokens": 8}, **train))
    assert isinstance(learner, Sampled)
    script(policy, ["H", "x"])
    parts = learner.updates([State(make_example(3), ("c1", "c2", "c3"))], Averages(), 0)
    (group,) = learner._groups
    tokens = group.pack.branches[0][0]
    group.pack = Pack(group.pack.trunk, [[tokens] * 2, [tokens] * 5])
    group.replies[1] = replace(group.replies[1], completion=replace(group.replies[1].completion, finish="length"))
    group.advantages = torch.tensor([1.0] * 2 + [-2.0] * 5)
    averages = Averages()
    learner.backward([group.state], parts[0], averages)
    got = gradients(policy)
    # The first update of a step: the gradient of an advantage times the log-prob.
    assert averages.result()["loss"] == pytest.approx(-1.0 * 2 * shares[0] + 2.0 * 5 * shares[1])
    for parameter in policy.parameters:
        parameter.grad = None
    _, _, logprobs = policy.packed([group.pack])
    (-logprobs[:2].sum() * shares[0] + 2 * logprobs[2:].sum() * shares[1]).backward()
    same_gradients(got, gradients(policy), rel=1e-4)


def test_bounds_and_ratios_are_those_of_the_recipe(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], monkeypatch: pytest.MonkeyPatch, letters_reward: Any
) -> None:
    monkeypatch.setattr(Sampled, "_reward", letters_reward)
    told: dict[str, dict[str, float]] = {}
    for name, train in {
        "both": {},
        "below": {"clip_epsilon_high": 1e6},
        "above": {"clip_epsilon": 1e6, "clip_epsilon_high": 1e-6},
        "replies": {"ratio": "reply"},
    }.items():
        policy = make_policy()
        config = recipe("grpo", thinking=True, epochs=2, **{"clip_epsilon": 1e-6, **train})
        learner = learner_of(policy, config)
        parts = learner.updates(states, Averages(), 0)
        move(policy, 0.01)
        averages = Averages()
        learner.backward(states, parts[0], averages)
        told[name] = averages.result()
    assert 0 < told["below"]["clipfrac"] < told["both"]["clipfrac"] <= 1
    assert 0 < told["above"]["clipfrac"] < told["both"]["clipfrac"]
    # Every token moved below or above: the two shares are the whole.
    assert told["below"]["clipfrac"] + told["above"]["clipfrac"] == pytest.approx(told["both"]["clipfrac"])
    assert told["replies"]["loss"] != pytest.approx(told["both"]["loss"], rel=1e-6)
    assert told["replies"]["approx_kl"] == pytest.approx(told["both"]["approx_kl"])  # of tokens in either case


def test_nothing_is_learned_where_all_replies_were_cut_off(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], gradients: Gradients
) -> None:
    policy = make_policy()
    learner = learner_of(policy, recipe("grpo", thinking=True, drop_cut_off=True, ranker={"max_tokens": 1}))
    assert isinstance(learner, Sampled)
    averages = Averages()
    parts = learner.updates(states, averages, 0)
    assert averages.result()["cut_off"] == 1
    learner.backward(states, parts[0], averages)
    assert "loss" not in averages.result()
    assert all(not bool(gradient.any()) for gradient in gradients(policy).values())


def test_groups_whose_rewards_are_all_alike_are_counted(
    make_policy: MakePolicy, recipe: Recipe, make_example: Callable[..., RankingExample], script: Any
) -> None:
    policy = make_policy()
    good, bad = "Heat (1995)</answer>", "Toy Story (1995)</answer>"
    script(policy, [good, good, good, bad, bad, bad, good, good])
    states = [State(make_example(3, id=f"e{k}"), ("c1", "c2", "c3")) for k in range(4)]
    averages = Averages()
    learner_of(policy, recipe("grpo", group_size=2)).updates(states, averages, 0)
    assert averages.result()["groups_without_spread"] == 3 / 4
    for size, told in ((1, None), (2, 3 / 4)):  # one reply is compared with none
        script(policy, [good, good, good, bad, bad, bad, good, good])
        averages = Averages()
        learner_of(policy, recipe("ppo", critic="head", group_size=size)).updates(states, averages, 0)
        assert averages.result().get("groups_without_spread") == told


def test_the_first_replies_of_a_step_are_told(
    make_policy: MakePolicy, recipe: Recipe, make_example: Callable[..., RankingExample], script: Any
) -> None:
    policy = make_policy()
    texts = [
        "it is old</think><answer>Casablanca (1942)</answer>",  # a negative: 1
        "which</think><answer>Heat (1995)</answer>",  # not left any more: -0.5
        "Casablanca",  # -1, -1 for the layout, -0.75 for three tags
        "it is new</think><answer>Toy Story (1995)</answer>",  # the positive: 0
    ]
    states = [State(make_example(4, id=f"e{k}"), ("c1", "c3")) for k in range(2)]
    calls = script(policy, texts)
    learner = learner_of(policy, recipe("grpo", thinking=True, group_size=2, log_completions=3))
    learner.updates(states, Averages(), 0)
    first, second, third = learner.replies
    assert first["example"] == second["example"] == "e0"
    assert first["prompt"] == calls[0][0].prompt.user
    assert first["reply"] == "<think>" + texts[0]
    assert (first["reward"], second["reward"]) == (1.0, -0.5)
    # Mean 0.25, deviation 0.75.
    assert [first["advantage"], second["advantage"]] == pytest.approx([1, -1], abs=1e-4)
    assert third == {
        "example": "e1",
        "prompt": calls[0][2].prompt.user,
        "reply": "<think>Casablanca",
        "finish": "stop",
        "parts": {"answer": -1.0, "coverage": 0.0, "format": -1.0, "tags": -0.75},
        "reward": -2.75,
        "advantage": pytest.approx(-1, abs=1e-4),
    }
    quiet = learner_of(policy, recipe("grpo", thinking=True, group_size=2))
    quiet.updates(states, Averages(), 0)
    assert list(quiet.replies) == []


def test_an_advantage_that_is_not_the_same_for_all_tokens_is_not_told(
    make_policy: MakePolicy, recipe: Recipe, states: list[State]
) -> None:
    config = recipe("ppo", thinking=True, critic="head", gamma=0.5, log_completions=99)
    learner = learner_of(make_policy(), config)
    assert isinstance(learner, Sampled)
    learner.updates(states, Averages(), 0)
    told = [reply["advantage"] is None for reply in learner.replies]
    assert told == [length > 1 for group in learner._groups for length in group.lengths]
    assert any(told)


def test_an_own_reward_function_judges_replies(
    make_policy: MakePolicy, recipe: Recipe, make_example: Callable[..., RankingExample], script: Any
) -> None:
    policy = make_policy()
    script(policy, ["Heat (1995)</answer>", "Toy Story (1995) or so</answer>"])
    seen: list[tuple[State, tuple[str, ...], str]] = []

    def shorter(state: State, parsed: ParsedAnswer, completion: Completion) -> Reward:
        seen.append((state, parsed.ids, completion.text))
        return Reward(np.float32(-len(completion.text)), format=2)  # type: ignore[arg-type]

    base = recipe("grpo", group_size=2)
    config = base.model_copy(update={"reward": base.reward.model_copy(update={"format": 0.5})})
    ranker = config.ranker.build(None)
    assert isinstance(ranker, IRanker)
    learner = Sampled(policy, ranker, config, shorter)
    state = State(make_example(3), ("c1", "c2", "c3"))
    learner.updates([state], Averages(), 0)
    assert [text for _, _, text in seen] == ["Heat (1995)</answer>", "Toy Story (1995) or so</answer>"]
    assert seen[0][:2] == (state, ("c2",))
    assert learner._groups[0].rewards == [-20 + 1, -31 + 1]  # the weights of [reward] hold
    assert all(type(reward) is float for reward in learner._groups[0].rewards)


@pytest.mark.parametrize("given", [1.0, None, Reward(float("nan")), Reward(0.0, tags=float("-inf"))])
def test_an_own_reward_function_must_give_a_finite_reward(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], given: Any
) -> None:
    config = recipe("grpo", thinking=True)
    ranker = config.ranker.build(None)
    assert isinstance(ranker, IRanker)
    learner = Sampled(make_policy(), ranker, config, lambda *_: given)
    with pytest.raises(
        InputError, match=r"example 'e0': the reward function gives .*: give a r1ranker\.rewards\.Reward"
    ):
        learner.updates(states, Averages(), 0)


def test_iranker_rewards_of_a_thought_and_an_answer(
    make_policy: MakePolicy, recipe: Recipe, make_example: Callable[..., RankingExample], script: Any
) -> None:
    policy = make_policy()
    example = make_example(4)
    state = State(example, ("c1", "c3"))  # Toy Story, Casablanca
    texts = [
        "it is old</think><answer>Casablanca (1942)</answer>",  # a negative: 1
        "it is new</think><answer>Toy Story (1995)</answer>",  # the positive: 0
        "which</think><answer>Heat (1995)</answer>",  # not left any more: -0.5
        "Casablanca",  # no answer -1, layout -1, three tags missing -0.75 (the prefill has <think>)
    ]
    calls = script(policy, texts)
    learner = learner_of(policy, recipe("grpo", thinking=True, group_size=4))
    assert isinstance(learner, Sampled)
    learner.updates([state], Averages(), 0)
    assert learner._groups[0].rewards == pytest.approx([1.0, 0.0, -0.5, -2.75])
    assert "Heat" not in calls[0][0].prompt.user
    assert calls[0][0].prompt.prefill == "<think>"


def test_ppo_assigns_credit_by_gae_and_whitens(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = iter([1.0, 0.0, -0.5, 2.0, 1.0])
    monkeypatch.setattr(Sampled, "_reward", lambda *_: Reward(next(rewards)))
    policy = make_policy()
    learner = learner_of(policy, recipe("ppo", thinking=True, gamma=0.5, gae_lambda=1.0, critic="separate"))
    assert isinstance(learner, Sampled)
    averages = Averages()
    learner.updates(states, averages, 0)
    # The critic says 0 still: returns are the reward, halved a token towards the front.
    for group, reward in zip(learner._groups, [1.0, 0.0, -0.5, 2.0, 1.0], strict=True):
        n = group.lengths[0]
        assert group.old_values.tolist() == [0.0] * n
        assert group.returns.tolist() == pytest.approx([reward * 0.5 ** (n - 1 - t) for t in range(n)])
    flat = torch.cat([g.advantages for g in learner._groups])
    returns = torch.cat([g.returns for g in learner._groups])
    assert len(flat) > 10
    torch.testing.assert_close(flat, (returns - returns.mean()) / returns.std(correction=0), atol=1e-4, rtol=1e-4)
    assert averages.result()["explained_variance"] == pytest.approx(0.0, abs=1e-6)


def test_the_critic_learns_the_reward(
    make_policy: MakePolicy, recipe: Recipe, states: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sampled, "_reward", lambda *_: Reward(-1.5))
    for kind in ("head", "separate"):
        policy = make_policy()
        learner = learner_of(policy, recipe("ppo", thinking=True, critic=kind, value_clip=10.0))
        assert isinstance(learner, Sampled)
        assert learner.critic is not None
        parts = learner.updates(states, Averages(), 0)
        optimizer = torch.optim.Adam(learner.critic.parameters(), lr=0.02)
        losses = []
        for _ in range(15):
            averages = Averages()
            optimizer.zero_grad()
            learner.backward(states, parts[0], averages)
            optimizer.step()
            losses.append(averages.result()["value_loss"])
        assert losses[0] == pytest.approx(1.125)  # 1.5 ** 2 / 2
        assert losses[-1] < 0.2, kind

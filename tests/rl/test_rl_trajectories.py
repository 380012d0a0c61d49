from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from r1ranker.config import RunConfig
from r1ranker.rankers import IRanker
from r1ranker.rewards import Reward
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Policy
from r1ranker.rl.replies import Group
from r1ranker.rl.states import State
from r1ranker.rl.trajectories import Trajectories
from r1ranker.types import RankingExample

MakePolicy = Callable[..., Policy]
Recipe = Callable[..., RunConfig]
MakeExample = Callable[..., RankingExample]

TITLES = {"c1": "Toy Story (1995)", "c2": "Heat (1995)", "c3": "Casablanca (1942)", "c4": "Alien (1979)"}
GRPO = {"states": "on_policy", "group_size": 2, "states_per_step": 3, "states_per_example": 3}
PPO = {"credit": "trajectory", "critic": "head"}


def texts(*ids: str) -> list[str]:
    """Replies without thinking, in the order in which they are asked for: a turn of each elimination at a time."""
    return [f"{TITLES[i]}</answer>" for i in ids]


def learner_of(policy: Policy, config: RunConfig) -> Trajectories:
    ranker = config.ranker.build(policy.llm.parameters)
    assert isinstance(ranker, IRanker)
    return Trajectories(policy, ranker, config)


def by_turn(groups: Sequence[Group], name: str = "advantages") -> dict[tuple[str, ...], list[list[float]]]:
    """State -> what the tokens of each of its completions got."""
    out: dict[tuple[str, ...], list[list[float]]] = {}
    for group in groups:
        parts = torch.split(getattr(group, name), group.lengths)
        out.setdefault(group.state.remaining, []).extend(part.tolist() for part in parts)
    return out


def firsts(groups: Sequence[Group], name: str = "advantages") -> dict[tuple[str, ...], list[float]]:
    """The same with one figure a completion, whose tokens must all have the same."""
    whole = by_turn(groups, name)
    assert all(own == pytest.approx([own[0]] * len(own)) for parts in whole.values() for own in parts)
    return {state: [own[0] for own in parts] for state, parts in whole.items()}


FOUR = ("c1", "c2", "c3", "c4")
# One elimination excludes c4, c3, c2 (rewards 1, 1, 1); the other c3, then the positive c1 (1, 0), and is over.
GOOD_AND_BAD = texts("c4", "c3", "c3", "c1", "c2")


def test_grpo_compares_returns_turn_by_turn(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    policy = make_policy()
    calls = script(policy, GOOD_AND_BAD)
    learner = learner_of(policy, recipe("grpo", credit="trajectory", **GRPO))
    averages = Averages()
    parts = learner.updates([State(make_example(4), FOUR)], averages, 0)
    assert [len(call) for call in calls] == [2, 2, 1]
    assert len({request.session for call in calls for request in call}) == 2
    # The first turn is one state of both eliminations: one pack with two branches.
    assert [len(group.rewards) for group in learner._groups] == [2, 1, 1, 1]
    assert sorted(k for part in parts for k in part) == [0, 1, 2, 3]
    # Returns 3, 2, 1 and 1, 0: in turn 1 3 against 1, in turn 2 2 against 0, in turn 3 there is no other.
    got = firsts(learner._groups)
    assert got[FOUR] == pytest.approx([1, -1], abs=1e-4)
    assert got[("c1", "c2", "c3")] == pytest.approx([1], abs=1e-4)
    assert got[("c1", "c2", "c4")] == pytest.approx([-1], abs=1e-4)
    assert got[("c1", "c2")] == [0]
    result = averages.result()
    assert result["turns"] == 2.5
    assert result["elimination_reward"] == 2
    assert result["reward_std"] == 1
    assert result["reward"] == pytest.approx(4 / 5)


@pytest.mark.parametrize("layout", ["rebuild", "append"])
def test_gigpo_compares_eliminations_and_turns_from_the_same_state(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any, layout: str
) -> None:
    """c4, c3, c2 (1, 1, 1) against c3, c4, c1 (1, 1, 0): the third turns have the same left."""
    policy = make_policy()
    script(policy, texts("c4", "c3", "c3", "c4", "c2", "c1"))
    config = recipe("grpo", credit="gigpo", step_weight=0.5, turn_gamma=0.5, ranker={"layout": layout}, **GRPO)
    learner = learner_of(policy, config)
    learner.updates([State(make_example(4), FOUR)], Averages(), 0)
    # With append the prompt of the third turn tells the order of exclusion: two prompts, but one state.
    sizes = sorted(len(group.rewards) for group in learner._groups)
    assert sizes == ([1, 1, 2, 2] if layout == "rebuild" else [1, 1, 1, 1, 2])
    # Totals 3 and 2: +1 and -1. Turn 1, the same state: returns 1.75 and 1.5, +1 and -1, halved. Turn 2: met once.
    # Turn 3, the same state: 1 and 0.
    got = firsts(learner._groups)
    assert got[FOUR] == pytest.approx([1.5, -1.5], abs=1e-4)
    assert got[("c1", "c2", "c3")] == pytest.approx([1], abs=1e-4)
    assert got[("c1", "c2", "c4")] == pytest.approx([-1], abs=1e-4)
    assert got[("c1", "c2")] == pytest.approx([1.5, -1.5], abs=1e-4)


def test_without_a_deviation_returns_are_compared_as_they_are(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    for credit, first_turn in (("trajectory", [1, -1]), ("gigpo", [2, -2])):
        policy = make_policy()
        script(policy, GOOD_AND_BAD)
        learner = learner_of(policy, recipe("grpo", credit=credit, scale_rewards=False, **GRPO))
        learner.updates([State(make_example(4), FOUR)], Averages(), 0)
        # Totals 3 and 1, mean 2; returns of the first turn the same, and gigpo adds the two.
        assert firsts(learner._groups)[FOUR] == first_turn


def test_replies_are_told_elimination_by_elimination(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    policy = make_policy()
    script(policy, GOOD_AND_BAD)
    # One turn of each elimination is learned from; what is told is as it was sampled.
    config = recipe("grpo", credit="trajectory", log_completions=4, **{**GRPO, "states_per_example": 1})
    learner = learner_of(policy, config)
    learner.updates([State(make_example(4), FOUR)], Averages(), 0)
    named = [reply["reply"].removeprefix("<answer>") for reply in learner.replies]
    assert named == texts("c4", "c3", "c2", "c3")
    assert [reply["reward"] for reply in learner.replies] == [1, 1, 1, 1]
    # Returns 3, 2, 1 against 1, 0 (see the test of GRPO).
    assert [reply["advantage"] for reply in learner.replies] == pytest.approx([1, 1, 0, -1], abs=1e-4)


def test_eliminations_of_one_total_are_without_spread(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    policy = make_policy()
    # Of the first example both eliminations earn 1; of the second one earns 1 and one 0.
    script(policy, texts("c2", "c2", "c2", "c1"))
    examples = [make_example(2, id="a", history=("Rocky",)), make_example(2, id="b", history=("Big",))]
    averages = Averages()
    learner = learner_of(policy, recipe("grpo", credit="trajectory", **GRPO))
    learner.updates([State(e, e.ids) for e in examples], averages, 0)
    assert averages.result()["groups_without_spread"] == 0.5


def test_an_own_reward_function_judges_turns(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    policy = make_policy()
    script(policy, GOOD_AND_BAD)
    config = recipe("grpo", credit="trajectory", **GRPO)
    ranker = config.ranker.build(None)
    assert isinstance(ranker, IRanker)
    learner = Trajectories(policy, ranker, config, lambda state, *_: Reward(float(len(state.remaining))))
    averages = Averages()
    learner.updates([State(make_example(4), FOUR)], averages, 0)
    assert averages.result()["elimination_reward"] == ((4 + 3 + 2) + (4 + 3)) / 2


def test_examples_are_not_compared_with_each_other(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    """Two eliminations of each of two examples, which are alike within an example: no advantage at all."""
    policy = make_policy()
    script(policy, texts("c2", "c2", "c1", "c1"))
    examples = [make_example(2, id="a", history=("Rocky",)), make_example(2, id="b", history=("Big",))]
    for credit in ("trajectory", "gigpo"):
        learner = learner_of(policy, recipe("grpo", credit=credit, **GRPO))
        learner.updates([State(e, e.ids) for e in examples], Averages(), 0)
        assert [group.rewards for group in learner._groups] == [[1, 1], [0, 0]]
        assert all(float(group.advantages.abs().max()) == 0 for group in learner._groups)


def test_ppo_takes_each_exclusion_as_one_action(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    policy = make_policy()
    script(policy, GOOD_AND_BAD)
    config = recipe("ppo", credit="trajectory", critic="head", turn_gamma=0.5, gae_lambda=0.8, value_clip=10.0, **GRPO)
    learner = learner_of(policy, config)
    assert learner.critic is not None
    with torch.no_grad():
        learner.critic.head.bias.fill_(0.25)
    averages = Averages()
    learner.updates([State(make_example(4), FOUR)], averages, 0)
    # Every value is 0.25; gamma * lambda = 0.4.
    # Good: delta3 = 1 - 0.25 = 0.75; delta2 = delta1 = 1 + 0.125 - 0.25 = 0.875.
    #   A3 = 0.75, A2 = 0.875 + 0.4 * 0.75 = 1.175, A1 = 0.875 + 0.4 * 1.175 = 1.345.
    # Bad: A2 = 0 - 0.25 = -0.25, A1 = 0.875 + 0.4 * -0.25 = 0.775. Returns are these plus 0.25.
    expected = {FOUR: [1.345, 0.775], ("c1", "c2", "c3"): [1.175], ("c1", "c2", "c4"): [-0.25], ("c1", "c2"): [0.75]}
    returns = firsts(learner._groups, "returns")
    assert returns == {state: pytest.approx([a + 0.25 for a in own], abs=1e-5) for state, own in expected.items()}
    # Whitened over all tokens.
    lengths = {state: [len(own) for own in parts] for state, parts in by_turn(learner._groups).items()}
    flat = torch.cat([torch.full((n,), a) for s, own in expected.items() for a, n in zip(own, lengths[s], strict=True)])
    mean, std = float(flat.mean()), float(flat.std(correction=0))
    got = firsts(learner._groups)
    assert got == {state: pytest.approx([(a - mean) / std for a in own], abs=1e-4) for state, own in expected.items()}
    assert "explained_variance" in averages.result()


@pytest.mark.parametrize(
    ("algorithm", "train"),
    [("grpo", {"credit": "gigpo"}), ("grpo", {"credit": "trajectory", "epochs": 2}), ("ppo", PPO)],
)
def test_dropped_turns_have_their_share_in_the_credit_of_the_kept_ones(
    make_policy: MakePolicy,
    recipe: Recipe,
    make_example: MakeExample,
    script: Any,
    algorithm: str,
    train: dict[str, Any],
) -> None:
    found = []
    for most in (3, 1):
        policy = make_policy()
        script(policy, GOOD_AND_BAD)
        config = recipe(algorithm, **{**train, **GRPO, "states_per_example": most})
        learner = learner_of(policy, config)
        parts = learner.updates([State(make_example(4), FOUR)], Averages(), 1)
        assert {k for part in parts for k in part} == set(range(len(learner._groups)))
        for group in learner._groups:
            tokens = sum(group.lengths)
            assert len(group.advantages) == tokens
            assert len(group.old_logprobs) == (tokens if algorithm == "ppo" or "epochs" in train else 0)
            assert len(group.parsed) == len(group.rewards) == len(group.lengths)
        found.append([(group, k) for group in learner._groups for k in range(len(group.lengths))])
    whole, capped = found
    assert (len(whole), len(capped)) == (5, 2)  # one turn of each elimination
    for group, k in capped:
        same = [
            (other, n)
            for other, n in whole
            if other.state == group.state and other.pack.branches[n] == group.pack.branches[k]
        ]
        (other, n), *_ = same
        assert len(same) == 1
        own, theirs = (torch.split(g.advantages, g.lengths)[at] for g, at in ((group, k), (other, n)))
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize(
    ("algorithm", "train"), [("grpo", {"credit": "trajectory"}), ("grpo", {"credit": "gigpo"}), ("ppo", PPO)]
)
def test_a_step_raises_what_went_better(
    make_policy: MakePolicy,
    recipe: Recipe,
    make_example: MakeExample,
    script: Any,
    algorithm: str,
    train: dict[str, Any],
) -> None:
    policy = make_policy()
    script(policy, GOOD_AND_BAD)
    learner = learner_of(policy, recipe(algorithm, **train, **GRPO))
    state = State(make_example(4), FOUR)
    (part,) = learner.updates([state], Averages(), 0)
    shared = next(group for group in learner._groups if len(group.lengths) == 2)

    def logprobs() -> list[float]:
        with torch.no_grad():
            _, _, flat = policy.packed([shared.pack])
        return [float(own.mean()) for own in torch.split(flat, shared.lengths)]

    before = logprobs()
    learner.backward([state], part, Averages())
    if learner.critic is not None:
        assert learner.critic.head.weight.grad is not None
        assert float(learner.critic.head.weight.grad.norm()) > 0
    torch.optim.SGD(policy.parameters, lr=1e-3).step()
    change = [b - a for a, b in zip(before, logprobs(), strict=True)]
    assert change[0] > change[1]
    assert change[0] > 0


def test_parts_of_the_reward_can_be_left_out(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    policy = make_policy()
    # Both exclude Heat; the second reply is untidy: -1 for its layout.
    script(policy, ["Heat (1995)</answer>", "Heat (1995)</answer> and so on"])
    base = recipe("grpo", credit="gigpo", **GRPO)
    for weights, rewards in (({}, [1, 0]), ({"format": 0.0}, [1, 1]), ({"answer": 0.5}, [0.5, -0.5])):
        config = base.model_copy(update={"reward": base.reward.model_copy(update=weights)})
        learner = learner_of(policy, config)
        averages = Averages()
        learner.updates([State(make_example(2), ("c1", "c2"))], averages, 0)
        assert learner._groups[0].rewards == rewards
        result = averages.result()
        assert result["reward"] == pytest.approx(sum(rewards) / 2)
        assert (result["answer_reward"], result["format_reward"]) == (1, -0.5)  # as they were earned

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from wholeruns import assert_same, untimed, weights

from r1ranker.config import RunConfig
from r1ranker.llm.base import ScriptedLLM
from r1ranker.rankers import IRanker
from r1ranker.rl.eliminations import ReachedStates, eliminate, kept_turns
from r1ranker.rl.policy import Policy
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.scored import Scored
from r1ranker.rl.states import State
from r1ranker.rl.trainer import Trainer
from r1ranker.rollout import rank_all
from r1ranker.types import Completion, RankingExample, Request, Sampling

MakePolicy = Callable[..., Policy]
Recipe = Callable[..., RunConfig]
MakeExample = Callable[..., RankingExample]


class Starts:
    """The same states in every step."""

    def __init__(self, states: Sequence[State]) -> None:
        self.states = list(states)

    def at(self, step: int) -> list[State]:  # noqa: ARG002
        return self.states


def first(example: RankingExample) -> State:
    return State(example, example.ids)


def run(ranker: IRanker, starts: Sequence[State], script: Any) -> tuple[list[Any], ScriptedLLM]:
    llm = ScriptedLLM(script)
    ask = lambda state: ranker.request(state.example, state.remaining, excluded=state.excluded)  # noqa: E731
    return eliminate(starts, ranker, llm, ask, Sampling()), llm


# The driver


def test_eliminations_go_side_by_side_until_no_exclusion_is_better(make_example: MakeExample) -> None:
    four, three = make_example(4, id="a"), make_example(3, id="b")  # Toy Story (c1) is the positive of both
    ranker = IRanker(thinking=False)
    script = [
        *("Casablanca (1942)", "Toy Story (1995)"),  # b has only negatives left, and is over
        "Alien (1979)",
        "Heat (1995)",
    ]
    (a, b), llm = run(ranker, [first(four), first(three)], script)
    assert [turn.state.remaining for turn in a] == [("c1", "c2", "c3", "c4"), ("c1", "c2", "c4"), ("c1", "c2")]
    assert [turn.state.excluded for turn in a] == [None, ("c3",), ("c3", "c4")]
    assert [turn.parsed.ids for turn in a] == [("c3",), ("c4",), ("c2",)]
    assert [turn.state.remaining for turn in b] == [("c1", "c2", "c3")]
    assert [r.session for r in llm.requests] == [f"elimination {k}" for k in (0, 1, 0, 0)]


def test_with_grades_it_goes_on_while_the_grades_left_differ(make_example: MakeExample) -> None:
    example = make_example(4, positives={"c1": 2.0, "c2": 1.0})
    script = ["Toy Story (1995)", "Heat (1995)"]  # then Casablanca and Alien are left, both 0
    (only,), _ = run(IRanker(thinking=False), [first(example)], script)
    assert [turn.state.remaining for turn in only] == [("c1", "c2", "c3", "c4"), ("c2", "c3", "c4")]


def test_an_answer_that_names_none_excludes_the_last_one_listed(make_example: MakeExample) -> None:
    example = make_example(3)
    (only,), _ = run(IRanker(thinking=True), [first(example)], ["blah", "so</think><answer>Heat (1995)</answer>"])
    assert [turn.state.remaining for turn in only] == [("c1", "c2", "c3"), ("c1", "c2")]
    assert [turn.parsed.status for turn in only] == ["failed", "exact"]


@pytest.mark.parametrize("layout", ["append", "rebuild"])
def test_its_prompts_are_those_of_a_ranking(make_example: MakeExample, layout: Any) -> None:
    example = make_example(5)
    ranker = IRanker(thinking=False, layout=layout)
    script = ["Vertigo (1958)", "Heat (1995)", "Alien (1979)", "Casablanca (1942)"]
    trace = rank_all(ranker, [example], ScriptedLLM(script))[0]
    (only,), _ = run(ranker, [first(example)], script)
    assert [turn.request.prompt for turn in only] == [turn.request.prompt for turn in trace.turns]
    assert len(only) == 4


def test_a_state_is_learned_from_by_the_prompt_that_reached_it(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample
) -> None:
    """With append a prompt tells the order of exclusion, which a set of candidates has not."""
    config = recipe(ranker={"layout": "append"})
    policy, ranker = make_policy(), config.ranker.build(None)
    assert isinstance(ranker, IRanker)
    script = ["Alien (1979)", "Casablanca (1942)", "Heat (1995)"]
    (only,), _ = run(ranker, [first(make_example(4))], script)
    for learner in (Scored(policy, ranker, config), Sampled(policy, ranker, recipe("grpo"))):
        for turn in only:
            if isinstance(learner, Scored):
                assert learner._pack(turn.state).trunk == policy.llm.chat.encode(turn.request.prompt)
            else:
                assert learner._request(turn.state).prompt == turn.request.prompt
    assert only[2].state.excluded == ("c4", "c3")


def test_every_turn_draws_anew(make_example: MakeExample) -> None:
    seeds: list[int] = []

    class Watching(ScriptedLLM):
        def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
            seeds.append(sampling.seed)
            return super().complete(requests, sampling)

    ranker = IRanker(thinking=False)
    example = make_example(4)
    ask = lambda state: ranker.request(state.example, state.remaining)  # noqa: E731
    for seed in (0, 0, 1):
        llm = Watching(["Alien (1979)", "Casablanca (1942)", "Heat (1995)"])
        eliminate([first(example)], ranker, llm, ask, Sampling(seed=seed))
    assert seeds[:3] == seeds[3:6]
    assert len(set(seeds)) == 6


# What is kept


def test_at_most_so_many_turns_are_kept_and_each_alike(recipe: Recipe) -> None:
    config = recipe(states="on_policy", states_per_example=2, states_per_step=2)
    drawn = [kept_turns([4, 2, 1], config, step) for step in range(1200)]
    assert kept_turns([4, 2, 1], config, 5) == drawn[5]
    assert all(own[1:] == [[0, 1], [0]] for own in drawn)
    pairs = Counter(tuple(own[0]) for own in drawn)
    # Six pairs of four turns: 200 each, sd 13.
    assert sorted(pairs) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert all(145 < count < 255 for count in pairs.values()), pairs


def test_eliminations_of_an_example_keep_the_same_places(recipe: Recipe) -> None:
    """Drawn from each by itself, the first turn of one that ends at once would count four times as often."""
    config = recipe(states="on_policy", states_per_example=1, states_per_step=2)
    drawn = [kept_turns([4, 1, 3, 2, 2, 2], config, step, together=3) for step in range(1200)]
    first = Counter(place for own in drawn for place in own[0])
    assert sorted(first) == [0, 1, 2, 3]
    assert all(245 < count < 355 for count in first.values()), first  # 300 each, sd 15
    for own in drawn:
        (place,) = own[0]
        assert own[:3] == [[place], [place] if place < 1 else [], [place] if place < 3 else []]
        assert own[3] == own[4] == own[5] != []


# The states that the policy reaches


@pytest.mark.parametrize(
    ("ranker", "temperature"),
    [
        ({"sharpness": 40.0}, 1.0),  # of scored labels the policy is the softmax of sharpness times scores
        ({"constrained": True}, 2.0),
    ],
)
def test_all_actions_learns_from_what_its_own_policy_reaches(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, ranker: dict[str, Any], temperature: float
) -> None:
    """Of 600 eliminations of one example the second states come as often as the policy excludes each candidate."""
    example = make_example(4)
    policy = make_policy()
    config = recipe(
        states="on_policy", states_per_step=600, states_per_example=3, ranker=ranker, temperature=temperature
    )
    built = config.ranker.build(None)
    assert isinstance(built, IRanker)
    reached = ReachedStates(Starts([first(example)] * 600), built, policy.llm, config)
    states = reached.at(0)
    request = built.request(example, example.ids)
    completion = policy.llm.complete([replace(request, scored=built.constrained)], Sampling())[0]
    sharpness = 1 / temperature if built.constrained else 40.0
    expected = (torch.tensor(completion.choice_logprobs) * sharpness).softmax(0)
    assert float(expected.max()) > 0.3  # not the uniform policy
    after = Counter(s.excluded[0] for s in states if s.excluded is not None and len(s.excluded) == 1)
    # Where the positive goes first, nothing follows.
    for k, name in enumerate(example.ids[1:], start=1):
        p = float(expected[k])
        assert abs(after[name] - 600 * p) < 4 * (600 * p * (1 - p)) ** 0.5 + 1, (after, expected)
    assert after["c1"] == 0
    assert sum(s.excluded is None for s in states) == 600
    assert all(s.undecided for s in states)
    policy.llm.weights_changed()  # as after every optimizer step: what is kept of prompts changes the last bits
    assert reached.at(0) == states
    assert reached.at(1) != states


def test_sampled_learners_reach_states_by_written_replies(
    make_policy: MakePolicy, recipe: Recipe, make_example: MakeExample, script: Any
) -> None:
    policy = make_policy()
    config = recipe("grpo", states="on_policy", states_per_step=6, states_per_example=3)
    calls = script(policy, ["Heat (1995)</answer>", "Alien (1979)</answer>", "Casablanca (1942)</answer>"])
    ranker = config.ranker.build(None)
    assert isinstance(ranker, IRanker)
    states = ReachedStates(Starts([first(make_example(4))]), ranker, policy.llm, config).at(0)
    assert [s.remaining for s in states] == [("c1", "c2", "c3", "c4"), ("c1", "c3", "c4"), ("c1", "c3")]
    assert all(request.choices == () for call in calls for request in call)


# Whole runs


@pytest.fixture
def make_trainer(make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample]) -> Callable[..., Trainer]:
    def make(folder: Path, settings: dict[str, Any], **train: Any) -> Trainer:
        config = recipe(**{"checkpoint_every": 100, "states": "on_policy", **settings, **train})
        return Trainer(config, make_policy(), examples, folder)

    return make


RUNS = {
    "all_actions": {"states_per_step": 4, "states_per_example": 2, "ranker": {"layout": "append", "sharpness": 20.0}},
    "all_actions, trajectory": {"states_per_step": 4, "states_per_example": 2, "credit": "trajectory"},
    "gigpo": {
        "algorithm": "grpo",
        "credit": "gigpo",
        "states_per_step": 4,
        "states_per_example": 2,
        "group_size": 2,
        "minibatch_states": 3,
        "turn_gamma": 0.9,
    },
    "trajectory": {
        "algorithm": "ppo",
        "credit": "trajectory",
        "states_per_step": 4,
        "states_per_example": 2,
        "critic": "head",
        "gae_lambda": 0.9,
        "kl_coef": 0.05,
    },
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_run_that_never_stopped(
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    letters_reward: Any,
    name: str,
) -> None:
    monkeypatch.setattr(Sampled, "_reward", letters_reward)
    settings = {"thinking": "algorithm" in RUNS[name], **RUNS[name]}
    whole = make_trainer(tmp_path / "whole", settings, steps=3)
    start = weights(whole)
    rows = whole.run()
    part = make_trainer(tmp_path / "parts", settings, steps=1)
    part.run()
    second = make_trainer(tmp_path / "parts", settings, steps=3)
    resumed = second.run(resume=True)
    for a, b in zip(untimed(resumed), untimed(rows), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    assert len({row["reward"] for row in rows}) > 2
    assert_same(weights(second), weights(whole))
    for before in (start, weights(part)):  # something is learned, also after step 1
        assert any(float((w - weights(whole)[n]).abs().max()) > 1e-5 for n, w in before.items())


@pytest.mark.parametrize("name", ["all_actions", "all_actions, trajectory"])
def test_a_step_has_the_turns_of_as_many_examples_as_fit(
    make_trainer: Callable[..., Trainer], tmp_path: Path, name: str
) -> None:
    trainer = make_trainer(tmp_path, RUNS[name] | {"states_per_step": 6, "states_per_example": 3}, steps=1)
    states = trainer.training.stream.at(0)
    assert any(s.excluded for s in states)  # turns that were reached, not random subsets
    assert len({s.example.id for s in states}) == 2
    assert 2 <= len(states) <= 6
    trainer.policy.llm.weights_changed()
    assert trainer.training.stream.at(0) == states

"""Tiny tasks that a random model must learn in seconds: the whole loop, from states to optimizer steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from r1ranker.config import RunConfig
from r1ranker.firststep import FirstStep
from r1ranker.rl.policy import Policy
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.trainer import Trainer
from r1ranker.rollout import rollout
from r1ranker.types import RankingExample, Sampling

MakePolicy = Callable[..., Policy]
Recipe = Callable[..., RunConfig]


def test_all_actions_learns_what_is_bad(
    make_policy: MakePolicy, recipe: Recipe, good_or_bad: Callable[..., list[RankingExample]], tmp_path: Path
) -> None:
    train = good_or_bad(24, ["tea", "sea", "rye", "ink", "oak", "elm", "fig"])
    test = good_or_bad(12, ["bee", "cod", "hen", "yak", "owl"])
    config = recipe("all_actions", steps=30, states_per_step=6, learning_rate=3e-3, checkpoint_every=100)
    policy = make_policy()
    ranker = config.ranker.build(None)

    def rr() -> float:
        ranks = {k: trace.ranking for k, trace in rollout(ranker, test, policy.llm, Sampling())}
        return mean(1 / (1 + ranks[k].index(next(iter(e.relevance)))) for k, e in enumerate(test))

    before = rr()
    rows = Trainer(config, policy, train, tmp_path).run()
    gain = [row["reward"] - row["reward_uniform"] for row in rows]
    # Excluding at random earns 1/2 or 2/3; excluding a bad one always earns 1, that is 0.42 more on average.
    assert mean(gain[:3]) < 0.2
    assert mean(gain[-5:]) > 0.35
    assert before < 0.85
    assert rr() > 0.95  # on words it has not seen; at random (1 + 1/2 + 1/3) / 3 = 0.61


def test_listwise_learns_what_is_good(
    make_policy: MakePolicy, recipe: Recipe, good_or_bad: Callable[..., list[RankingExample]], tmp_path: Path
) -> None:
    train = good_or_bad(24, ["tea", "sea", "rye", "ink", "oak", "elm", "fig"])
    test = good_or_bad(12, ["bee", "cod", "hen", "yak", "owl"])
    config = recipe("listwise", states="whole", steps=20, states_per_step=6, learning_rate=3e-3, checkpoint_every=100)
    policy = make_policy()
    rows = Trainer(config, policy, train, tmp_path).run()
    assert [row["choices"] for row in rows] == [3.0] * 20  # whole lists
    assert mean(row["loss"] for row in rows[:3]) > 0.5
    assert mean(row["loss"] for row in rows[-3:]) < 0.1
    first_step = FirstStep()
    ranks = {k: trace.ranking for k, trace in rollout(first_step, test, policy.llm, Sampling())}
    # On words it has not seen; one in three stands first by chance.
    assert [ranks[k][0] for k in range(12)] == [next(iter(e.relevance)) for e in test]


@pytest.mark.parametrize(
    ("algorithm", "train"),
    [
        ("grpo", {"group_size": 8}),
        ("ppo", {"group_size": 8, "critic": "separate", "critic_learning_rate": 3e-3}),
        ("ppo", {"group_size": 4, "critic": "head", "critic_learning_rate": 3e-2, "minibatch_states": 2, "epochs": 2}),
    ],
)
def test_sampled_completions_learn_to_write_letters(
    make_policy: MakePolicy,
    recipe: Recipe,
    examples: list[RankingExample],
    monkeypatch: pytest.MonkeyPatch,
    letters_reward: Any,
    tmp_path: Path,
    algorithm: str,
    train: dict[str, Any],
) -> None:
    monkeypatch.setattr(Sampled, "_reward", letters_reward)
    config = recipe(
        algorithm,
        thinking=True,
        ranker={"max_tokens": 6},
        steps=25,
        states_per_step=4,
        learning_rate=4e-3,
        kl_coef=0.001,
        checkpoint_every=100,
        **train,
    )
    rows = Trainer(config, make_policy(), examples, tmp_path).run()
    rewards = [row["reward"] for row in rows]
    assert mean(rewards[-5:]) > mean(rewards[:5]) + 0.3, rewards
    assert mean(rewards[-5:]) > 0.6, rewards
    assert rows[-1]["kl"] > 0.01
    if algorithm == "ppo":
        assert all("explained_variance" in row and "value_loss" in row for row in rows)

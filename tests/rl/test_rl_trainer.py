from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from wholeruns import assert_same, untimed, weights

from r1ranker.checkpoint import Checkpoint, complete_checkpoints, load_checkpoint, save_checkpoint
from r1ranker.config import RunConfig
from r1ranker.errors import CheckpointError, ConfigError, InputError, TrainingError
from r1ranker.rewards import Reward
from r1ranker.rl.loop import load_same_run
from r1ranker.rl.metrics import MetricsLog, read_metrics
from r1ranker.rl.policy import Policy
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.states import State
from r1ranker.rl.trainer import Trainer
from r1ranker.types import Completion, ParsedAnswer, RankingExample

MakePolicy = Callable[..., Policy]
Recipe = Callable[..., RunConfig]

ALL_ACTIONS: dict[str, Any] = {"algorithm": "all_actions", "kl_coef": 0.05, "warmup_steps": 4, "weight_decay": 0.01}
PPO: dict[str, Any] = {
    "algorithm": "ppo",
    "thinking": True,
    "kl_coef": 0.05,
    "critic": "separate",
    "minibatch_states": 2,
    "epochs": 2,
    "gae_lambda": 0.9,
}
PPO_HEAD = PPO | {"critic": "head"}
GRPO: dict[str, Any] = {"algorithm": "grpo", "thinking": True, "kl_coef": 0.05}
LORA = ALL_ACTIONS | {"model": {"lora_rank": 2, "frozen_layers": 1}}


@pytest.fixture(autouse=True)
def _reward_that_varies(monkeypatch: pytest.MonkeyPatch, letters_reward: Any) -> None:
    """A random model never earns the real one: all its completions are alike and nothing would be learned."""
    monkeypatch.setattr(Sampled, "_reward", letters_reward)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell that runs the tests in the background has it ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.fixture
def make_trainer(make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample]) -> Callable[..., Trainer]:
    """make_trainer(folder, settings, on_step=..., **train): a new policy and its trainer, as a new process has."""

    def make(folder: Path, settings: dict[str, Any] | None = None, *, on_step: Any = None, **train: Any) -> Trainer:
        config = recipe(**{"states_per_step": 3, "checkpoint_every": 100, **(settings or ALL_ACTIONS), **train})
        model = config.model.model_dump(include={"lora_rank", "frozen_layers"})
        return Trainer(config, make_policy(**model), examples, folder, on_step=on_step)

    return make


# What it learns from


@pytest.mark.parametrize("context", [None, 4096])
def test_documents_are_cut_to_the_limit_of_the_recipe(
    make_policy: MakePolicy,
    recipe: Recipe,
    make_example: Callable[..., RankingExample],
    tmp_path: Path,
    context: int | None,
) -> None:
    policy = make_policy()
    policy.llm.context_tokens = context
    plain = make_example(3)
    long = replace(plain, candidates=(replace(plain.candidates[0], text="whale " * 50), *plain.candidates[1:]))
    whole = Trainer(recipe(**ALL_ACTIONS), policy, [plain, long], tmp_path)
    assert (whole.examples, whole.truncated) == ([plain, long], 0)
    limited = Trainer(recipe(**ALL_ACTIONS, ranker={"document_tokens": 24}), policy, [plain, long], tmp_path)
    assert limited.truncated == 1
    cut = limited.examples[1].candidates[0].text
    assert limited.examples[0] == plain
    assert cut.startswith("whale")
    assert cut.endswith("…")
    assert limited.policy.llm.count_tokens(cut) <= 24


# What a run leaves behind


def test_a_run_writes_config_metrics_curve_and_checkpoints(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    told: list[tuple[int, int, dict[str, float]]] = []
    trainer = make_trainer(
        tmp_path / "run",
        steps=5,
        checkpoint_every=1,
        keep_checkpoints=2,
        on_step=lambda done, steps, metrics: told.append((done, steps, metrics)),
    )
    start = weights(trainer)
    rows = trainer.run()
    assert any(not torch.equal(start[n], w) for n, w in weights(trainer).items())
    folder = tmp_path / "run"
    assert json.loads((folder / "config.json").read_text()) == trainer.config.model_dump(mode="json")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [(done, steps) for done, steps, _ in told] == [(k, 5) for k in range(1, 6)]
    assert told[2][2]["reward"] == rows[2]["reward"]
    for row in rows:
        assert {"reward", "reward_uniform", "entropy", "kl", "grad_norm", "tokens", "seconds"} <= row.keys()
        assert 0 <= row["reward"] <= 1
        assert row["grad_norm"] > 0
    # A linear warm-up over 4 steps to 1e-3, then constant.
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])
    assert [p.name for p in complete_checkpoints(folder / "checkpoints")] == ["step-000004", "step-000005"]
    assert (folder / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert not trainer.policy.model.training


def test_the_last_step_is_always_kept(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    make_trainer(tmp_path, steps=5, checkpoint_every=2, keep_checkpoints=9).run()
    names = [p.name for p in complete_checkpoints(tmp_path / "checkpoints")]
    assert names == ["step-000002", "step-000004", "step-000005"]


@pytest.mark.parametrize("settings", [PPO, PPO_HEAD, GRPO, LORA], ids=["ppo", "ppo-head", "grpo", "lora"])
def test_a_step_moves_what_trains_and_leaves_the_rest(
    make_trainer: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any]
) -> None:
    trainer = make_trainer(tmp_path, settings, steps=3)
    start = weights(trainer)
    rows = trainer.run()
    trains = {n for n, p in trainer.policy.model.named_parameters() if p.requires_grad}
    if trainer.training.critic is not None:  # all but the head over the vocabulary, which values do not need
        trains |= {f"critic.{n}" for n, p in trainer.training.critic.named_parameters() if "lm_head" not in n}
    moved = {n for n, w in weights(trainer).items() if not torch.equal(w, start[n])}
    assert moved == trains
    assert len(trains) > 10
    assert all(row["grad_norm"] < 1e4 for row in rows)
    assert ("critic_grad_norm" in rows[0]) == (trainer.training.critic is not None)


def test_kept_prefixes_are_dropped_when_the_weights_change(
    make_trainer: Callable[..., Trainer], tmp_path: Path, examples: list[RankingExample]
) -> None:
    trainer = make_trainer(tmp_path, steps=1)
    assert hasattr(trainer.ranker, "request")
    request = trainer.ranker.request(examples[0], examples[0].ids)  # type: ignore[call-arg]
    from r1ranker.types import Sampling

    llm = trainer.policy.llm
    before = llm.complete([request], Sampling())[0].choice_logprobs
    trainer.take_step(3)
    after = llm.complete([request], Sampling())[0]
    assert after.cached_tokens == 0
    assert after.choice_logprobs != before


def test_the_gradient_is_clipped(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=1, grad_clip=1e-3)
    row = trainer.take_step(0)
    assert row["grad_norm"] > 1e-2  # as it was before
    clipped = torch.cat([p.grad.flatten() for p in trainer.policy.parameters if p.grad is not None])
    assert float(clipped.norm()) == pytest.approx(1e-3, rel=1e-2)


# What is not finite


def spoil(trainer: Trainer, step: int, what: str) -> None:
    """In that step (from 1) the loss is none, or the gradient of the last weights (the critic's, if there is one)."""
    learner = trainer.training.learner
    backward = learner.backward

    def spoiled(states: Any, part: Any, averages: Any) -> None:
        backward(states, part, averages)
        if trainer.step == step - 1 and what == "loss":
            averages.add("loss", float("inf"))
        elif trainer.step == step - 1:
            critic = trainer.training.critic
            parameters = trainer.policy.parameters if critic is None else list(critic.parameters())
            assert parameters[-1].grad is not None
            parameters[-1].grad.view(-1)[0] = float("nan")

    learner.backward = spoiled  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("settings", "what", "told"),
    [
        (ALL_ACTIONS, "gradient", "grad_norm is nan"),
        (ALL_ACTIONS, "loss", "loss is inf"),
        (PPO, "gradient", "critic_grad_norm is nan"),
    ],
)
def test_a_run_that_diverges_stops_before_anything_of_the_step_is_kept(
    make_trainer: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any], what: str, told: str
) -> None:
    if what == "gradient" and settings is PPO:
        settings = settings | {"minibatch_states": None, "epochs": 1}
    folder, before = tmp_path / "run", dict[str, Any]()

    def watched(done: int, *_: Any) -> None:
        if done == 3:
            before.update(weights(trainer))

    trainer = make_trainer(folder, settings, steps=6, checkpoint_every=2, on_step=watched)
    spoil(trainer, 4, what)
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    message = str(caught.value)
    kept = folder / "checkpoints" / "step-000002"
    assert message.startswith(
        f"step 4 of 6 diverged: its {told}. Nothing of it is written; r1ranker model save {kept} --out FOLDER makes"
    )
    assert "lower train.learning_rate" in message
    assert_same(weights(trainer), before)  # the optimizer took no such step
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == [1, 2, 3]
    assert complete_checkpoints(folder / "checkpoints") == [kept]


def test_a_learning_rate_that_is_much_too_high_diverges(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"step \d of 9 diverged: its (loss|grad_norm) is .*no checkpoint is kept yet"
    ):
        make_trainer(tmp_path, steps=9, learning_rate=1e30, warmup_steps=0).run()
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert not (tmp_path / "checkpoints").exists()


def test_what_is_no_number_is_left_out_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5, "explained_variance": NaN}\n')
    log = MetricsLog(tmp_path, first_step=2)  # as an earlier version may have written it
    log.write({"step": 2, "reward": float("nan"), "kl": float("inf"), "tokens": 3.0})
    log.write({"step": 3, "reward": 0.75, "kl": 0.0, "tokens": 3.0})
    assert log.plot(tmp_path / "reward.png", "a title")
    log.close()
    assert log.rows == read_metrics(tmp_path / "metrics.jsonl")
    assert log.rows == [
        {"step": 1, "reward": 0.5},
        {"step": 2, "tokens": 3.0},
        {"step": 3, "reward": 0.75, "kl": 0.0, "tokens": 3.0},
    ]


# Sampled replies that are kept


def kept_replies(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def test_sampled_replies_are_kept_and_change_nothing(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    plain = make_trainer(tmp_path / "plain", GRPO, steps=3)
    rows = plain.run()
    assert not (tmp_path / "plain" / "completions.jsonl").exists()
    telling = make_trainer(tmp_path / "telling", GRPO, steps=3, log_completions=5)
    assert untimed(telling.run()) == untimed(rows)
    for name, weight in weights(telling).items():
        assert torch.equal(weight, weights(plain)[name])
    told = kept_replies(tmp_path / "telling")
    assert [reply["step"] for reply in told] == [1] * 5 + [2] * 5 + [3] * 5
    every = make_trainer(tmp_path / "every", GRPO, steps=1, log_completions=99)
    (row,) = every.run()
    own = kept_replies(tmp_path / "every")
    assert len(own) == 3 * 4  # states, and replies of each
    assert own[:5] == told[:5]
    assert row["reward"] == pytest.approx(sum(reply["reward"] for reply in own) / 12)
    assert row["answer_reward"] == pytest.approx(sum(reply["parts"]["answer"] for reply in own) / 12)
    assert sum(reply["finish"] == "length" for reply in own) / 12 == pytest.approx(row["cut_off"])
    for k in (0, 4, 8):
        assert sum(reply["advantage"] for reply in own[k : k + 4]) == pytest.approx(0, abs=1e-4)


def test_a_resumed_run_drops_the_replies_of_steps_that_it_takes_again(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, *_: Any) -> None:
        if done == 3:
            raise Killed

    make_trainer(tmp_path / "whole", GRPO, steps=4, log_completions=2).run()
    with pytest.raises(Killed):
        make_trainer(tmp_path / "run", GRPO, steps=4, checkpoint_every=2, log_completions=2, on_step=kill).run()
    assert [reply["step"] for reply in kept_replies(tmp_path / "run")] == [1, 1, 2, 2, 3, 3]
    make_trainer(tmp_path / "run", GRPO, steps=4, log_completions=2).run(resume=True)
    assert kept_replies(tmp_path / "run") == kept_replies(tmp_path / "whole")
    make_trainer(tmp_path / "run", GRPO, steps=5, log_completions=1).run(resume=True)  # it is free to change
    assert [reply["step"] for reply in kept_replies(tmp_path / "run")] == [1, 1, 2, 2, 3, 3, 4, 4, 5]


# An own reward function


def by_length(state: State, parsed: ParsedAnswer, completion: Completion) -> Reward:  # noqa: ARG001
    return Reward(float(len(completion.text)))


def test_a_run_with_an_own_reward_function_goes_on_with_it_alone(
    make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample], tmp_path: Path
) -> None:
    def train(steps: int, reward: Any, *, resume: bool) -> list[dict[str, float]]:
        config = recipe(**GRPO, states_per_step=3, steps=steps, log_completions=2)
        return Trainer(config, make_policy(), examples, tmp_path, reward=reward).run(resume=resume)

    train(1, by_length, resume=False)
    for reply in kept_replies(tmp_path):
        assert reply["reward"] == len(reply["reply"].removeprefix("<think>"))
    assert json.loads((tmp_path / "inputs.json").read_text())["rewards"] == f"{__name__}.by_length"
    for other in (None, lambda *_: Reward(1.0)):
        with pytest.raises(CheckpointError, match="the rewards are others than when the run began"):
            train(2, other, resume=True)
    assert [row["step"] for row in train(2, by_length, resume=True)] == [1, 2]
    # What a run before there were such functions wrote tells none.
    before = {k: v for k, v in json.loads((tmp_path / "inputs.json").read_text()).items() if k != "rewards"}
    (tmp_path / "inputs.json").write_text(json.dumps(before))
    with pytest.raises(CheckpointError, match="the rewards are others"):
        train(3, by_length, resume=True)
    assert len(train(3, None, resume=True)) == 3


def test_all_actions_has_no_use_for_a_reward_function(
    make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"judges sampled replies, and .*'all_actions' samples none"):
        Trainer(recipe(**ALL_ACTIONS), make_policy(), examples, tmp_path, reward=by_length)


# Repeating and resuming


@pytest.mark.parametrize("settings", [ALL_ACTIONS, PPO], ids=["all_actions", "ppo"])
def test_the_same_seed_gives_the_same_run_and_another_does_not(
    make_trainer: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any]
) -> None:
    a, b, c = (make_trainer(tmp_path / f"{k}", settings, steps=3, seed=s) for k, s in enumerate((0, 0, 1)))
    assert untimed(a.run()) == untimed(b.run())
    c.run()
    assert_same(weights(a), weights(b))
    assert any(float((w - weights(c)[n]).abs().max()) > 1e-5 for n, w in weights(a).items())


@pytest.mark.parametrize(
    "settings", [ALL_ACTIONS, PPO, PPO_HEAD, GRPO, LORA], ids=["all_actions", "ppo", "ppo-head", "grpo", "lora"]
)
def test_a_resumed_run_is_the_run_that_never_stopped(
    make_trainer: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = make_trainer(tmp_path / "whole", settings, steps=6)
    rows = whole.run()
    first = make_trainer(tmp_path / "parts", settings, steps=3)
    first.run()
    second = make_trainer(tmp_path / "parts", settings, steps=6)
    resumed = second.run(resume=True)
    assert second.step == 6
    assert [row["step"] for row in resumed] == [1, 2, 3, 4, 5, 6]
    assert read_metrics(tmp_path / "parts" / "metrics.jsonl") == resumed
    for a, b in zip(untimed(resumed), untimed(rows), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    assert [row["reward"] for row in resumed] == [row["reward"] for row in rows]
    assert len({row["reward"] for row in rows}) > 3
    assert_same(weights(second), weights(whole))
    # Not for the reason that nothing happens after step 3.
    assert any(float((w - weights(whole)[n]).abs().max()) > 1e-4 for n, w in weights(first).items())


def test_a_finished_run_can_be_resumed_without_a_step(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    first = make_trainer(tmp_path, steps=2)
    rows = first.run()
    again = make_trainer(tmp_path, steps=2)
    assert again.run(resume=True) == rows
    assert_same(weights(again), weights(first))


def test_a_run_is_not_overwritten(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    make_trainer(tmp_path, steps=2).run()
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(CheckpointError, match=r"holds a run at step 2: go on with --resume"):
        make_trainer(tmp_path, steps=4).run()
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert [p.name for p in complete_checkpoints(tmp_path / "checkpoints")] == ["step-000002"]


def test_nothing_to_resume_is_an_error(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume: train without --resume"):
        make_trainer(tmp_path / "new", steps=2).run(resume=True)


def test_a_run_does_not_go_on_with_other_examples_or_other_wording(
    make_trainer: Callable[..., Trainer], examples: list[RankingExample], tmp_path: Path
) -> None:
    words = tmp_path / "words.toml"
    words.write_text('[answer]\nyes = "yes"\n', encoding="utf-8")
    settings = {"ranker": {"templates": str(words)}}
    make_trainer(tmp_path / "run", steps=2, **settings).run()
    other = make_trainer(tmp_path / "run", steps=3, **settings)
    other.examples = examples[1:]
    with pytest.raises(CheckpointError, match="run: the training examples are others than when the run began"):
        other.run(resume=True)
    words.write_text('[answer]\nyes = "aye"\n', encoding="utf-8")
    with pytest.raises(CheckpointError, match="run: the templates are others than when the run began"):
        make_trainer(tmp_path / "run", steps=3, **settings).run(resume=True)
    words.write_text('[answer]\nyes = "yes"\n', encoding="utf-8")
    assert len(make_trainer(tmp_path / "run", steps=3, **settings).run(resume=True)) == 3


@pytest.mark.parametrize("text", ["{", "[1]", "null"])
def test_a_record_of_inputs_that_cannot_be_read_is_named(
    make_trainer: Callable[..., Trainer], tmp_path: Path, text: str
) -> None:
    make_trainer(tmp_path, steps=1).run()
    (tmp_path / "inputs.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"inputs\.json cannot be read .*: delete it to go on without its check"):
        make_trainer(tmp_path, steps=2).run(resume=True)
    (tmp_path / "inputs.json").unlink()
    assert len(make_trainer(tmp_path, steps=2).run(resume=True)) == 2


def test_a_run_is_not_resumed_to_fewer_steps_than_it_has(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    make_trainer(tmp_path, steps=3).run()
    with pytest.raises(CheckpointError, match=r"has 3 steps, and train\.steps is 2: resume with as many or more"):
        make_trainer(tmp_path, steps=2).run(resume=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"learning_rate": 5e-4}, "train.learning_rate = 0.001, the recipe now says 0.0005"),
        ({"seed": 3}, "seed = 0, the recipe now says 3"),
        ({"ranker": {"sharpness": 2.0}}, "ranker.sharpness = 3.0, the recipe now says 2.0"),
        ({"states_per_step": 4}, "train.states_per_step = 3"),
        ({"model": {"frozen_layers": 1}}, "model.frozen_layers = 0"),
    ],
)
def test_a_changed_recipe_is_not_resumed(
    make_trainer: Callable[..., Trainer], tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    make_trainer(tmp_path, steps=1).run()
    with pytest.raises(CheckpointError) as caught:
        make_trainer(tmp_path, steps=2, **changed).run(resume=True)
    assert named in str(caught.value)


def test_settings_that_came_after_a_checkpoint_have_their_defaults(recipe: Recipe, tmp_path: Path) -> None:
    config = recipe()
    before = config.model_dump(mode="json")
    del before["reward"], before["train"]["states"], before["train"]["credit"], before["train"]["log_completions"]
    before["train"] |= {"scale_rewards": False, "group_size": 8}  # saved whatever the algorithm, and not read
    path = save_checkpoint(tmp_path, Checkpoint(1, {}, before), keep=1)
    assert load_same_run(path, config).step == 1
    with pytest.raises(CheckpointError, match=r"train\.states = 'subsets', the recipe now says 'on_policy'"):
        load_same_run(path, recipe(states="on_policy"))
    before["train"]["stepz"] = 3
    path = save_checkpoint(tmp_path, Checkpoint(2, {}, before), keep=1)
    with pytest.raises(CheckpointError, match="a recipe that this version does not read"):
        load_same_run(path, config)


@pytest.mark.parametrize("changed", [{"steps": 3}, {"steps": 2, "checkpoint_every": 1, "keep_checkpoints": 5}])
def test_what_leaves_the_steps_alone_may_change(
    make_trainer: Callable[..., Trainer], tmp_path: Path, changed: dict[str, Any]
) -> None:
    make_trainer(tmp_path, steps=1).run()
    trainer = make_trainer(tmp_path, **changed)
    trainer.run(resume=True)
    assert trainer.step == changed["steps"]


def test_what_is_trained_drops_nothing_out(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, steps=1)
    modes: list[bool] = []
    take = trainer.training.take_step

    def watched(step: int) -> dict[str, float]:
        modes.extend(module.training for module in trainer.policy.model.modules())
        return take(step)

    monkeypatch.setattr(trainer.training, "take_step", watched)
    trainer.run()
    assert modes
    assert not any(modes)


def test_the_learning_rate_falls_over_the_last_steps(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    # Up in two steps, then 1e-3; over the last three it falls by quarters.
    make_trainer(tmp_path, warmup_steps=2, steps=3, decay_steps=0).run()
    # Nothing has fallen by step 3, so how it will may still be said.
    rows = make_trainer(tmp_path, warmup_steps=2, steps=6, decay_steps=3, checkpoint_every=4).run(resume=True)
    rates = [0.5e-3, 1e-3, 1e-3, 0.75e-3, 0.5e-3, 0.25e-3]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    for changed in ({"steps": 9}, {"decay_steps": 1}):
        again = make_trainer(tmp_path, **{"warmup_steps": 2, "steps": 6, "decay_steps": 3, **changed})
        with pytest.raises(CheckpointError, match="the learning rate has begun to fall"):
            again.run(resume=True)
    assert make_trainer(tmp_path, warmup_steps=2, steps=6, decay_steps=3).run(resume=True) == rows


@pytest.mark.parametrize("settings", [ALL_ACTIONS, PPO], ids=["all_actions", "ppo"])
def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(
    make_trainer: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any]
) -> None:
    def stop(done: int, *_: Any) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "parts", settings, steps=4, on_step=stop).run()
    found = complete_checkpoints(tmp_path / "parts" / "checkpoints")
    assert [p.name for p in found] == ["step-000002"]
    assert load_checkpoint(found[0]).step == 2
    assert (tmp_path / "parts" / "reward.png").exists()
    resumed = make_trainer(tmp_path / "parts", settings, steps=4)
    rows = resumed.run(resume=True)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    whole = make_trainer(tmp_path / "whole", settings, steps=4)
    whole.run()
    assert_same(weights(resumed), weights(whole))


def press_ctrl_c_in_step(trainer: Trainer, step: int, *, times: int, sent: int = signal.SIGINT) -> None:
    """The signal comes while the gradients of that step (from 1) are computed, after which the step goes on."""
    backward = trainer.training.learner.backward
    pressed = 0

    def interrupted(*arguments: Any) -> None:
        nonlocal pressed
        while trainer.step == step - 1 and pressed < times:
            pressed += 1
            signal.raise_signal(sent)
        backward(*arguments)

    trainer.training.learner.backward = interrupted  # type: ignore[method-assign]


@pytest.mark.parametrize("settings", [ALL_ACTIONS | {"minibatch_states": 1}, PPO], ids=["all_actions", "ppo"])
def test_ctrl_c_within_a_step_waits_for_its_end(
    make_trainer: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any]
) -> None:
    usual = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tmp_path / "parts", settings, steps=4)
    press_ctrl_c_in_step(trainer, 2, times=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) is usual
    assert [p.name for p in complete_checkpoints(tmp_path / "parts" / "checkpoints")] == ["step-000002"]
    assert [row["step"] for row in read_metrics(tmp_path / "parts" / "metrics.jsonl")] == [1, 2]
    resumed = make_trainer(tmp_path / "parts", settings, steps=4)
    assert [row["step"] for row in resumed.run(resume=True)] == [1, 2, 3, 4]
    whole = make_trainer(tmp_path / "whole", settings, steps=4)
    whole.run()
    assert_same(weights(resumed), weights(whole))


def test_a_second_ctrl_c_stops_at_once_and_keeps_the_last_checkpoint(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    usual = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tmp_path / "parts", steps=4, checkpoint_every=1)
    press_ctrl_c_in_step(trainer, 3, times=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) is usual
    assert complete_checkpoints(tmp_path / "parts" / "checkpoints")[-1].name == "step-000002"
    resumed = make_trainer(tmp_path / "parts", steps=4)
    assert [row["step"] for row in resumed.run(resume=True)] == [1, 2, 3, 4]
    whole = make_trainer(tmp_path / "whole", steps=4)
    whole.run()
    assert_same(weights(resumed), weights(whole))


def test_stopped_before_the_first_step_is_done_it_starts_anew(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, steps=2)
    press_ctrl_c_in_step(trainer, 1, times=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert complete_checkpoints(tmp_path / "checkpoints") == []
    assert [row["step"] for row in make_trainer(tmp_path, steps=2).run()] == [1, 2]


def test_a_kill_after_the_last_checkpoint_takes_its_steps_again(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, *_: Any) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        make_trainer(tmp_path / "parts", steps=4, checkpoint_every=2, on_step=kill).run()
    assert [row["step"] for row in read_metrics(tmp_path / "parts" / "metrics.jsonl")] == [1, 2, 3]
    assert [p.name for p in complete_checkpoints(tmp_path / "parts" / "checkpoints")] == ["step-000002"]
    resumed = make_trainer(tmp_path / "parts", steps=4, checkpoint_every=2)
    rows = resumed.run(resume=True)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    whole = make_trainer(tmp_path / "whole", steps=4)
    assert [row["reward"] for row in whole.run()] == [row["reward"] for row in rows]
    assert_same(weights(resumed), weights(whole))


def test_a_damaged_checkpoint_is_not_resumed(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    make_trainer(tmp_path, steps=2, checkpoint_every=1).run()
    newest = tmp_path / "checkpoints" / "step-000002"
    file = newest / "policy.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: missing or not what was written"):
        make_trainer(tmp_path, steps=3).run(resume=True)
    import shutil

    shutil.rmtree(newest)  # as the message says
    assert make_trainer(tmp_path, steps=3).run(resume=True)[-1]["step"] == 3


def test_a_disk_that_is_full_says_so_and_keeps_the_earlier_checkpoint(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(done: int, *_: Any) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        if done == 2:
            monkeypatch.setattr("r1ranker.checkpoint.save_file", full)

    with pytest.raises(CheckpointError, match=r"No space left on device.*earlier ones are kept"):
        make_trainer(tmp_path, steps=2, checkpoint_every=1, on_step=fill_the_disk).run()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    monkeypatch.undo()
    assert make_trainer(tmp_path, steps=2).run(resume=True)[-1]["step"] == 2


def test_examples_without_signal_are_an_error(
    make_policy: MakePolicy, recipe: Recipe, make_example: Callable[..., RankingExample], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        Trainer(recipe(), make_policy(), [make_example(1)], tmp_path)


# The log


def test_a_cut_last_line_is_dropped_and_any_other_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "reward": 0.5}\n{"step": 2, "rew')
    assert read_metrics(path) == [{"step": 1, "reward": 0.5}]
    path.write_text('{"step": 1, "rew\n{"step": 2, "reward": 0.5}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl:1: not JSON"):
        read_metrics(path)
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_the_log_goes_on_after_the_steps_it_keeps(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write({"step": step, "reward": step / 10})
    log.close()
    log = MetricsLog(tmp_path, first_step=3)
    log.write({"step": 3, "reward": 0.9})
    assert log.plot(tmp_path / "reward.png", "a title")
    log.close()
    rewards = [(row["step"], row["reward"]) for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert rewards == [(1, 0.1), (2, 0.2), (3, 0.9)]


def test_the_curve_shows_the_return_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr("r1ranker.plotting.plot_curve", lambda _steps, series, _path, **_: drawn.append(list(series)))
    for name, row in (("turn", {}), ("trajectory", {"return": 0.6, "return/rec-movie": 0.6})):
        log = MetricsLog(tmp_path / name)
        log.write({"step": 1, "reward": 0.9, "reward_uniform": 0.8, **row})
        assert log.plot(tmp_path / "reward.png", "a title")
        log.close()
    assert drawn == [["reward", "reward_uniform"], ["reward", "reward_uniform", "return"]]


def test_an_empty_log_draws_nothing(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    assert not log.plot(tmp_path / "reward.png", "a title")
    log.close()
    assert not (tmp_path / "reward.png").exists()


def test_sigterm_that_the_caller_makes_an_exception_waits_for_the_end_of_the_step(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def terminate(*_: Any) -> None:
        raise KeyboardInterrupt("terminated")

    trainer = make_trainer(tmp_path, steps=4)
    press_ctrl_c_in_step(trainer, 2, times=1, sent=signal.SIGTERM)
    usual = signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with pytest.raises(KeyboardInterrupt, match="terminated"):
            trainer.run()
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert [p.name for p in complete_checkpoints(tmp_path / "checkpoints")] == ["step-000002"]


def test_where_ctrl_c_is_ignored_it_stays_so(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=2)
    press_ctrl_c_in_step(trainer, 1, times=2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert [row["step"] for row in trainer.run()] == [1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN

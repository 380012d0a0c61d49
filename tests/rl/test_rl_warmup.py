"""The warm-up: what it keeps of the model's completions, what it learns of them, and how a run goes on with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from wholeruns import assert_same, untimed, weights

from r1ranker.checkpoint import complete_checkpoints, load_checkpoint
from r1ranker.config import RewardConfig, RunConfig, load_config, parse_config
from r1ranker.errors import CheckpointError, ConfigError, InputError
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rewards import Reward
from r1ranker.rl.metrics import Averages, MetricsLog, read_metrics
from r1ranker.rl.policy import Policy
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.states import State
from r1ranker.rl.trainer import Trainer
from r1ranker.rl.warmup import BestOfN, warmup_learner, warmup_settings
from r1ranker.types import Completion, ParsedAnswer, RankingExample, Request, Sampling

MakePolicy = Callable[..., Policy]
Recipe = Callable[..., RunConfig]
Example = Callable[..., RankingExample]
GRPO: dict[str, Any] = {"algorithm": "grpo", "thinking": True, "kl_coef": 0.05}
PPO: dict[str, Any] = {"algorithm": "ppo", "thinking": True, "kl_coef": 0.0, "critic": "separate"}
LORA: dict[str, Any] = GRPO | {"kl_coef": 0.0, "model": {"lora_rank": 2, "frozen_layers": 1}}
WARMUP: dict[str, Any] = {"rounds": 2, "states": 3, "samples": 2, "force_format": True, "learning_rate": 1e-3}

RIGHT = "it is old</think><answer>Casablanca (1942)</answer>"
OTHER_RIGHT = "why not</think><answer>Casablanca (1942)</answer>"
WRONG = "it is new</think><answer>Toy Story (1995)</answer>"
GONE = "which</think><answer>Heat (1995)</answer>"
UNTIDY = "it is old</think><answer>Casablanca (1942)</answer> or so"
NOTHING = "Casablanca"


def with_warmup(config: RunConfig, **warmup: Any) -> RunConfig:
    return parse_config({**config.model_dump(), "warmup": warmup}, "test")


def learner_of(policy: Policy, config: RunConfig) -> BestOfN:
    assert config.warmup is not None
    ranker = config.ranker.build(policy.llm.parameters)
    assert isinstance(ranker, IRanker | DRanker)
    return warmup_learner(policy, ranker, warmup_settings(config, config.warmup), config.warmup)


@pytest.fixture
def two_left(make_example: Example) -> Callable[[int], list[State]]:
    """two_left(count): states with Toy Story (the positive) and Casablanca left of four films."""
    return lambda count: [State(make_example(4, id=f"e{k}"), ("c1", "c3")) for k in range(count)]


# What is kept


def test_of_what_is_sound_the_best_is_kept(
    make_policy: MakePolicy, recipe: Recipe, two_left: Callable[[int], list[State]], script: Any
) -> None:
    policy = make_policy()
    texts = [
        # Rewards: 0 (right, but a layout of its own: -1), 0, 1, 1. The first of the two best is kept.
        [UNTIDY, WRONG, RIGHT, OTHER_RIGHT],
        [NOTHING, GONE, UNTIDY, NOTHING],  # none is well formed and names a candidate that is left
        [UNTIDY, GONE, WRONG, NOTHING],  # a wrong one is sound
    ]
    script(policy, [text for group in texts for text in group])
    learner = learner_of(policy, with_warmup(recipe(**GRPO), samples=4, states=3, minibatch_states=1))
    averages = Averages()
    parts = learner.updates(two_left(3), averages, 0)
    kept = [learner._groups[k] for k in range(2)]
    assert [g.state.example.id for g in kept] == ["e0", "e2"]
    encode = policy.llm.chat.encode_text
    assert [g.pack.branches for g in kept] == [[encode(RIGHT)], [encode(WRONG)]]
    assert sorted(parts) == [[0], [1]]
    got = averages.result()
    assert (got["sampled"], got["accepted"], got["kept"]) == (12, 4, 2)
    assert got["kept_reward"] == 0.5
    # NOTHING earns -2.75: no answer -1, layout -1, three tags missing. GONE earns -0.5.
    assert got["reward"] == pytest.approx(((0 + 0 + 1 + 1) + (-2.75 - 0.5 + 0 - 2.75) + (0 - 0.5 + 0 - 2.75)) / 12)
    assert got["well_formed"] == pytest.approx(6 / 12)


@pytest.mark.parametrize(("least", "accepted"), [(None, 3), (0.0, 3), (0.5, 2), (1.0, 2)])
def test_a_least_reward_is_asked_for_beside(
    make_policy: MakePolicy,
    recipe: Recipe,
    two_left: Callable[[int], list[State]],
    script: Any,
    least: float | None,
    accepted: int,
) -> None:
    policy = make_policy()
    script(policy, [UNTIDY, WRONG, RIGHT, RIGHT])
    learner = learner_of(policy, with_warmup(recipe(**GRPO), samples=4, min_reward=least))
    averages = Averages()
    learner.updates(two_left(1), averages, 0)
    assert averages.result()["accepted"] == accepted
    assert learner._groups[0].rewards[0] == 1.0


def test_a_part_of_the_reward_that_is_left_out_does_not_choose(
    make_policy: MakePolicy, recipe: Recipe, make_example: Example, script: Any
) -> None:
    """Without coverage the short list is the best one: nDCG 1."""
    policy = make_policy()
    example = make_example(3)  # Toy Story is the positive
    second, short = "Heat (1995)\nToy Story (1995)\nCasablanca (1942)</answer>", "Toy Story (1995)</answer>"
    base = with_warmup(recipe("grpo", kind="direct"), samples=2, min_reward=0.5)
    for coverage, best, accepted in ((1.0, second, 1), (0.0, short, 2)):
        script(policy, [second, short])
        learner = learner_of(policy, base.model_copy(update={"reward": RewardConfig(coverage=coverage)}))
        averages = Averages()
        learner.updates([State(example, example.ids)], averages, 0)
        assert learner._groups[0].pack.branches == [policy.llm.chat.encode_text(best)]
        assert averages.result()["accepted"] == accepted
        assert averages.result()["coverage_reward"] == pytest.approx(-1 / 3)


def test_a_dranker_keeps_its_best_list(
    make_policy: MakePolicy, recipe: Recipe, make_example: Example, script: Any
) -> None:
    policy = make_policy()
    example = make_example(3)  # Toy Story is the positive
    last = "Heat (1995)\nCasablanca (1942)\nToy Story (1995)</answer>"  # nDCG 1/2
    second = "Heat (1995)\nToy Story (1995)\nCasablanca (1942)</answer>"  # 1 / log2(3) = 0.63
    short = "Toy Story (1995)</answer>"  # nDCG 1, but two of three left out: 1/3
    script(policy, [last, short, "blah</answer>", second])
    learner = learner_of(policy, with_warmup(recipe("grpo", kind="direct"), samples=4))
    averages = Averages()
    learner.updates([State(example, example.ids)], averages, 0)
    assert learner._groups[0].pack.branches == [policy.llm.chat.encode_text(second)]
    assert averages.result()["accepted"] == 3


@pytest.mark.parametrize(
    ("warmup", "texts", "message"),
    [
        ({}, [NOTHING, UNTIDY], "none of the 4 completions of its first round: 0 are well formed.*force_format = true"),
        ({"min_reward": 1.0}, [WRONG, UNTIDY], "2 are well formed.*none of these earns warmup.min_reward = 1; set"),
        ({"force_format": True, "min_reward": 1}, [WRONG, GONE], "raise warmup.samples.*, or lower warmup.min_reward"),
    ],
)
def test_a_first_round_that_keeps_nothing_is_an_error(
    make_policy: MakePolicy,
    recipe: Recipe,
    two_left: Callable[[int], list[State]],
    script: Any,
    warmup: dict[str, Any],
    texts: list[str],
    message: str,
) -> None:
    policy = make_policy()
    script(policy, texts)
    learner = learner_of(policy, with_warmup(recipe(**GRPO), samples=2, **warmup))
    with pytest.raises(ConfigError, match=message):
        learner.updates(two_left(2), Averages(), 0)
    averages = Averages()
    assert learner.updates(two_left(2), averages, 1) == []  # later, there is what was learned before
    got = averages.result()
    assert (got["accepted"], got["kept"]) == (0, 0)
    assert "kept_reward" not in got


def test_a_forced_format_is_asked_for_and_is_sound(
    make_policy: MakePolicy, recipe: Recipe, two_left: Callable[[int], list[State]], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()
    complete, asked, written = policy.llm.complete, list[Request](), list[Completion]()

    def watched(requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        asked.extend(requests)
        written.extend(complete(requests, sampling))
        return written

    monkeypatch.setattr(policy.llm, "complete", watched)
    config = with_warmup(recipe(**GRPO, ranker={"max_tokens": 40}), samples=4, force_format=True, temperature=0.7)
    learner = learner_of(policy, config)
    averages = Averages()
    learner.updates(two_left(2), averages, 0)
    assert {r.answers for r in asked} == {("Toy Story (1995)", "Casablanca (1942)")}
    assert all(c.text.endswith("</answer>") and len(c.token_ids) <= 40 for c in written)
    got = averages.result()
    assert got["sampled"] == 8
    assert got["accepted"] == 8 * got["well_formed"] > 0
    sampled = {tuple(c.token_ids) for c in written}  # the model's own tokens, those that were forced too
    assert all(tuple(g.pack.branches[0]) in sampled for g in learner._groups)


@pytest.mark.parametrize("form", [None, "quote"])
def test_a_label_that_a_forced_format_has_no_room_for_is_told_before_any_round(
    make_policy: MakePolicy, recipe: Recipe, make_example: Example, tmp_path: Path, form: str | None
) -> None:
    """The same limit as the backend's own, which is met only when the state is drawn."""
    policy = make_policy()
    long = make_example(4, id="long one")
    long = replace(long, candidates=(*long.candidates[:3], replace(long.candidates[3], text="Alien " * 12)))
    short = make_example(3, id="short")

    def config(most: int, *, thinking: bool = True, force: bool = True) -> RunConfig:
        ranker = {"max_tokens": most, "answer_form": form}
        return with_warmup(
            recipe("grpo", thinking=thinking, ranker=ranker), **{**WARMUP, "force_format": force, "rounds": 1}
        )

    with pytest.raises(
        ConfigError, match=r"example 'long one': .* takes \d+ tokens.*: raise ranker\.max_tokens"
    ) as caught:
        Trainer(config(24), policy, [short, long], tmp_path)
    need = int(str(caught.value).partition("takes ")[2].split()[0])
    Trainer(config(need), policy, [short, long], tmp_path)
    for most, fits in ((need, True), (need - 1, False)):
        learner = learner_of(policy, config(most))
        state = State(long, long.ids)
        if fits:
            learner.roll_out([state], Averages(), 0)
            continue
        with pytest.raises(ConfigError, match="long one"):
            Trainer(config(most), policy, [short, long], tmp_path)
        with pytest.raises(InputError, match="its longest answer takes"):
            learner.roll_out([state], Averages(), 0)
    # Any length will do where nothing is forced, the answer is all there is, or no state is drawn of the example.
    Trainer(config(24, force=False), policy, [short, long], tmp_path)
    Trainer(config(24, thinking=False), policy, [short, long], tmp_path)
    Trainer(config(24), policy, [short, replace(long, relevance={})], tmp_path)


def test_the_replies_of_a_round_are_kept_in_a_file_of_their_own(
    make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample], tmp_path: Path
) -> None:
    config = recipe(**GRPO, ranker={"max_tokens": 40}, steps=1, states_per_step=2, log_completions=3)
    seen: list[float] = []

    def judge(state: State, parsed: ParsedAnswer, completion: Completion) -> Reward:  # noqa: ARG001
        seen.append(float(len(seen)))
        return Reward(seen[-1])

    trainer = Trainer(with_warmup(config, **WARMUP), make_policy(), examples, tmp_path, reward=judge)
    trainer.run()
    warm = [json.loads(line) for line in (tmp_path / "warmup-completions.jsonl").read_text().splitlines()]
    assert [reply["step"] for reply in warm] == [1, 1, 1, 2, 2, 2]
    # Three states and two replies of each a round: the own rewards are counted through.
    assert [reply["reward"] for reply in warm] == [0, 1, 2, 6, 7, 8]
    assert all(reply["advantage"] is None for reply in warm)
    own = [json.loads(line) for line in (tmp_path / "completions.jsonl").read_text().splitlines()]
    assert [(reply["step"], reply["reward"]) for reply in own] == [(1, 12), (1, 13), (1, 14)]


# What is learned


@pytest.mark.parametrize("micro_tokens", [1, 1_000_000])
def test_the_gradient_is_that_of_the_cross_entropy_of_what_was_kept(
    make_policy: MakePolicy,
    recipe: Recipe,
    two_left: Callable[[int], list[State]],
    script: Any,
    gradients: Callable[[Policy], dict[str, Tensor]],
    same_gradients: Callable[..., None],
    micro_tokens: int,
) -> None:
    policy = make_policy()
    script(policy, [RIGHT, WRONG, NOTHING, UNTIDY, GONE, WRONG])
    config = with_warmup(recipe(**GRPO, micro_tokens=micro_tokens), samples=2, temperature=0.5, minibatch_states=None)
    learner = learner_of(policy, config)
    states, averages = two_left(3), Averages()
    parts = learner.updates(states, averages, 0)
    assert [sorted(part) for part in parts] == [[0, 1]]
    learner.backward(states, parts[0], averages)
    found = gradients(policy)

    policy.model.zero_grad()
    ranker = config.ranker.build(None)
    assert isinstance(ranker, IRanker)
    encode = policy.llm.chat.encode_text
    losses = []
    for state, text in ((states[0], RIGHT), (states[2], WRONG)):
        prompt = list(policy.llm.chat.encode(ranker.request(state.example, state.remaining).prompt))
        ids = torch.tensor([prompt + list(encode(text))])
        logits = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="none"))
    loss = torch.cat(losses).mean()  # over tokens: a long completion weighs more than a short one
    loss.backward()  # type: ignore[no-untyped-call]
    same_gradients(found, gradients(policy), rel=1e-3)
    assert averages.result()["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)


def test_every_epoch_goes_over_what_was_kept(
    make_policy: MakePolicy, recipe: Recipe, two_left: Callable[[int], list[State]], script: Any
) -> None:
    policy = make_policy()
    script(policy, [RIGHT, NOTHING])
    learner = learner_of(policy, with_warmup(recipe(**GRPO), samples=1, epochs=3, minibatch_states=2))
    parts = learner.updates(two_left(6), Averages(), 0)  # three are kept
    assert [len(part) for part in parts] == [2, 1] * 3
    assert [sorted(parts[k] + parts[k + 1]) for k in (0, 2, 4)] == [[0, 1, 2]] * 3


# Runs


class Killed(Exception):
    pass


def killer(what: str, done_steps: int) -> Any:
    """A `show` that stops the run once so many steps of that part are done."""

    @contextmanager
    def show(part: str, steps: int) -> Iterator[Any]:  # noqa: ARG001
        def told(done: int, *_: Any) -> None:
            if (part, done) == (what, done_steps):
                raise Killed

        yield told

    return show


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that runs would draw, which takes longer than their steps."""
    names: list[str] = []
    monkeypatch.setattr(MetricsLog, "plot", lambda _, path, __: names.append(path.name))
    return names


@pytest.fixture
def make_trainer(
    make_policy: MakePolicy,
    recipe: Recipe,
    examples: list[RankingExample],
    monkeypatch: pytest.MonkeyPatch,
    letters_reward: Any,
    drawn: list[str],  # noqa: ARG001
) -> Callable[..., Trainer]:
    """make_trainer(folder, settings, warmup={...}, show=..., **train): as a new process has it."""
    monkeypatch.setattr(Sampled, "_reward", letters_reward)  # RL on what a random model can earn

    def make(
        folder: Path, settings: dict[str, Any] = GRPO, *, warmup: Any = None, show: Any = None, **train: Any
    ) -> Trainer:
        shared = {"states_per_step": 2, "checkpoint_every": 2, "steps": 3, "ranker": {"max_tokens": 32}}
        config = with_warmup(recipe(**{**shared, **settings, **train}), **{**WARMUP, **(warmup or {})})
        model = config.model.model_dump(include={"lora_rank", "frozen_layers"})
        return Trainer(config, make_policy(**model), examples, folder, show=show)

    return make


def assert_same_rows(a: list[dict[str, float]], b: list[dict[str, float]]) -> None:
    for row, other in zip(untimed(a), untimed(b), strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_a_run_warms_up_and_then_trains(make_trainer: Callable[..., Trainer], drawn: list[str], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    @contextmanager
    def show(what: str, steps: int) -> Iterator[Any]:
        told.append((what, 0, steps))
        yield lambda done, total, _: told.append((what, done, total))

    trainer = make_trainer(tmp_path, show=show)
    rows = trainer.run()
    assert told == [("warm-up", k, 2) for k in range(3)] + [("training", k, 3) for k in range(4)]
    assert [row["step"] for row in rows] == [1, 2, 3]
    warm = [json.loads(line) for line in (tmp_path / "warmup.jsonl").read_text().splitlines()]
    assert [row["step"] for row in warm] == [1, 2]
    for row in warm:
        assert row["sampled"] == 6
        assert 0 < row["kept"] <= 3
        assert row["kept"] <= row["accepted"] <= 6
        assert row["loss"] > 0
        assert row["learning_rate"] == 1e-3  # all of it from the first round on
        assert {"reward", "kept_reward", "grad_norm", "tokens", "seconds"} <= row.keys()
    assert drawn == ["warmup.png", "reward.png"]
    checkpoints = tmp_path / "checkpoints"
    assert [p.name for p in complete_checkpoints(checkpoints)] == ["step-000002", "step-000003"]
    assert [p.name for p in complete_checkpoints(checkpoints / "warmup")] == ["step-000002"]
    assert not trainer.policy.model.training


def test_the_reference_of_the_kl_term_is_the_model_after_the_warm_up(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, steps=1)
    start = {n: p.detach().clone() for n, p in trainer.policy.model.named_parameters()}
    with pytest.raises(ValueError, match="begin after the warm-up"):
        trainer.take_step(0)
    rows = trainer.run()
    warm = load_checkpoint(tmp_path / "checkpoints" / "warmup" / "step-000002").tensors["policy"]
    with trainer.policy.reference() as reference:
        kept = dict(reference.named_parameters())
    assert warm.keys() == kept.keys()
    for name, tensor in warm.items():
        assert torch.equal(kept[name], tensor)
    assert any(float((kept[n] - start[n]).abs().max()) > 1e-4 for n in kept)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)  # the first step begins where the warm-up ended


def test_without_a_warm_up_nothing_of_it_is_there(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, warmup={"rounds": 0}, steps=1)
    assert trainer.warmup is None
    trainer.run()
    assert not list(tmp_path.rglob("*warmup*"))
    assert load_config(None).warmup is None


def test_the_same_seed_gives_the_same_warm_up(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainers = [make_trainer(tmp_path / f"{k}", steps=1, seed=seed) for k, seed in enumerate((0, 0, 1))]
    rows = []
    for trainer in trainers:
        trainer.run()
        rows.append(untimed(read_metrics(trainer.folder / "warmup.jsonl")))
    assert rows[0] == rows[1] != rows[2]
    assert_same(weights(trainers[0]), weights(trainers[1]))
    first = trainers[0]
    assert first.warmup is not None
    warm, states = first.warmup.stream.at(0), first.training.stream.at(0) + first.training.stream.at(1)
    assert [s.example.id for s in warm] != [s.example.id for s in states][: len(warm)]  # a stream of its own


@pytest.mark.parametrize(
    ("settings", "stopped"),
    [
        pytest.param(GRPO, ("warm-up", 2), id="grpo-warm-up"),
        pytest.param(GRPO, ("training", 1), id="grpo-between"),
        pytest.param(GRPO, ("training", 3), id="grpo-training"),
        pytest.param(PPO, ("training", 1), id="ppo-between"),
        pytest.param(LORA, ("warm-up", 2), id="lora-warm-up"),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not(
    make_trainer: Callable[..., Trainer], tmp_path: Path, settings: dict[str, Any], stopped: tuple[str, int]
) -> None:
    """Killed before the last round's checkpoint; after the warm-up, but before the first RL checkpoint; after that."""
    whole = make_trainer(tmp_path / "whole", settings, steps=4)
    rows = whole.run()
    folder = tmp_path / "parts"
    with pytest.raises(Killed):
        make_trainer(folder, settings, steps=4, show=killer(*stopped)).run()
    resumed = make_trainer(folder, settings, steps=4)
    assert_same_rows(resumed.run(resume=True), rows)
    assert_same(weights(resumed), weights(whole))
    assert_same_rows(*(read_metrics(path / "warmup.jsonl") for path in (folder, whole.folder)))


def test_a_finished_warm_up_is_not_repeated(
    make_trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        make_trainer(tmp_path, show=killer("training", 1)).run()
    monkeypatch.setattr(BestOfN, "updates", None)
    assert [row["step"] for row in make_trainer(tmp_path).run(resume=True)] == [1, 2, 3]


def test_ctrl_c_in_a_round_keeps_the_rounds_before(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    assert trainer.warmup is not None
    take = trainer.warmup.take_step

    def interrupted(step: int) -> dict[str, float]:
        if step == 1:
            raise KeyboardInterrupt
        return take(step)

    trainer.warmup.take_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert [p.name for p in complete_checkpoints(tmp_path / "checkpoints" / "warmup")] == ["step-000001"]
    with pytest.raises(CheckpointError, match="holds a run at round 1 of its warm-up: go on with --resume"):
        make_trainer(tmp_path).run()
    assert len(make_trainer(tmp_path).run(resume=True)) == 3


def test_the_fall_of_the_learning_rate_is_no_matter_of_the_warm_up(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        make_trainer(tmp_path, show=killer("warm-up", 2), steps=1, decay_steps=1).run()
    trainer = make_trainer(tmp_path, steps=2, decay_steps=1)
    assert len(trainer.run(resume=True)) == 2
    assert trainer.warmup is not None
    assert not trainer.warmup.optimizer.state
    assert trainer.training.optimizer.state


def test_another_warm_up_is_not_gone_on_with(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        make_trainer(tmp_path, show=killer("training", 1)).run()
    with pytest.raises(CheckpointError, match=r"warmup\.learning_rate = 0\.001, the recipe now says 0\.002"):
        make_trainer(tmp_path, warmup={"learning_rate": 2e-3}).run(resume=True)
    with pytest.raises(CheckpointError, match=r"warmup\.rounds = 2, the recipe now says 0"):
        make_trainer(tmp_path, warmup={"rounds": 0}).run(resume=True)


def test_a_run_without_a_warm_up_gets_none_later(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    make_trainer(tmp_path, warmup={"rounds": 0}).run()
    with pytest.raises(CheckpointError, match=r"warmup\.rounds = 0, the recipe now says 2"):
        make_trainer(tmp_path, steps=4).run(resume=True)


def test_without_the_model_that_rl_began_with_it_is_not_gone_on_with(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    make_trainer(tmp_path).run()
    shutil.rmtree(tmp_path / "checkpoints" / "warmup")
    with pytest.raises(CheckpointError, match="has lost the model that RL began with"):
        make_trainer(tmp_path, steps=4).run(resume=True)


# Recipes


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("warmup.round=1",), r"no key 'warmup\.round'; did you mean 'warmup\.rounds'"),
        (("warmup.samples=0",), r"warmup\.samples: "),
        (("warmup.rounds=1", "train.algorithm=all_actions", "ranker.thinking=false"), "'all_actions' scores"),
        (("warmup.force_format=true", "ranker.kind=direct"), r"force_format is for ranker\.kind = 'iterative'"),
        (("warmup.rounds=1", "model.lora_rank=4"), r"set train\.kl_coef = 0"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused(sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, sets)


def test_a_warm_up_is_off_where_a_recipe_has_none_or_no_rounds() -> None:
    sets = ("train.algorithm=all_actions", "ranker.thinking=false")
    assert load_config(None, sets).warmup is None
    off = load_config(None, [*sets, "warmup.rounds=0"]).warmup
    assert off is not None
    assert off.rounds == 0


def test_the_words_of_train_for_a_warm_up(recipe: Recipe) -> None:
    train = {"warmup_steps": 5, "states_per_example": 2, "states": "on_policy", "credit": "gigpo"}
    config = with_warmup(recipe(**GRPO, **train), states=7, samples=5, temperature=0.6)
    assert config.warmup is not None
    settings = warmup_settings(config, config.warmup)
    train = settings.train
    assert (train.steps, train.states_per_step, train.group_size, train.temperature) == (3, 7, 5, 0.6)
    assert (train.states_per_example, train.warmup_steps, train.grad_clip) == (1, 0, config.train.grad_clip)
    assert (train.states, train.credit) == ("subsets", "turn")
    assert settings.seed != config.seed

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from wholeruns import weights

from r1ranker.checkpoint import complete_checkpoints
from r1ranker.config import RunConfig, parse_config
from r1ranker.errors import ConfigError
from r1ranker.rl.policy import Policy
from r1ranker.rl.trainer import Trainer
from r1ranker.types import RankingExample

Recipe = Callable[..., RunConfig]
MakePolicy = Callable[..., Policy]


def with_validation(config: RunConfig, **settings: Any) -> RunConfig:
    return parse_config({**config.model_dump(exclude_unset=True), "validation": settings}, "test")


class Scripted:
    """Measures what it is told to, and keeps the weights that it was asked of."""

    def __init__(self, trainer_of: Callable[[], Trainer], values: list[float]) -> None:
        self.trainer_of, self.values = trainer_of, iter(values)
        self.seen: list[dict[str, Tensor]] = []

    def __call__(self) -> dict[str, float]:
        self.seen.append(weights(self.trainer_of()))
        value = next(self.values)
        return {"MRR": value, "nDCG@10": 0.5, "MRR/films": value - 0.1, "MRR/games": value + 0.1}


@pytest.fixture
def run(
    make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample], tmp_path: Path
) -> Callable[..., tuple[Trainer, Scripted]]:
    """run(values, every=..., steps=..., resume=..., stop_after=...): a trainer that has run, and what was measured."""

    def make(
        values: list[float], *, steps: int = 4, resume: bool = False, stop_after: int | None = None, **settings: Any
    ) -> tuple[Trainer, Scripted]:
        def stop(done: int, *_: object) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        config = with_validation(
            recipe(steps=steps, checkpoint_every=1, keep_checkpoints=9), **{"every": 1, **settings}
        )
        box: list[Trainer] = []
        script = Scripted(lambda: box[0], values)
        box.append(Trainer(config, make_policy(), examples, tmp_path, on_step=stop, validate=script))
        if stop_after is None:
            box[0].run(resume=resume)
        else:
            with pytest.raises(KeyboardInterrupt):
                box[0].run(resume=resume)
        return box[0], script

    return make


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text(encoding="utf-8").splitlines()]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_weights_of_the_best_step_are_those_that_remain(run: Callable[..., Any], tmp_path: Path) -> None:
    trainer, script = run([0.9, 0.2, 0.5, 0.5, 0.3])
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 3, 4]
    assert [row["MRR"] for row in rows(tmp_path)] == [0.9, 0.2, 0.5, 0.5, 0.3]
    assert trainer.best_step == 2  # not what was before the first step, and the earlier of equals
    assert same(weights(trainer), script.seen[2])
    assert not same(script.seen[2], script.seen[4])
    assert [path.name for path in complete_checkpoints(tmp_path / "checkpoints" / "best")] == ["step-000002"]
    assert (tmp_path / "validation.png").exists()
    # What a run goes on from is the last step all the same.
    assert complete_checkpoints(tmp_path / "checkpoints")[-1].name == "step-000004"


def test_without_keep_best_the_last_step_remains(run: Callable[..., Any], tmp_path: Path) -> None:
    trainer, script = run([0.1, 0.9, 0.2, 0.3, 0.2], keep_best=False)
    assert trainer.best_step is None
    assert same(weights(trainer), script.seen[4])
    assert not (tmp_path / "checkpoints" / "best").exists()


def test_it_is_measured_every_so_many_steps_and_after_the_last_by_the_measure_that_is_asked_for(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    trainer, _ = run([0.1, 0.2, 0.9], every=3, measure="nDCG@10")
    assert [row["step"] for row in rows(tmp_path)] == [0, 3, 4]
    assert trainer.best_step == 3  # all have the same nDCG@10


def test_what_was_measured_last_is_told_with_the_steps_after_it(
    make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample], tmp_path: Path
) -> None:
    told = []
    config = with_validation(recipe(steps=3), every=2)
    values = iter([0.1, 0.2, 0.3])
    trainer = Trainer(
        config,
        make_policy(),
        examples,
        tmp_path,
        on_step=lambda done, _, metrics: told.append((done, metrics["validation/MRR"])),
        validate=lambda: {"MRR": next(values)},
    )
    trainer.run()
    assert told == [(1, 0.1), (2, 0.1), (3, 0.2)]


def test_a_resumed_run_measures_what_it_did_not_get_to_and_knows_the_best_before(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    # Stopped once step 2 is taken: that step is not measured yet, steps 0 and 1 are.
    _, first = run([0.1, 0.8], stop_after=2)
    assert [row["step"] for row in rows(tmp_path)] == [0, 1]
    trainer, second = run([0.3, 0.4, 0.5], resume=True)
    assert [row["step"] for row in rows(tmp_path)] == [0, 1, 2, 3, 4]
    assert trainer.best_step == 1
    assert same(weights(trainer), first.seen[1])
    assert len(second.seen) == 3
    again, none = run([], resume=True)  # finished: nothing is measured twice, and the best is put back
    assert (again.best_step, none.seen) == (1, [])
    assert same(weights(again), first.seen[1])


def test_what_is_kept_of_steps_that_are_taken_again_does_not_count(run: Callable[..., Any], tmp_path: Path) -> None:
    run([0.1, 0.2, 0.3, 0.9, 0.2])
    for step in (3, 4):  # as if it had been killed before their checkpoints
        (tmp_path / "checkpoints" / f"step-{step:06d}" / "state.json").unlink()
    trainer, script = run([0.1, 0.25], resume=True)  # steps 3 and 4; the weights of step 2 were not kept
    assert [row["MRR"] for row in rows(tmp_path)] == [0.1, 0.2, 0.3, 0.1, 0.25]
    assert trainer.best_step == 4
    assert same(weights(trainer), script.seen[-1])


def test_the_section_and_the_function_go_together(
    make_policy: MakePolicy, recipe: Recipe, examples: list[RankingExample], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"\[validation\] says when"):
        Trainer(recipe(), make_policy(), examples, tmp_path, validate=lambda: {"MRR": 1.0})
    with pytest.raises(ConfigError, match=r"\[validation\] says when"):
        Trainer(with_validation(recipe()), make_policy(), examples, tmp_path)

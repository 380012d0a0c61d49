"""Reward curves, and banks of thoughts that a plan records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import training
from kept import Kept
from plan import HERE, Plan, load_plan
from r1ranker.cli import thoughts
from r1ranker.errors import ConfigError, InputError
from results import AtHand, resolve_rows
from training import check_settings, config_of


def test_a_short_curve_stays_as_it_is() -> None:
    rows = [{"step": k, "reward": k / 4} for k in (1, 2, 3)]
    assert training.curve(rows, 3) == {"step": [1, 2, 3], "reward": [0.25, 0.5, 0.75]}


def test_a_long_curve_is_thinned_to_means() -> None:
    rows = [{"step": k, "reward": float(k)} for k in range(1, 131)]
    found = training.curve(rows, 130)  # three steps a point
    assert len(found["step"]) == 44 <= training.POINTS
    assert (found["step"][:2], found["reward"][:2]) == ([3, 6], [2.0, 5.0])
    assert (found["step"][-1], found["reward"][-1]) == (130, 130.0)
    # What a stopped training shows are the same points.
    assert training.curve(rows[:9], 130)["step"] == found["step"][:3]


def test_steps_without_a_reward_are_passed_over() -> None:
    rows = [{"step": 1, "reward": float("nan")}, {"step": 2}, {"step": 3, "reward": 1.0}]
    assert training.curve(rows, 3) == {"step": [3], "reward": [1.0]}


def test_chance_is_kept_where_every_step_tells_it() -> None:
    rows = [{"step": k, "reward": k / 4, "reward_uniform": 0.5} for k in (1, 2)]
    assert training.curve(rows, 2) == {"step": [1, 2], "reward": [0.25, 0.5], "chance": [0.5, 0.5]}
    assert training.curve([*rows, {"step": 3, "reward": 0.75}], 3) == {"step": [1, 2, 3], "reward": [0.25, 0.5, 0.75]}


def test_a_training_is_known_where_its_adapter_lies_in_another_checkout(tmp_path: Path) -> None:
    plan = load_plan(HERE / "longer.toml")
    further = next(training for training in plan.trainings if training.name == "iranker-further")
    config = config_of(further, 1, HERE, {}, tmp_path)
    told = config.model_dump(mode="json")
    told["model"]["adapter"] = "/elsewhere/adapters/iranker-longer-mean"
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    check_settings(config, tmp_path)
    told["model"]["adapter"] = "/elsewhere/adapters/iranker-seed-0"
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"was made with model\.adapter = 'iranker-seed-0'"):
        check_settings(config, tmp_path)


def test_a_source_is_that_of_the_last_pattern() -> None:
    sources = {"router-*": "a", "router-cost": "b", "rec-*": "c"}
    assert [training.place_of(name, sources) for name in ("router-cost", "router-balance", "passage-5")] == [
        "b",
        "a",
        None,
    ]


def banked(**bank: Any) -> Plan:
    settings = {"name": "both", "training": "learner", "datasets": ["rec-movie", "router-cost"], "limit": 5, **bank}
    rows = [{"name": "base", "model": "openai:m"}]
    rows.append({**rows[0], "name": "helped", "ranker": {"thoughts": "bank:both"}})
    return Plan.model_validate(
        {
            "name": "p",
            "title": "T",
            "question": "Q?",
            "trainings": [{"name": "learner", "recipe": "demo", "seeds": [0, 1]}],
            "banks": [settings],
            "bench": {
                "base": "base",
                "rows": rows,
                "data": {
                    "names": ["rec-movie", "router-cost"],
                    "sources": {"router-*": "given/in/plan"},
                    "options": {"rec-movie": {"target": "random", "history": 5}},
                },
            },
        }
    )


def test_a_bank_is_recorded_once_from_the_training_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def record(**given: Any) -> None:
        calls.append(given)
        given["out"].parent.mkdir(parents=True, exist_ok=True)
        given["out"].write_text(f"{given['dataset']}\n", encoding="utf-8")
        if given["dataset"] == "router-cost" and len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(thoughts, "record", record)
    plan = banked()

    def made(plan: Plan) -> None:
        training.record_bank(plan, plan.banks[0], Path("m"), 0, tmp_path, {"router-cost": "given/by/user"})

    with pytest.raises(KeyboardInterrupt):
        made(plan)
    assert not training.bank_file(tmp_path, "both", 0).exists()
    made(plan)
    assert [call["dataset"] for call in calls] == ["rec-movie", "router-cost", "router-cost"]
    assert training.bank_file(tmp_path, "both", 0).read_text(encoding="utf-8") == "rec-movie\nrouter-cost\n"
    assert calls[0]["option"] == ['target="random"', "history=5"]
    assert (calls[0]["source"], calls[2]["source"], calls[2]["limit"]) == (None, Path("given/by/user"), 5)
    made(plan)
    assert len(calls) == 3
    with pytest.raises(ConfigError, match="other settings"):
        made(banked(limit=6))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"by another model than {tmp_path / 'm'} holds now"):
        training.record_bank(plan, plan.banks[0], tmp_path / "m", 0, tmp_path, {})


def test_a_row_with_thoughts_stands_once_for_each_seed_at_hand(tmp_path: Path) -> None:
    plan = banked()
    done = training.folder_of(tmp_path, "learner", 1)
    done.mkdir(parents=True)
    (done / training.DONE).write_text("{}", encoding="utf-8")
    hand = AtHand(plan.bench, [], {})
    resolve_rows(plan, hand, training.Models(tmp_path, tmp_path))
    assert hand.rows == {"helped (seed 1)": ("helped", 1)}
    assert [row.name for row in hand.bench.rows] == ["base", "helped (seed 1)"]
    assert hand.bench.rows[1].ranker["thoughts"] == str(training.bank_file(tmp_path, "both", 1))
    assert hand.missing == []  # that seed 0 is not trained is told of the training

    told = Kept(trainings={("learner", 0): {}})
    models = training.Models(tmp_path, tmp_path, told.trainings)
    resolve_rows(plan, away := AtHand(plan.bench, [], {}), models, told)
    assert away.missing == ["helped: of seed 0"]  # trained elsewhere, and its model is not here


def test_a_bank_without_a_thought_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(**_: Any) -> None:
        raise InputError("nothing is written")

    monkeypatch.setattr(thoughts, "record", record)
    plan = banked()
    with pytest.raises(InputError):
        training.record_bank(plan, plan.banks[0], Path("m"), 0, tmp_path, {})
    assert json.loads(training.bank_file(tmp_path, "both", 0).with_suffix(".json").read_text())["limit"] == 5

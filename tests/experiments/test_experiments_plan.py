"""Plans: what is wrong in one is named, and those that ship fit the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plan import HERE, Plan, find_plan, load_plan
from r1ranker.datasets import DATASETS
from r1ranker.errors import ConfigError
from r1ranker.sections import parse_section
from training import config_of

PLANS = sorted(HERE.glob("*.toml"))
SPLIT = ("test_users", "test_fraction", "seed", "target")


def plan(**changes: Any) -> dict[str, Any]:
    """A plan's tables, a few of them changed."""
    bench = {
        "base": "base",
        "baselines": ["bm25"],
        "rows": [{"name": "base", "model": "m"}, {"name": "ours", "model": "run:learner"}],
    }
    whole = {"name": "mine", "title": "T", "question": "Q?", "trainings": [{"name": "learner", "recipe": "demo"}]}
    return {**whole, "bench": bench | changes.pop("bench", {}), **changes}


def parsed(**changes: Any) -> Plan:
    return parse_section(Plan, plan(**changes), "plan.toml")


def test_rows_stand_in_the_order_of_tables_and_know_their_base() -> None:
    whole = parsed(against={"ours": "bm25"})
    assert whole.rows == ["random", "bm25", "base", "ours"]
    assert [whole.base_of(row) for row in whole.rows] == ["base", "base", "base", "bm25"]
    assert whole.trainings[0].seeds == (0, 1, 2)


def test_joined_rows_are_one_in_tables() -> None:
    films = {"name": "films", "model": "m", "datasets": ["rec-movie"]}
    others = {"name": "others", "model": "m", "datasets": ["passage-*"]}
    rows = [films, {"name": "base", "model": "m"}, others]
    whole = parsed(bench={"rows": rows}, joined={"unseen": ["films", "others"]}, against={"unseen": "bm25"})
    assert whole.rows == ["random", "bm25", "unseen", "base"]
    assert whole.base_of("unseen") == "bm25"
    assert [whole.shown_as(name) for name in ("films", "others", "base")] == ["unseen", "unseen", "base"]


def test_a_row_needs_the_trainings_of_its_model_and_of_its_thoughts() -> None:
    rows = [
        {"name": "base", "model": "m"},
        {"name": "helped", "model": "m", "ranker": {"thoughts": "bank:films"}},
        {"name": "both", "model": "run:other", "ranker": {"thoughts": "bank:films"}},
    ]
    trainings = [{"name": "learner", "recipe": "demo"}, {"name": "other", "recipe": "demo"}]
    banks = [{"name": "films", "training": "learner", "datasets": ["rec-movie"], "limit": 3}]
    whole = parsed(bench={"rows": rows}, trainings=trainings, banks=banks)
    needed = [[training.name for training in whole.needs(row)] for row in whole.bench.rows]
    assert needed == [[], ["learner"], ["learner", "other"]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"titel": "T"}, "no key 'titel'"),
        ({"name": "My plan"}, "name"),
        ({"trainings": [{"name": "learner", "recipe": "demo", "seeds": [1, 1]}]}, "lists a seed twice"),
        ({"trainings": [{"name": "learner", "recipe": "demo"}] * 2}, "two of the plan are called 'learner'"),
        ({"trainings": [{"name": "learner", "recipe": "demo", "after": "learner"}]}, "before it there is no 'learner'"),
        (
            {
                "trainings": [
                    {"name": "a", "recipe": "demo", "seeds": [0]},
                    {"name": "b", "recipe": "demo", "after": "a"},
                ]
            },
            "training 'a' has no seed 1, and 'b' has",
        ),
        ({"trainings": [{"name": "learned", "recipe": "demo"}]}, "did you mean 'learned'"),
        ({"bench": {"base": "bass"}}, "did you mean 'base'"),
        ({"bench": {"baselines": ["all"]}}, "name the baselines"),
        ({"bench": {"rows": [{"model": "m"}]}}, "needs a 'name'"),
        ({"bench": {"rows": [{"name": "bm25", "model": "m"}]}}, "two of the plan are called 'bm25'"),
        ({"bench": {"rows": [{"name": "base", "model": "m", "ranker": {"kinds": 1}}]}}, "kinds"),
        ({"bench": {"rows": [{"name": "base", "model": "m", "ranker": {"thoughts": "bank:x"}}]}}, "no bank 'x'"),
        ({"against": {"nobody": "base"}}, "no 'nobody'"),
        ({"pairs": {"ours": ["base", "nobody"]}}, "'pairs' names rows, and there is no 'nobody'"),
        ({"pairs": {"ours": ["base", "base"]}}, "'ours' is compared with itself, or with a row twice"),
        ({"pairs": {"ours": ["ours"]}}, "'ours' is compared with itself, or with a row twice"),
        ({"joined": {"both": ["base", "nobody"]}}, "joined 'both': there is no row 'nobody'"),
        ({"joined": {"both": ["base", "ours"]}}, "two of its rows are for passage-5"),
        ({"joined": {"base": ["ours"]}}, "two of the plan are called 'base'"),
        ({"joined": {"one": ["ours"], "two": ["ours"]}}, "'ours' is a part twice"),
        ({"banks": [{"name": "b", "training": "x", "datasets": ["rec-movie"], "limit": 1}]}, "no training 'x'"),
        ({"banks": [{"name": "b", "training": "learner", "datasets": ["x"], "limit": 1}]}, "has no 'x'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(**changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_plan_is_found_by_name_or_by_file(tmp_path: Path) -> None:
    assert find_plan("main") == find_plan("main.toml") == HERE / "main.toml"
    own = tmp_path / "own.toml"
    own.write_text("", encoding="utf-8")
    assert find_plan(str(own)) == own
    with pytest.raises(ConfigError, match="ablations, credit, firststage, generalization, goals, hard"):
        find_plan("mian")


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_shipped_plans_hold_out_what_their_trainings_hold_out(path: Path, tmp_path: Path) -> None:
    whole = load_plan(path)
    assert whole.name == path.stem
    for training in whole.trainings:
        config = config_of(training, 0, path.parent, {}, tmp_path)
        for name in set(config.data.names) & set(whole.bench.data.names):
            defaults = DATASETS[name].defaults
            ours = defaults | config.data.options.get(name, {})
            theirs = defaults | whole.bench.data.options_of(name)
            assert {key: ours.get(key) for key in SPLIT} == {key: theirs.get(key) for key in SPLIT}, (training, name)


def test_a_training_begins_at_the_adapter_of_an_earlier_one_with_its_seed(tmp_path: Path) -> None:
    path = HERE / "firststage.toml"
    first, second = load_plan(path).trainings
    assert second.after == first.name == "iranker-next"
    config = config_of(second, 2, path.parent, {}, tmp_path)
    assert config.model.adapter == str(tmp_path / "trainings" / "iranker-next" / "seed-2" / "model")
    assert config_of(first, 2, path.parent, {}, tmp_path).model.adapter is None


def test_an_adapter_that_is_a_folder_beside_the_plan_has_its_path(tmp_path: Path) -> None:
    path = HERE / "longer.toml"
    plan = load_plan(path)
    models = {row.name: row.model for row in plan.bench.rows}
    assert models["IRanker, first step"] == str(HERE / "adapters" / "iranker-seed-0")
    assert models["iranker-135m, first step"] == "iranker-135m"  # a name stays as it is
    further = next(training for training in plan.trainings if training.name == "iranker-further")
    adapter = config_of(further, 1, path.parent, {}, tmp_path).model.adapter
    assert adapter == str(HERE / "adapters" / "iranker-longer-mean")


def test_trainings_that_plans_share_are_the_same() -> None:
    seen: dict[str, Any] = {}
    for path in PLANS:
        for training in load_plan(path).trainings:
            assert seen.setdefault(training.name, training) == training

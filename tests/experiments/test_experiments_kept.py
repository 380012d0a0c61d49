"""What `--add` keeps of a JSON file, what it measures, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from experiment_files import RESULTS, change, results

import page
import run
from figures import Figures
from kept import OF_ALL_ROWS, Kept, known_baselines, load_kept, merged, only_unknown
from plan import HERE, find_plan, load_plan
from r1ranker.benchmark.config import RowConfig
from r1ranker.errors import ConfigError
from results import asked_of
from training import config_of, settings_of

ELSEWHERE = ["--add", "--out", "elsewhere"]


def cell(row: str, values: list[float], dataset: str = "d", seed: int | None = None, **more: Any) -> dict[str, Any]:
    return {"row": row, "dataset": dataset, "seed": seed, "values": {"MRR": values}, **more}


@pytest.mark.usefixtures("finished")
def test_what_the_file_has_is_neither_trained_nor_ranked_again_on_another_machine(work: list[str]) -> None:
    before = RESULTS.read_text(encoding="utf-8")
    shutil.rmtree("runs")
    assert run.main(["plan.toml", *ELSEWHERE]) == 0
    assert work == []
    found, old = results(), json.loads(before)
    assert [text.partition(":")[0] for text in found.pop("missing")] == ["rec-music", "elsewhere"]
    del old["missing"]  # the music was looked for elsewhere
    assert found == old


COMMITTED = sorted((HERE.parent / "docs" / "results" / "experiments").glob("*.json"))


def test_there_are_committed_results() -> None:
    assert COMMITTED


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_results_can_be_added_to(path: Path, tmp_path: Path) -> None:
    plan = load_plan(find_plan(path.stem))
    kept = load_kept(path, plan)
    configs = [(t, config_of(t, seed, HERE, {}, tmp_path)) for t in plan.trainings for seed in t.seeds]
    kept.check_trainings({(t.name, config.seed): settings_of(t, config) for t, config in configs})
    trained = [row for row in plan.bench.rows if plan.needs(row)]
    of_all = plan.bench.model_dump(mode="json", include=set(OF_ALL_ROWS))
    kept.check_asked({row.name or "": of_all | asked_of(row) for row in trained})
    assert kept.cells


@pytest.mark.usefixtures("plan_file")
def test_seeds_of_two_machines_come_together(work: list[str]) -> None:
    assert run.main(["plan.toml", "--seeds", "0", "--out", "here"]) == 0
    one = results()
    work.clear()
    assert run.main(["plan.toml", "--seeds", "1", *ELSEWHERE]) == 0
    assert work == ["step 1 of seed 1", "step 2 of seed 1", "trained (seed 1): 4"]
    both = results()
    assert [(told["name"], told["seed"]) for told in both["trainings"]] == [("learner", 0), ("learner", 1)]
    assert [(c["row"], c["seed"], c.get("earlier")) for c in both["cells"]] == [
        ("random", None, 0),
        ("bm25", None, 0),
        ("base", None, 0),
        ("trained", 0, 0),
        ("trained", 1, None),
    ]
    assert [{**c, "earlier": 0} for c in one["cells"]] == both["cells"][:4]
    assert both["earlier"] == [{key: one[key] for key in ("command", "commit", "date", "machine", "versions")}]
    assert both["command"].endswith("plan.toml --seeds 1 --add")
    assert not any("seed" in text for text in both["missing"])
    commands = [f"    {told['command']}" for told in (*both["earlier"], both)]
    assert len(set(commands)) == 2
    told = page.repeat(Figures(both), "place")
    assert told.partition("Trainings:")[2].split("\n\n")[1] == "\n".join(commands)
    [benchmark] = [text for text in told.split("\n\n") if text.startswith("Benchmark")]  # on one machine, at one commit
    assert benchmark.startswith("Benchmark at commit")
    elsewhere = page.repeat(Figures({**both, "machine": {"cpus": 64}}), "place")
    one, other = (text for text in elsewhere.split("\n\n") if text.startswith("Benchmark"))
    assert one.startswith("Benchmark of `random`, `bm25`, `base`, `trained` (seed 0) on all data sets at commit")
    assert other.startswith("Benchmark of `trained` (seed 1) on all data sets at commit")
    parts = elsewhere.split("\n\n")
    assert [parts[parts.index(text) + 1] for text in (one, other)] == commands
    # A third run has nothing to do, and is not told.
    work.clear()
    assert run.main(["plan.toml", *ELSEWHERE]) == 0
    assert work == []
    assert {**results(), "missing": []} == {**both, "missing": []}


@pytest.mark.usefixtures("plan_file")
def test_adapters_beside_the_plan_rank_more_lists_for_trainings_that_the_file_tells_of(work: list[str]) -> None:
    assert run.main(["plan.toml", "--limit", "2"]) == 0
    for seed in (0, 1):
        shutil.copytree(f"runs/experiments/trainings/learner/seed-{seed}/model", f"adapters/learner-seed-{seed}")
    before = results()
    shutil.rmtree("runs")
    work.clear()
    assert run.main(["plan.toml", "--limit", "3", "--add"]) == 0
    assert work == ["base: 3", "trained (seed 0): 3", "trained (seed 1): 3"]
    found = results()
    assert found["trainings"] == before["trainings"]
    assert not any("trained" in text for text in found["missing"])
    for old, new in zip(before["cells"], found["cells"], strict=True):
        assert new["values"]["MRR"][:2] == old["values"]["MRR"]
    # What no file tells of is trained.
    shutil.rmtree("runs")
    work.clear()
    assert run.main(["plan.toml", "--limit", "3", "--results", "anew", "--seeds", "0"]) == 0
    assert work == ["step 1 of seed 0", "step 2 of seed 0", "base: 3", "trained (seed 0): 3"]


@pytest.mark.usefixtures("plan_file")
def test_more_lists_take_the_place_of_fewer_and_fewer_of_none(work: list[str]) -> None:
    assert run.main(["plan.toml", "--seeds", "0", "--limit", "2"]) == 0
    work.clear()
    assert run.main(["plan.toml", "--seeds", "0", "--limit", "3", "--add"]) == 0
    assert work == ["base: 3", "trained (seed 0): 3"]
    found = results()
    assert found["data"]["lists.jsonl"]["test queries"] == "3 of 4"
    assert {len(c["values"]["MRR"]) for c in found["cells"]} == {3}
    assert "earlier" not in found
    work.clear()
    assert run.main(["plan.toml", "--seeds", "0", "--limit", "1", "--add"]) == 0
    assert work == []
    assert results() == found


@pytest.mark.usefixtures("finished")
def test_a_data_set_that_is_left_out_is_kept(work: list[str]) -> None:
    shutil.copyfile("lists.jsonl", "more.jsonl")
    change(Path("more.jsonl"), "question", "riddle")
    change(Path("plan.toml"), '"lists.jsonl", "rec-music"', '"lists.jsonl", "more.jsonl", "rec-music"')
    old = results()
    shutil.rmtree("runs")
    assert run.main(["plan.toml", "--data", "more.jsonl", *ELSEWHERE]) == 0
    assert work == ["base: 8"]
    found = results()
    assert found["datasets"] == ["lists.jsonl", "more.jsonl"]
    assert [{**c, "earlier": 0} for c in old["cells"]] == [c for c in found["cells"] if c["dataset"] == "lists.jsonl"]
    assert [c["row"] for c in found["cells"] if c["dataset"] == "more.jsonl"] == ["random", "bm25", "base"]
    assert not any(text.startswith("lists.jsonl") for text in found["missing"])
    assert "trained: of seeds 0, 1" in found["missing"]  # on the new lists


@pytest.mark.usefixtures("finished")
def test_lists_that_are_not_found_again_are_told_although_the_file_has_their_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("lists.jsonl").unlink()
    assert run.main(["plan.toml", "--data", "lists.jsonl", "--add"]) == 1
    assert "none of the plan's data sets is at hand (lists.jsonl: " in capsys.readouterr().err


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("lists.jsonl", "answer 0 to 1", "another answer", "of other lists of 'lists.jsonl'"),
        ("recipe.toml", "steps = 2\n", "steps = 3\n", "'learner' had steps = 2, and has 3 now"),
        (
            "recipe.toml",
            "learning_rate = 1e-3",
            "learning_rate = 2e-3",
            "train.learning_rate = 0.001, the recipe now says",
        ),
        (str(RESULTS), '"states_per_step":2', '"states_per_stop":2', "'config' that is no recipe of this version"),
        ("plan.toml", "seeds = [0, 1]", "seeds = [1]", "the training 'learner', seed 0, and the plan has not"),
        ("plan.toml", "thinking = false", "thinking = true", "the row 'base' was another one"),
        ("plan.toml", 'dtype = "float32"', 'dtype = "bfloat16"', "was another one"),
        ("plan.toml", "[bench]\n", "[bench]\nseeds = [0, 1]\n", "was another one"),
        ("plan.toml", 'name = "trained"', 'name = "learnt"', "has the row 'trained', and the plan has not"),
        (str(RESULTS), '"cells"', '"sells"', "is no experiment's results"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    file: str, old: str, new: str, said: str, work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    change(Path(file), old, new)
    before = RESULTS.read_text(encoding="utf-8")
    assert run.main(["plan.toml", *ELSEWHERE]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error
    assert "--add" in error
    assert work == []
    assert RESULTS.read_text(encoding="utf-8") == before


@pytest.mark.usefixtures("plan_file")
def test_seeds_are_not_averaged_over_different_lists(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["plan.toml", "--seeds", "0", "--limit", "2", "--out", "here"]) == 0
    work.clear()
    assert run.main(["plan.toml", "--seeds", "1", "--limit", "3", *ELSEWHERE]) == 1
    assert "seeds of 'trained' would have ranked 2 and 3 lists of 'lists.jsonl'" in capsys.readouterr().err
    assert [text for text in work if "step" not in text] == []  # told before anything is ranked


@pytest.mark.usefixtures("finished")
def test_a_file_from_before_it_said_the_benchmarks_seeds_is_added_to(work: list[str]) -> None:
    old = results()
    for told in old["asked"].values():
        del told["seeds"], told["dtype"]
    RESULTS.write_text(json.dumps(old), encoding="utf-8")
    change(Path("plan.toml"), "[bench]\n", "[bench]\nseeds = [0, 1]\n")
    assert run.main(["plan.toml", *ELSEWHERE]) == 0
    assert work == []


@pytest.mark.usefixtures("finished")
def test_a_file_from_before_recipes_were_kept_whole_is_added_to(work: list[str]) -> None:
    old = results()
    for told in old["trainings"]:
        assert told["config"]["train"]["learning_rate"] == 1e-3
        del told["config"]
    RESULTS.write_text(json.dumps(old), encoding="utf-8")
    assert run.main(["plan.toml", *ELSEWHERE]) == 0
    assert work == []


@pytest.mark.usefixtures("finished")
def test_what_decides_nothing_about_a_model_may_be_another(work: list[str]) -> None:
    change(Path("recipe.toml"), "checkpoint_every = 1", "checkpoint_every = 2")
    assert run.main(["plan.toml", *ELSEWHERE]) == 0
    assert work == []


def test_without_a_file_there_is_nothing_to_keep(plan_file: Path) -> None:
    assert load_kept(Path("no.json"), load_plan(plan_file)) == Kept()


def test_rows_go_where_lists_are_missing() -> None:
    rows = [RowConfig(name="a", model="m"), RowConfig(name="b", model="m", datasets=("y*",), limit=2)]
    cells = {("a", "x", None): cell("a", [1.0, 1.0], "x"), ("b", "y", None): cell("b", [1.0, 1.0], "y")}
    shown: dict[str, tuple[str, int | None]] = {"a": ("a", None), "b": ("b", None)}
    (found,) = only_unknown(rows, shown, {"x": 2, "y": 5}, Kept(cells=cells))
    assert (found.name, found.datasets) == ("a", ("y",))
    (more, _) = only_unknown(rows, shown, {"x": 3, "y": 5, "yy": 1}, Kept(cells=cells))
    assert more.datasets == ("x", "y", "yy")
    with pytest.raises(ConfigError, match="ranked 2 and 3 lists of 'x'"):
        only_unknown(rows[:1], {"a": ("t", 0)}, {"x": 3}, Kept(cells={("t", "x", 1): cell("t", [0.0, 0.0], "x", 1)}))


def test_baselines_run_again_where_one_or_a_list_is_missing() -> None:
    cells = [cell("random", [0.5, 0.5]), cell("bm25", [1.0, 1.0]), cell("random", [0.5], "other")]
    kept = Kept(cells={(c["row"], c["dataset"], c["seed"]): c for c in cells})
    assert known_baselines(["bm25"], {"d": 2}, kept)
    assert not known_baselines(["bm25"], {"d": 3}, kept)
    assert not known_baselines(["bm25"], {"d": 2, "other": 2}, kept)
    assert not known_baselines(["bm25", "bpr"], {"d": 2}, kept)


@pytest.mark.usefixtures("offline")
def test_variants_are_kept_and_count_in_nothing(plan_file: Path) -> None:
    variant = '[bench.data.variants]\n"first best" = { of = "lists.jsonl", options = { test_fraction = 1.0 } }\n'
    change(plan_file, '[[bench.rows]]\nname = "base"', f'{variant}[[bench.rows]]\nname = "base"')
    facts = dict.fromkeys(("command", "commit", "date", "machine", "versions"), "")
    new = {
        "cells": [cell("random", [0.5], "lists.jsonl"), cell("random", [0.5], "first best")],
        "data": {"lists.jsonl": {}, "first best": {}},
        "trainings": [],
        "asked": {},
        "missing": [],
        **facts,
    }
    found = merged(new, Kept(), load_plan(plan_file))
    assert found["datasets"] == ["lists.jsonl"]
    assert list(found["data"]) == ["lists.jsonl", "first best"]
    assert [c["dataset"] for c in found["cells"]] == ["lists.jsonl", "first best"]


@pytest.mark.usefixtures("offline")
def test_a_benchmark_without_a_cell_left_is_forgotten(plan_file: Path) -> None:
    def told(command: str) -> dict[str, Any]:
        return {"command": command, "commit": "c", "date": "d", "machine": {}, "versions": {}}

    cells = [cell("random", [0.5], "lists.jsonl", earlier=0), cell("base", [0.5], "lists.jsonl", earlier=1)]
    kept = Kept(
        notes=(
            "'random' on lists.jsonl: the model learned from 3 of them",
            "the row 'bm25' suits none of the data sets",
        ),
        cells={(c["row"], c["dataset"], c["seed"]): c for c in cells},
        data={"lists.jsonl": {}},
        benchmarks=[told("first"), told("second")],
    )
    new = {
        "cells": [cell("bm25", [0.5, 0.5], "lists.jsonl"), cell("base", [0.5, 1.0], "lists.jsonl")],
        "data": {},
        "trainings": [],
        "asked": {},
        "missing": ["elsewhere: left out (--data)"],
        "notes": ["the row 'base' suits none of the data sets", "the row 'other' suits none of the data sets"],
        **told("third"),
    }
    found = merged(new, kept, load_plan(plan_file))
    assert found["missing"] == ["elsewhere: left out (--data)"]
    assert found["notes"] == [  # a cell that is kept keeps what is to be known of it
        "'random' on lists.jsonl: the model learned from 3 of them",
        "the row 'other' suits none of the data sets",
    ]
    assert (found["command"], [b["command"] for b in found["earlier"]]) == ("third", ["first"])
    assert [(c["row"], c.get("earlier"), len(c["values"]["MRR"])) for c in found["cells"]] == [
        ("random", 0, 1),
        ("bm25", None, 2),
        ("base", None, 2),
    ]


@pytest.mark.usefixtures("plan_file")
def test_what_another_process_adds_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ["plan.toml", "--add", "--seeds", "0", "--row", "trained"]
    benchmark = run.run

    def meanwhile(*arguments: Any) -> Any:
        """Before this one is written, another one begins and ends."""
        monkeypatch.setattr(run, "run", benchmark)
        assert run.main(["plan.toml", "--add", "--seeds", "0", "--row", "base"]) == 0
        return benchmark(*arguments)

    monkeypatch.setattr(run, "run", meanwhile)
    assert run.main(ours) == 0
    assert [c["row"] for c in results()["cells"]] == ["random", "bm25", "base", "trained"]
    assert "base: left out (--row)" not in results()["missing"]

"""From a plan to its JSON: what is trained, what is not repeated, and what is told of the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from experiment_files import RESULTS, change, results

import page
import run
import training
from figures import Figures
from r1ranker.benchmark.contenders import ModelRow
from r1ranker.errors import AssetError
from r1ranker.fingerprints import model_fingerprint
from r1ranker.rl.loop import Loop
from results import as_text

FOLDER = Path("runs/experiments/trainings/learner")


def anew(*arguments: str) -> int:
    """A part of the plan in place of what the file holds."""
    RESULTS.unlink(missing_ok=True)
    return run.main(["plan.toml", *arguments])


def add_training(name: str, setting: str) -> None:
    """A second training to the plan, with one seed."""
    table = f"[[trainings]]\nname = '{name}'\nrecipe = 'recipe.toml'\nseeds = [0]\nset = ['{setting}']\n"
    change(Path("plan.toml"), "[bench]", f"{table}\n[bench]")


@pytest.mark.usefixtures("finished")
def test_the_json_holds_what_the_page_needs() -> None:
    found = results()
    assert found["rows"] == dict.fromkeys(["random", "bm25", "base", "trained", "elsewhere"], "base")
    assert found["datasets"] == ["lists.jsonl"]
    assert found["data"]["lists.jsonl"]["test queries"] == "4 of 4"
    assert found["data"]["lists.jsonl"]["scenario"] == "passage"
    assert [(cell["row"], cell["seed"]) for cell in found["cells"]] == [
        ("random", None),
        ("bm25", None),
        ("base", None),
        ("trained", 0),
        ("trained", 1),
    ]
    assert found["cells"][0]["values"]["MRR"] == [0.6111111111] * 4  # (1 + 1/2 + 1/3) / 3
    assert all(list(cell["values"]) == ["MRR", "nDCG@10", "Hit@1"] for cell in found["cells"])
    first, second = found["trainings"]
    assert (first["seed"], second["seed"], first["steps"], first["recipe"]) == (0, 1, 2, "recipe.toml")
    rows = [json.loads(line) for line in (FOLDER / "seed-0/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert first["tokens"] == sum(row["tokens"] for row in rows) > 0
    assert first["curve"] == {
        "step": [1, 2],
        "reward": [round(row["reward"], 4) for row in rows],
        "chance": [round(row["reward_uniform"], 4) for row in rows],
    }
    assert first["curve"] != second["curve"]
    assert found["command"] == first["command"] == "python experiments/run.py plan.toml --source rec-music=music"
    assert [text.partition(":")[0] for text in found["missing"]] == ["rec-music", "elsewhere"]
    assert {"commit", "date", "machine", "versions"} <= set(found)


@pytest.mark.usefixtures("finished")
def test_nothing_is_repeated(work: list[str]) -> None:
    before = results()
    assert run.main(["plan.toml"]) == 0
    assert work == []
    assert results()["cells"] == before["cells"]


@pytest.mark.usefixtures("finished")
def test_a_model_that_fails_is_told_in_the_json_and_by_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def down(*_: object) -> None:
        raise AssetError("the server is down")

    shutil.rmtree("runs/experiments/bench/cache")
    monkeypatch.setattr(ModelRow, "rank", down)
    assert run.main(["plan.toml"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: run the same command again: 'base' failed on")
    assert "'base' failed on lists.jsonl: the server is down" in results()["missing"]
    assert [cell["row"] for cell in results()["cells"]] == ["random", "bm25"]


@pytest.mark.usefixtures("finished")
def test_seeds_that_lack_the_same_are_told_together(work: list[str]) -> None:
    change(Path("plan.toml"), "seeds = [0, 1]", "seeds = [0, 1, 2, 3]")
    assert anew("--seeds", "0") == 0
    assert work == []
    assert "not trained: learner (seeds 2, 3)" in results()["missing"]
    assert not any(text.startswith("trained:") for text in results()["missing"])  # its row says no more


@pytest.mark.usefixtures("finished")
def test_a_joined_row_has_the_cells_of_its_parts(work: list[str]) -> None:
    joined = '[joined]\n"what was trained" = ["trained", "of others"]\n\n'
    change(Path("plan.toml"), "[bench]\n", joined + "[bench]\n")
    change(Path("plan.toml"), 'model = "run:learner"', 'model = "run:learner"\ndatasets = ["lists.jsonl"]')
    with Path("plan.toml").open("a", encoding="utf-8") as file:
        file.write('\n[[bench.rows]]\nname = "of others"\nmodel = "run:learner"\ndatasets = ["rec-music"]\n')
    before = [cell["values"] for cell in results()["cells"] if cell["row"] == "trained"]
    assert run.main(["plan.toml"]) == 0
    assert work == []
    found = results()
    assert list(found["rows"]) == ["random", "bm25", "base", "what was trained", "elsewhere"]
    cells = [cell for cell in found["cells"] if cell["row"] == "what was trained"]
    assert [cell["seed"] for cell in cells] == [0, 1]
    assert [cell["values"] for cell in cells] == before


@pytest.mark.usefixtures("plan_file")
def test_a_part_is_told_as_a_part_and_the_rest_is_done_later(
    work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["plan.toml", "--only", "learner", "--seeds", "1", "--limit", "3"]) == 0
    assert capsys.readouterr().out.strip() == str(RESULTS)
    assert work == ["step 1 of seed 1", "step 2 of seed 1", "base: 3", "trained (seed 1): 3"]
    assert [(cell["row"], cell["seed"], len(cell["values"]["MRR"])) for cell in results()["cells"]][2:] == [
        ("base", None, 3),
        ("trained", 1, 3),
    ]
    assert "not trained: learner (seed 0)" in results()["missing"]
    work.clear()
    assert run.main(["plan.toml"]) == 0
    assert work[:2] == ["step 1 of seed 0", "step 2 of seed 0"]
    assert not any("seed" in text for text in results()["missing"])


@pytest.mark.usefixtures("finished")
def test_the_queries_of_each_data_set_are_told_apart() -> None:
    (queries,) = (told["queries"] for told in results()["data"].values())
    assert len(set(queries)) == len(queries) == 4


@pytest.mark.usefixtures("finished")
def test_a_part_does_not_replace_what_the_file_holds(work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = RESULTS.read_text(encoding="utf-8")
    for part in ("--seeds 0", "--only learner", "--data lists.jsonl", "--row base", "--limit 3"):
        assert run.main(["plan.toml", *part.split()]) == 1
        assert "which this part of the plan would replace: add to them with --add" in capsys.readouterr().err
    assert (work, RESULTS.read_text(encoding="utf-8")) == ([], before)
    some = ["--data", "lists.jsonl", "--limit", "3"]
    assert run.main(["plan.toml", *some, "--results", "mine"]) == 0
    assert run.main(["plan.toml", *some, "--results=mine", "--out", str(run.OUT)]) == 0  # the same once more
    told = json.loads(Path("mine/tiny.json").read_text(encoding="utf-8"))["command"]
    assert told == "python experiments/run.py plan.toml --data lists.jsonl --limit 3"


@pytest.mark.usefixtures("finished")
def test_a_data_set_that_is_left_out_is_told_so() -> None:
    (before,) = (text for text in results()["missing"] if "rec-music" in text)
    assert "left out" not in before
    assert anew("--data", "lists.jsonl") == 0
    assert results()["datasets"] == ["lists.jsonl"]
    assert "rec-music: left out (--data)" in results()["missing"]


@pytest.mark.usefixtures("finished")
def test_a_row_that_is_left_out_is_told_so_and_can_be_added(work: list[str]) -> None:
    before = results()["cells"]
    assert anew("--row", "base") == 0
    assert [cell["row"] for cell in results()["cells"]] == ["random", "bm25", "base"]
    assert "trained: of seeds 0, 1" in results()["missing"]
    assert anew("--row", "trained") == 0
    assert [cell["row"] for cell in results()["cells"]] == ["random", "bm25", "trained", "trained"]
    assert {"base: left out (--row)", "elsewhere: left out (--row)"} <= set(results()["missing"])
    assert run.main(["plan.toml", "--add", "--row", "base"]) == 0
    assert [{**cell, "earlier": 0} for cell in results()["cells"]] == [{**cell, "earlier": 0} for cell in before]
    assert not any("base" in text or "trained" in text for text in results()["missing"])
    assert work == []


@pytest.mark.usefixtures("plan_file")
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(
    work: list[str], one_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Loop.take_step

    def stop(self: Loop, number: int) -> dict[str, float]:
        if number == 1:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "take_step", stop)
        assert run.main(["plan.toml", "--seeds", "0"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("run the same command again to go on")
    assert not RESULTS.exists()
    work.clear()
    assert run.main(["plan.toml", "--seeds", "0"]) == 0
    assert work[0] == "step 2 of seed 0"
    whole = json.loads((one_run / RESULTS).read_text(encoding="utf-8"))
    assert results()["trainings"][0]["curve"] == whole["trainings"][0]["curve"]


@pytest.mark.usefixtures("finished")
def test_a_stopped_training_says_how_far_it_is() -> None:
    (FOLDER / "seed-1" / training.DONE).unlink()
    assert anew("--seeds", "0") == 0
    assert "trained to step 2 of 2: learner (seed 1)" in results()["missing"]


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("recipe.toml", "learning_rate = 1e-3", "learning_rate = 1e-2", "train.learning_rate = 0.001"),
        ("recipe.toml", "steps = 2\n", "steps = 3\n", "train.steps = 2"),
        ("plan.toml", "seeds = [0, 1]", 'seeds = [0, 1]\nset = ["ranker.sharpness=2.0"]', "ranker.sharpness = 3.0"),
    ],
)
def test_other_settings_are_an_error_that_names_them(
    file: str, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(Path(file), old, new)
    assert run.main(["plan.toml"]) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "--out" in error
    assert "\n" not in error


@pytest.mark.usefixtures("finished")
def test_settings_that_decide_nothing_may_change(work: list[str]) -> None:
    change(Path("recipe.toml"), "checkpoint_every = 1", "checkpoint_every = 2\n[evaluation]\nlimit = 1")
    assert run.main(["plan.toml"]) == 0
    assert work == []


@pytest.mark.usefixtures("plan_file")
@pytest.mark.parametrize("finished_already", [False, True])
def test_a_training_that_learns_from_what_is_tested_is_refused(
    finished_already: bool, work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if finished_already:
        assert run.main(["plan.toml", "--seeds", "0"]) == 0
        work.clear()
    change(Path("plan.toml"), "test_fraction = 0.5", "test_fraction = 1.0")
    assert run.main(["plan.toml"]) == 1
    assert "'learner' learns from 4 of the 8 test lists of 'lists.jsonl'" in capsys.readouterr().err
    assert work == []


@pytest.mark.usefixtures("plan_file")
def test_what_only_leaves_out_is_compared_with_the_test_lists_once_it_is_trained(
    work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # "greedy" learns from six of the eight lists, "learner" from the four that the benchmark does not test.
    add_training("greedy", 'data.options."lists.jsonl".test_fraction=0.25')
    refused = "'greedy' learns from 2 of the 4 test lists of 'lists.jsonl'"
    assert run.main(["plan.toml"]) == 1
    assert refused in capsys.readouterr().err
    assert work == []
    # Neither trained nor to be trained, it says nothing of this run's figures.
    assert run.main(["plan.toml", "--only", "learner", "--seeds", "0"]) == 0
    assert "not trained: learner (seed 1), greedy (seed 0)" in results()["missing"]
    # Trained where it was fair, it is among the results of this run too.
    change(Path("plan.toml"), '"lists.jsonl"]\ntest_fraction = 0.5', '"lists.jsonl"]\ntest_fraction = 0.25')
    assert anew("--only", "greedy", "--out", "elsewhere") == 0
    change(Path("plan.toml"), '"lists.jsonl"]\ntest_fraction = 0.25', '"lists.jsonl"]\ntest_fraction = 0.5')
    capsys.readouterr()
    work.clear()
    assert anew("--only", "learner", "--out", "elsewhere") == 1
    assert refused in capsys.readouterr().err
    assert work == []


@pytest.mark.usefixtures("plan_file")
def test_the_data_of_what_only_leaves_out_need_not_be_at_hand(capsys: pytest.CaptureFixture[str]) -> None:
    other = Path("lists.jsonl").read_text(encoding="utf-8").replace("question", "riddle")
    add_training("riddler", 'data.names=["riddles.jsonl"]')
    learner = ["--only", "learner", "--seeds", "0"]
    assert anew(*learner) == 0
    assert not any("riddles.jsonl" in text for text in results()["missing"])
    assert anew("--only", "riddler") == 1
    assert "riddles.jsonl" in capsys.readouterr().err
    Path("riddles.jsonl").write_text(other, encoding="utf-8")
    assert anew("--only", "riddler") == 0
    Path("riddles.jsonl").unlink()
    assert anew(*learner) == 0
    (told,) = (text for text in results()["missing"] if "riddle" in text)
    assert told.startswith("training riddler: not compared with the test lists, ")


@pytest.mark.usefixtures("plan_file")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "no plan 'nothing'"),
        (["plan.toml", "--only", "learnt"], "--only learnt: the plan has learner"),
        (["plan.toml", "--seeds", "7"], "--seeds 7: the plan has 0, 1"),
        (["plan.toml", "--data", "rec-movie"], "--data rec-movie: the plan has lists.jsonl, rec-music"),
        (["plan.toml", "--row", "bm25"], "--row bm25: the plan has base, trained, elsewhere"),
        (["plan.toml", "--limit", "0"], "--limit 0"),
        (["plan.toml", "--source", "rec-music"], "write it as name=path"),
        (["plan.toml", "--source", "rec-game=x"], "no such data set"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(arguments) == 1
    assert said in capsys.readouterr().err


def test_nothing_at_hand_is_an_error(plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(plan_file, '"lists.jsonl", "rec-music"', '"rec-music"')
    change(plan_file, '[bench.data.options."lists.jsonl"]\ntest_fraction = 0.5\n', "")
    assert run.main(["plan.toml"]) == 1
    assert "none of the plan's data sets is at hand (rec-music: " in capsys.readouterr().err


def test_the_text_is_json_with_a_line_for_each_cell() -> None:
    whole = {"name": "é", "trainings": [], "cells": [{"row": "a"}, {"row": "b"}]}
    assert json.loads(as_text(whole)) == whole
    assert as_text(whole).splitlines()[4:6] == ['{"row":"a"},', '{"row":"b"}']


@pytest.mark.usefixtures("plan_file")
def test_a_training_goes_on_with_the_adapter_of_the_one_before(work: list[str]) -> None:
    pytest.importorskip("peft")
    lora = "set = ['model.lora_rank=2', 'train.kl_coef=0']"
    change(Path("plan.toml"), "seeds = [0, 1]", f"seeds = [0, 1]\n{lora}")
    further = f"[[trainings]]\nname = 'further'\nrecipe = 'recipe.toml'\nafter = 'learner'\nseeds = [1]\n{lora}\n"
    change(Path("plan.toml"), "[bench]", f"{further}\n[bench]")
    assert run.main(["plan.toml", "--seeds", "1"]) == 0
    assert [what for what in work if "step" in what] == ["step 1 of seed 1", "step 2 of seed 1"] * 2
    first, second = results()["trainings"]
    assert (first.get("after"), second["after"]) == (None, "learner")
    config = json.loads(Path("runs/experiments/trainings/further/seed-1/config.json").read_text(encoding="utf-8"))
    assert config["model"]["adapter"] == str(FOLDER / "seed-1" / "model")
    columns, rows = page.training_table(Figures(results()), "place", [])
    assert [row[columns.index("changed")].partition(", ")[0] for row in rows] == [
        "`model.lora_rank=2`",
        "begins at learner",
    ]


@pytest.mark.usefixtures("plan_file")
def test_a_training_that_goes_on_is_made_again_where_the_one_before_was(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peft")
    lora = "set = ['model.lora_rank=2', 'train.kl_coef=0']"
    change(Path("plan.toml"), "seeds = [0, 1]", f"seeds = [1]\n{lora}")
    further = f"[[trainings]]\nname = 'further'\nrecipe = 'recipe.toml'\nafter = 'learner'\nseeds = [1]\n{lora}\n"
    change(Path("plan.toml"), "[bench]", f"{further}\n[bench]")
    assert run.main(["plan.toml"]) == 0
    weights = FOLDER / "seed-1/model/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    model_fingerprint.cache_clear()
    capsys.readouterr()
    assert run.main(["plan.toml"]) == 1
    assert "further/seed-1 went on from another model than" in capsys.readouterr().err


@pytest.mark.usefixtures("plan_file")
def test_a_data_set_can_be_named_by_an_absolute_path(work: list[str]) -> None:
    lists = Path("lists.jsonl").resolve()
    change(Path("plan.toml"), '"lists.jsonl", "rec-music"', f'"{lists}"')
    change(Path("plan.toml"), 'options."lists.jsonl"', f'options."{lists}"')
    assert run.main(["plan.toml", "--row", "base", "--seeds", "0", "--only", "learner"]) == 0
    assert results()["datasets"] == [str(lists)]
    assert {cell["dataset"] for cell in results()["cells"]} == set(results()["data"]) == {str(lists)}
    work.clear()
    assert run.main(["plan.toml", "--row", "base", "--seeds", "0", "--add"]) == 0
    assert work == []

"""`r1ranker train`: a run, its continuation, what it leaves, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import Result

from r1ranker.cli import mixing, recipes, runs
from r1ranker.config import load_config
from r1ranker.datasets import Dataset
from r1ranker.errors import ConfigError, R1RankerError
from r1ranker.fingerprints import model_fingerprint
from r1ranker.types import Candidate, RankingExample

Invoke = Callable[..., Result]


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path, tasks_file: Path) -> Path:
    """Two steps of all_actions on four lists."""
    path = tmp_path / "tiny.toml"
    path.write_text(
        f"""# A tiny run.
name = "tiny"
[model]
path = "{tiny_folder}"
precision = "fp32"
[data]
names = ["{tasks_file}"]
[data.options."{tasks_file}"]
test_fraction = 0.5
[ranker]
thinking = false
max_tokens = 16
[train]
algorithm = "all_actions"
steps = 2
states_per_step = 2
learning_rate = 1e-3
checkpoint_every = 1
[evaluation]
direct = false
""",
        encoding="utf-8",
    )
    return path


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_is_saved_compared_and_resumed(cli: Invoke, recipe: Path) -> None:
    first = cli("train", recipe)
    assert first.exit_code == 0, first.stderr
    folder = Path("runs/tiny")
    assert steps(folder) == [1, 2]
    for name in ("model/ranker.json", "model/model.safetensors", "reward.png", "evaluation/tasks/report.json"):
        assert (folder / name).exists(), name
    assert "tiny (trained)" in first.stdout
    assert str(folder / "model") in first.stdout

    again = cli("train", recipe, "--no-eval")
    assert again.exit_code == 1
    assert "--resume" in again.stderr

    resumed = cli("train", recipe, "--resume", "--set", "train.steps=4", "--no-eval")
    assert resumed.exit_code == 0, resumed.stderr
    assert steps(folder) == [1, 2, 3, 4]
    facts = json.loads((folder / "model/ranker.json").read_text(encoding="utf-8"))
    assert facts["ranker"]["thinking"] is False
    took = [json.loads(line)["seconds"] for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert facts["facts"]["seconds"] == round(sum(took), 1)  # the steps before the stop too
    assert facts["facts"]["steps"] == 4

    # The folder knows how its model is asked.
    ranked = cli("rank", "-q", "question number 1", "-d", "a", "-d", "b", "--model", folder / "model")
    assert ranked.exit_code == 0


def test_a_run_with_validation_saves_the_best_step_and_tells_of_it(cli: Invoke, recipe: Path) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8") + "[validation]\nlists = 1\nevery = 1\n", encoding="utf-8")
    run = cli("train", recipe, "--no-eval")
    assert run.exit_code == 0, run.stderr
    folder = Path("runs/tiny")
    found = [json.loads(line) for line in (folder / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in found] == [0, 1, 2]
    assert all(set(row) == {"step", "MRR", "nDCG@5", "nDCG@10", "Hit@1", "Hit@5"} for row in found)
    assert all(0 < row["MRR"] <= 1 for row in found)
    best = max(found[1:], key=lambda row: row["MRR"])["step"]
    assert told(folder / "model")["best_step"] == best
    assert f"the model is that of step {best}, the best by MRR of validation" in run.stdout
    assert "1 training lists kept out for validation" in run.stderr
    # Beside the reward, while it trains
    assert runs._note({"reward": 0.5, "validation/MRR": 0.25}) == "reward 0.500, validation/MRR 0.250"

    kept = folder / "checkpoints" / "best" / f"step-{best:06d}"
    assert cli("model", "save", kept, "--out", "best").exit_code == 0
    assert (Path("best/model.safetensors")).read_bytes() == (folder / "model/model.safetensors").read_bytes()


def test_too_many_lists_to_validate_on_are_refused_before_anything_is_trained(cli: Invoke, recipe: Path) -> None:
    refused = cli("train", recipe, "--set", "validation.lists=99", "--no-eval")
    assert refused.exit_code == 1
    assert "validation.lists = 99 of" in refused.stderr
    assert not Path("runs/tiny/checkpoints").exists()


def told(folder: Path | str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((Path(folder) / "ranker.json").read_text(encoding="utf-8"))["facts"]
    return facts


def test_a_checkpoint_becomes_the_model_that_its_run_would_have_saved(cli: Invoke, recipe: Path) -> None:
    assert cli("train", recipe, "--no-eval").exit_code == 0
    run = Path("runs/tiny")
    last = cli("model", "save", run, "--out", "new/last")
    assert (last.exit_code, last.stdout) == (0, "new/last\n"), last.stderr
    assert "the model is that of runs/tiny/checkpoints/step-000002" in last.stderr
    assert [path.name for path in Path("new").iterdir()] == ["last"]  # nothing is left beside it
    assert (Path("new/last/model.safetensors")).read_bytes() == (run / "model/model.safetensors").read_bytes()
    written, asked = (json.loads((f / "ranker.json").read_text()) for f in (Path("new/last"), run / "model"))
    for one in (written, asked):
        assert 0 <= one["facts"].pop("seconds") < 600  # rounded to a tenth, which a fast machine does not take
    assert written == asked
    assert asked["facts"]["fingerprints"]

    first = cli("model", "save", run / "checkpoints/step-000001", "--out", "first")
    assert first.exit_code == 0, first.stderr
    assert Path("first/model.safetensors").read_bytes() != Path("new/last/model.safetensors").read_bytes()
    row = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    facts = told("first")
    assert (facts["steps"], facts["last_reward"]) == (1, row["reward"])
    assert facts["seconds"] == pytest.approx(row["seconds"], abs=0.05)
    assert cli("rank", "-q", "question number 1", "-d", "a", "-d", "b", "--model", "first").exit_code == 0

    shutil.copytree(run / "checkpoints/step-000001", "elsewhere/step-000001")  # away from what its run tells
    assert cli("model", "save", "elsewhere/step-000001", "--out", "copied").exit_code == 0
    names = ("recipe", "options", "algorithm", "steps", "seed")
    assert {name: facts[name] for name in names} == {name: told("copied")[name] for name in names}
    assert not {"fingerprint", "seconds", "versions", "last_reward"} & told("copied").keys()


def test_what_cannot_be_saved_as_a_model_is_named(
    cli: Invoke, recipe: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path("base")
    shutil.copytree(tiny_folder, place)
    assert cli("train", recipe, "--no-eval", "--set", f"model.path={place}").exit_code == 0

    def refused(said: str, folder: Path | str = "runs/tiny", out: str = "new") -> None:
        result = cli("model", "save", folder, "--out", out)
        assert result.exit_code == 1
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
        assert not Path("new").exists()

    refused("base is there already: choose a new folder", out="base")
    refused("base is no checkpoint, and no run's folder with one: give RUN/checkpoints/step-", "base")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_ranker", full)
        refused("new: the model cannot be saved ([Errno 28] No space left on device): make room")
    facts = Path("runs/tiny/facts.json")
    kept = facts.read_text(encoding="utf-8")
    facts.write_text("{}", encoding="utf-8")
    refused("facts.json cannot be read ('base'): delete it")
    facts.write_text(kept, encoding="utf-8")
    weights = load_file(place / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, place / "model.safetensors", {"format": "pt"})
    model_fingerprint.cache_clear()  # as a new process begins
    refused("base is another model than when the run in")
    with (Path("runs/tiny/checkpoints/step-000002") / "policy.safetensors").open("ab") as file:
        file.write(b"more")
    refused("policy.safetensors: missing or not what was written")


def test_a_checkpoint_that_is_given_as_a_model_names_the_command(cli: Invoke, recipe: Path) -> None:
    assert cli("train", recipe, "--no-eval", "--set", "train.steps=1").exit_code == 0
    checkpoint = "runs/tiny/checkpoints/step-000001"
    commands: tuple[tuple[object, ...], ...] = (
        ("rank", "-q", "question", "-d", "a", "-d", "b", "--model"),
        ("evaluate", "--dataset", "tasks.jsonl", "--model"),
        ("model", "export", "--out", "model.gguf"),
        ("model", "pack", "--out", "packed"),
    )
    for command in commands:
        result = cli(*command, checkpoint)
        assert result.exit_code == 1
        assert (
            f"{checkpoint} is a checkpoint of a training, and no model: r1ranker model save {checkpoint} --out FOLDER"
            in result.stderr
        )
    ranked = cli(*commands[0], "runs/tiny")
    assert ranked.exit_code == 0  # it has a model, which stands for the run
    shutil.rmtree("runs/tiny/model")
    result = cli(*commands[0], "runs/tiny")
    assert result.exit_code == 1
    assert "runs/tiny is of a training that has checkpoints, and no model yet: r1ranker model save" in result.stderr


def test_two_trainings_in_one_folder_do_not_mix(recipe: Path, tmp_path: Path) -> None:
    config, folder = load_config(recipe), tmp_path / "run"
    refused: list[str] = []

    def second(*_: object) -> None:
        with pytest.raises(R1RankerError) as caught:
            runs.train_run(config, folder, resume=True, bar=False)
        refused.append(str(caught.value))

    runs.train_run(config, folder, on_step=second, bar=False)
    assert refused == 2 * [f"another process trains in {folder}: wait for its end, or train into another folder"]
    assert steps(folder) == [1, 2]
    more = load_config(recipe, ["train.steps=3"])
    runs.train_run(more, folder, resume=True, bar=False)  # the lock is free again
    assert steps(folder) == [1, 2, 3]


def passage(id: str, query: str) -> RankingExample:
    return RankingExample(id, "passage", (Candidate("a", "x"), Candidate("b", "y")), query, relevance={"a": 1})


def test_a_run_on_data_of_its_own_tells_of_these(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe)
    own = Dataset("mine", tuple(passage(f"q{k}", f"question {k}") for k in range(4)), ())
    runs.train_run(config, tmp_path / "one", dataset=own, bar=False)
    facts = told(tmp_path / "one/model")
    assert (facts["data"], facts["options"], facts["fingerprint"]) == ("mine", {"mine": {}}, own.fingerprint())

    (name,) = config.data.names
    other = Dataset(name, tuple(passage(f"r{k}", f"riddle {k}") for k in range(2)), ())
    runs.train_run(config, tmp_path / "two", dataset=mixing.mix([own, other]), bar=False)
    assert told(tmp_path / "two/model")["options"] == {"mine": {}, name: {"test_fraction": 0.5}}
    runs.save_model(tmp_path / "two", tmp_path / "saved")
    assert told(tmp_path / "saved")["data"] == f"mine+{name}"


def test_an_adapter_knows_its_base_from_anywhere(
    cli: Invoke, recipe: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    (tmp_path / "base").symlink_to(tiny_folder)
    lora = ["--set", "model.path=base", "--set", "model.lora_rank=2", "--set", "train.kl_coef=0", "--no-eval"]
    trained = cli("train", recipe, *lora, "--out", "mine")
    assert trained.exit_code == 0, trained.stderr
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ranked = cli("rank", "-q", "question number 1", "-d", "a", "-d", "b", "--model", tmp_path / "mine/model")
    assert ranked.exit_code == 0, ranked.stderr


def test_files_of_one_name_have_reports_of_their_own(cli: Invoke, recipe: Path, tasks_file: Path) -> None:
    other = Path("other") / tasks_file.name
    other.parent.mkdir()
    other.write_text(tasks_file.read_text(encoding="utf-8").replace("question", "riddle"), encoding="utf-8")
    names = f'data.names=["{tasks_file}", "{other}"]'
    options = f'data.options."{other}".test_fraction=0.5'
    trained = cli("train", recipe, "--set", names, "--set", options, "--set", "train.steps=1")
    assert trained.exit_code == 0, trained.stderr
    reports = sorted(path.parent.name for path in Path("runs/tiny/evaluation").glob("*/report.json"))
    assert reports == ["tasks", "tasks-2"]


def test_a_run_goes_on_with_the_adapter_of_another(cli: Invoke, recipe: Path) -> None:
    pytest.importorskip("peft")
    lora = ["--set", "model.lora_rank=2", "--set", "train.kl_coef=0", "--no-eval"]
    assert cli("train", recipe, *lora, "--out", "first").exit_code == 0
    begun = ["--set", "model.adapter=first/model", "--set", "seed=1"]
    went_on = cli("train", recipe, *lora, *begun, "--out", "second")
    assert went_on.exit_code == 0, went_on.stderr
    ranker = json.loads(Path("second/model/ranker.json").read_text(encoding="utf-8"))
    earlier = json.loads(Path("first/model/ranker.json").read_text(encoding="utf-8"))
    assert ranker["facts"]["began_at"] == earlier["facts"]
    assert ranker["base"] == earlier["base"] != "first/model"

    shutil.rmtree("first")
    assert cli("model", "save", "second", "--out", "saved").exit_code == 0
    name = "adapter_model.safetensors"
    assert Path("saved", name).read_bytes() == Path("second/model", name).read_bytes()
    assert told("saved")["began_at"] == earlier["facts"]


def test_a_run_that_begins_at_a_trained_folder_says_so(cli: Invoke, recipe: Path) -> None:
    assert cli("train", recipe, "--no-eval", "--out", "first").exit_code == 0
    went_on = cli("train", recipe, "--no-eval", "--set", "model.path=first/model", "--out", "second")
    assert went_on.exit_code == 0, went_on.stderr
    first, second = (
        json.loads(Path(f"{name}/model/ranker.json").read_text(encoding="utf-8"))["facts"]
        for name in ("first", "second")
    )
    assert "began_at" not in first
    assert second["began_at"] == first


WARMUP = (
    "ranker.thinking=true",
    "ranker.max_tokens=64",
    "train.algorithm=grpo",
    "train.group_size=2",
    "train.kl_coef=0",
    "warmup.rounds=1",
    "warmup.states=2",
    "warmup.samples=2",
)


def test_a_run_with_a_warm_up_says_what_it_kept(
    cli: Invoke, recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sets = [word for setting in (*WARMUP, "train.steps=1") for word in ("--set", setting)]
    nothing = cli("train", recipe, "--no-eval", *sets)
    assert nothing.exit_code == 1
    assert "kept none of the 4 completions of its first round" in nothing.stderr
    assert "warmup.force_format = true" in nothing.stderr

    sets += ["--set", "warmup.force_format=true"]
    noted: list[tuple[str, int, str]] = []
    monkeypatch.setattr(runs.Bar, "update", lambda bar, done, note: noted.append((bar.what, done, note)))
    first = cli("train", recipe, "--no-eval", *sets)
    assert first.exit_code == 0, first.stderr
    assert [(what, done) for what, done, _ in noted] == [("warm-up", 1), ("training", 1)]
    row = json.loads((tmp_path / "runs/tiny/warmup.jsonl").read_text(encoding="utf-8"))
    assert f"accepted {row['accepted']:.0f} of 4 completions" in noted[0][2]
    assert f"warm-up, round 1: {row['accepted']:.0f} of 4 completions accepted, {row['kept']:.0f} kept" in first.stdout
    assert json.loads(Path("runs/tiny/model/ranker.json").read_text(encoding="utf-8"))["facts"]["warmup_rounds"] == 1
    warm, trained = runs.run_checkpoints(Path("runs/tiny"))
    assert (warm.parent.name, trained.parent.name) == ("warmup", "checkpoints")
    for path, counts in ((warm, (1, 0)), (trained, (1, 1))):
        assert cli("model", "save", path, "--out", path.name).exit_code == 0
        assert (told(path.name)["warmup_rounds"], told(path.name)["steps"]) == counts
        assert "fingerprint" in told(path.name)
        shutil.rmtree(path.name)

    resumed = cli("train", recipe, "--no-eval", "--resume", *sets, "--set", "train.steps=2")
    assert resumed.exit_code == 0, resumed.stderr
    assert steps(Path("runs/tiny")) == [1, 2]


def test_a_run_does_not_go_on_from_another_model_in_the_same_place(
    cli: Invoke, recipe: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "base"
    shutil.copytree(tiny_folder, place)
    sets = ["--no-eval", "--set", f"model.path={place}"]
    assert cli("train", recipe, *sets).exit_code == 0
    weights = load_file(place / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, place / "model.safetensors", {"format": "pt"})
    model_fingerprint.cache_clear()  # as a new process begins
    resumed = cli("train", recipe, *sets, "--resume", "--set", "train.steps=3")
    assert resumed.exit_code == 1
    assert "the weights of the untrained model are others than when the run began" in resumed.stderr
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    model_fingerprint.cache_clear()
    assert cli("train", recipe, *sets, "--resume", "--set", "train.steps=3").exit_code == 0
    assert steps(Path("runs/tiny")) == [1, 2, 3]


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_or_sigterm_keeps_a_checkpoint_and_says_so(
    recipe: Path, tmp_path: Path, sent: signal.Signals, exit_code: int
) -> None:
    command = [sys.executable, "-m", "r1ranker.cli.app", "train", str(recipe), "--no-eval"]
    command += ["--set", "train.steps=100000", "--set", "train.checkpoint_every=100000"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell that runs the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    metrics = tmp_path / "runs/tiny/metrics.jsonl"
    for _ in range(1200):
        if process.poll() is not None or (metrics.exists() and metrics.stat().st_size):
            break
        time.sleep(0.1)
    process.send_signal(sent)
    try:
        _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == exit_code, complaint
    assert "Traceback" not in complaint
    said = complaint.splitlines()[-1]
    assert said.startswith("stopped. The checkpoint is kept in runs/tiny/checkpoints/step-")
    assert said.endswith("or `r1ranker model save runs/tiny --out FOLDER` to use it as it is")
    runs.save_model(tmp_path / "runs/tiny", tmp_path / "saved")
    assert told(tmp_path / "saved")["steps"] == steps(tmp_path / "runs/tiny")[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("demmo",), "did you mean 'demo'?"),
        ((), "train --list"),
        (("demo", "--set", "train.stepz=3"), "did you mean 'train.steps'?"),
        (("demo", "--set", "train.steps=many"), "train.steps: "),
        (("demo", "--set", "train.steps"), "write it as key=value"),
        (("demo", "--set", "data.options.rec-movie={}", "--set", 'data.names=["rec-movi"]'), "rec-movie"),
    ],
)
def test_a_wrong_recipe_or_setting_is_named(cli: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = cli("train", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_key_with_dots_of_its_own_stands_in_quotes(cli: Invoke, recipe: Path, tasks_file: Path) -> None:
    result = cli("train", recipe, "--no-eval", "--set", f'data.options."{tasks_file}".test_fraction=0.25')
    assert result.exit_code == 0, result.stderr
    assert "3 examples to train on, 1 to test" in result.stderr


def test_a_folder_that_cannot_be_written_is_said_before_the_model_is_loaded(cli: Invoke, recipe: Path) -> None:
    Path("file").write_text("", encoding="utf-8")
    result = cli("train", recipe, "--out", "file/run", "--set", "model.path=no-such-model")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_a_full_disk_at_the_end_leaves_the_checkpoint(
    cli: Invoke, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "save_ranker", full)
    result = cli("train", recipe)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert "runs/tiny/checkpoints/step-000002" in result.stderr
    assert "--resume" in result.stderr


def test_recipes_are_listed_with_what_they_say_of_themselves(cli: Invoke) -> None:
    lines = cli("train", "--list").stdout.splitlines()
    assert len(lines) == len(recipes.shipped_recipes()) > 0
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_every_shipped_recipe_is_valid() -> None:
    for path in recipes.shipped_recipes():
        assert load_config(recipes.find_recipe(path.stem)).name == path.stem


def test_a_file_comes_before_a_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipes.find_recipe("demo.toml").parent == recipes.FOLDER
    Path("demo.toml").write_text("", encoding="utf-8")
    assert recipes.find_recipe("demo.toml") == Path("demo.toml")
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        recipes.find_recipe("demoo")


def test_no_training_examples_is_one_message(recipe: Path, tmp_path: Path, tasks_file: Path) -> None:
    config = load_config(recipe)
    everything = config.data.model_copy(update={"options": {str(tasks_file): {"test_fraction": 1.0}}})
    with pytest.raises(R1RankerError, match="no training examples"):
        runs.train_run(config.model_copy(update={"data": everything}), tmp_path / "run")

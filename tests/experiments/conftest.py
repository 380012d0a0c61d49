"""What the tests of experiments share: a plan of one tiny training and three rows on a file of lists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import run
from r1ranker.benchmark.contenders import ModelRow
from r1ranker.fingerprints import model_fingerprint
from r1ranker.rl.loop import Loop

RECIPE = """
[model]
path = "{model}"
precision = "fp32"
[data]
names = ["lists.jsonl"]
[data.options."lists.jsonl"]
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
"""
PLAN = """
name = "tiny"
title = "A tiny experiment"
question = "Does it run?"

[[trainings]]
name = "learner"
recipe = "recipe.toml"
seeds = [0, 1]

[bench]
base = "base"
device = "cpu"
dtype = "float32"
baselines = ["bm25"]

[bench.data]
names = ["lists.jsonl", "rec-music"]

[bench.data.options."lists.jsonl"]
test_fraction = 0.5

[[bench.rows]]
name = "base"
model = "{model}"
ranker = {{ thinking = false }}

[[bench.rows]]
name = "trained"
model = "run:learner"

[[bench.rows]]
name = "elsewhere"
model = "no/such/model"
"""


def write_plan(folder: Path, model: Path) -> None:
    """plan.toml, recipe.toml and eight lists, four of which are tested."""
    rows = [
        {
            "id": f"q{k}",
            "query": f"question number {k} of {'abcdefgh'[k] * 5}",
            "candidates": [{"id": f"d{n}", "text": f"answer {n} to {k}"} for n in range(3)],
            "relevance": {"d0": 1},
        }
        for k in range(8)
    ]
    (folder / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE.format(model=model), encoding="utf-8")
    (folder / "plan.toml").write_text(PLAN.format(model=model), encoding="utf-8")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and a cache of one's own."""
    monkeypatch.setenv("R1RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def plan_file(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> Path:  # noqa: ARG001
    """A plan in the current folder, an empty one; its music is not at hand, nor is one of its models."""
    monkeypatch.chdir(tmp_path)
    write_plan(tmp_path, tiny_folder)
    return Path("plan.toml")


@pytest.fixture(scope="session")
def one_run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the plan has run with both seeds. Read only."""
    folder: Path = tmp_path_factory.mktemp("experiment")
    write_plan(folder, tiny_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("R1RANKER_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert run.main(["plan.toml", "--source", f"rec-music={folder}/no/music"]) == 0
    return folder


@pytest.fixture
def finished(one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> Path:  # noqa: ARG001
    """A copy of it, as the current folder."""
    folder = tmp_path / "finished"
    shutil.copytree(one_run, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The steps that are taken and the lists that are ranked by a model, in turn."""
    done: list[str] = []
    step, rank = Loop.take_step, ModelRow.rank

    def stepped(self: Loop, number: int) -> dict[str, float]:
        done.append(f"step {number + 1} of seed {self.config.seed}")
        return step(self, number)

    def ranked(self: ModelRow, dataset: Any, examples: Any, *rest: Any) -> Any:
        done.append(f"{self.name}: {len(examples)}")
        return rank(self, dataset, examples, *rest)

    monkeypatch.setattr(Loop, "take_step", stepped)
    monkeypatch.setattr(ModelRow, "rank", ranked)
    yield done
    model_fingerprint.cache_clear()

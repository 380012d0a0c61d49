"""A plan's trainings and banks of thoughts: made where they are missing, and what is told of them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil, isfinite, nan
from pathlib import Path
from statistics import fmean
from typing import Any

from paths import without_absolute_paths
from plan import Bank, Plan, Training, beside
from r1ranker.checkpoint import check_same_run
from r1ranker.cli.console import loading, say
from r1ranker.cli.mixing import load_datasets, mix
from r1ranker.cli.recipes import find_recipe
from r1ranker.cli.runs import run_checkpoints, train_run
from r1ranker.config import RunConfig, load_config
from r1ranker.datasets import Dataset
from r1ranker.datasets.base import normalise
from r1ranker.errors import CheckpointError, ConfigError
from r1ranker.files import write_atomic
from r1ranker.fingerprints import model_fingerprint
from r1ranker.rl.metrics import read_metrics
from r1ranker.rl.warmup import WARMUP

POINTS = 60
"""Of a reward curve at most."""
DONE = "training.json"
"""Written when a training is finished: how it came about. The model is there by then."""
_FREE = (
    "evaluation",
    "model.device",
    "data.sources",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_completions",
)
"""Settings that decide nothing about the model."""


def folder_of(out: Path, training: str, seed: int) -> Path:
    """The run's folder."""
    return out / "trainings" / training / f"seed-{seed}"


def model_of(out: Path, training: str, seed: int) -> Path | None:
    """The trained model's folder, if the training is finished."""
    folder = folder_of(out, training, seed)
    return folder / "model" if (folder / DONE).exists() else None


@dataclass(frozen=True)
class Models:
    """Where the models of a plan's trainings are.

    out: the folder of trainings. adapters: of packed adapters, NAME-seed-SEED, that are kept beside the plan. told:
    (name, seed) of the trainings that the JSON file tells of; an adapter stands for one of these alone, since it does
    not say how it came about.
    """

    out: Path
    adapters: Path
    told: Collection[tuple[str, int]] = ()

    def of(self, training: str, seed: int) -> Path | None:
        """The folder of the trained model, or of its adapter; None without either."""
        adapter = self.adapters / f"{training}-seed-{seed}"
        kept = adapter if (training, seed) in self.told and adapter.is_dir() else None
        return model_of(self.out, training, seed) or kept

    def trained(self, training: str, seed: int) -> bool:
        """Whether a training is finished, at hand or as the JSON file tells."""
        return model_of(self.out, training, seed) is not None or (training, seed) in self.told


def config_of(training: Training, seed: int, plan_folder: Path, sources: Mapping[str, str], out: Path) -> RunConfig:
    """A training's resolved recipe; an adapter that is a folder beside the plan has its path.

    sources: data set or pattern -> the folder with its raw files.
    """
    own = plan_folder / training.recipe
    path = own if own.is_file() else find_recipe(training.recipe)
    sets = [*training.set, f"name={training.name}", f"seed={seed}"]
    if training.after is not None:
        sets.append(f"model.adapter={json.dumps(str(folder_of(out, training.after, seed) / 'model'))}")
    config = load_config(path, sets)
    if (adapter := beside(plan_folder, config.model.adapter)) != config.model.adapter:
        sets.append(f"model.adapter={json.dumps(adapter)}")
    places = {name: place_of(name, sources) for name in config.data.names}
    given = [f"data.sources.{json.dumps(n)}={json.dumps(p)}" for n, p in places.items() if p is not None]
    return load_config(path, [*sets, *given])


def place_of(name: str, sources: Mapping[str, str]) -> str | None:
    """A data set's source: that of the last name or pattern that matches."""
    return next((place for pattern, place in reversed(list(sources.items())) if fnmatchcase(name, pattern)), None)


def train(config: RunConfig, folder: Path, facts: Mapping[str, Any]) -> None:
    """Train what is missing: a finished training is left as it is, a stopped one goes on.

    facts: kept beside the model (commit, machine, versions, command).
    Raises ConfigError where the folder holds a training with other settings.
    """
    check_settings(config, folder)
    if (folder / DONE).exists():
        told = json.loads((folder / DONE).read_bytes()).get("began at")
        if told and (now := _began_at(config)) and told != now["began at"]:
            raise ConfigError(f"{folder} went on from another model than {config.model.adapter} holds: move it away")
        return
    say(f"training {config.name}, seed {config.seed}")
    train_run(config, folder, resume=bool(run_checkpoints(folder)))
    write_atomic(folder / DONE, json.dumps({**facts, **_began_at(config)}, indent=1) + "\n")


def _began_at(config: RunConfig) -> dict[str, str]:
    """The fingerprint of the adapter that a training begins at, if there is one and it is at hand."""
    folder = Path(config.model.adapter or "")
    return {"began at": model_fingerprint(folder)[:16]} if folder.name and folder.is_dir() else {}


def check_settings(config: RunConfig, folder: Path) -> None:
    """Raises ConfigError, naming the first setting, where a training in this folder has other settings."""
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        check_same_recipe(json.loads(path.read_bytes()), config.model_dump(mode="json"), folder)
    except ValueError as error:
        raise ConfigError(f"{path} is no recipe of this version: train with another --out") from error
    except CheckpointError as error:
        raise ConfigError(f"{error} (--out), or give the training another name") from error


def check_same_recipe(saved: object, current: Mapping[str, Any], where: Path | str, after: str | None = None) -> None:
    """Whether two resolved recipes, as JSON values, make the same model.

    where: what was made with the saved one. after: the training that it goes on from, whose folder then says nothing.
    Raises CheckpointError naming the first setting that differs, ValueError where `saved` is no recipe.
    """
    # Read as a recipe, so that settings which came later have their defaults; folders are told by their names.
    told = without_absolute_paths(RunConfig.model_validate(saved).model_dump(mode="json"))
    now = without_absolute_paths(current)
    check_same_run(told, now, (*_FREE, *(["model.adapter"] if after else [])), where)


def progress(config: RunConfig, folder: Path) -> str:
    """How far a training is that is not finished."""
    rows = read_metrics(folder / "metrics.jsonl")
    return f"trained to step {len(rows)} of {config.train.steps}" if rows else "not trained"


def about(training: Training, config: RunConfig, folder: Path) -> dict[str, Any]:
    """What is told of a finished training. seconds, tokens: of all steps, with those of the warm-up."""
    rows = read_metrics(folder / "metrics.jsonl")
    every = [*read_metrics(folder / f"{WARMUP}.jsonl"), *rows]
    return {
        "name": training.name,
        "seed": config.seed,
        **settings_of(training, config),
        "seconds": round(sum(row.get("seconds", 0.0) for row in every)),
        "tokens": round(sum(row.get("tokens", 0.0) for row in every)),
        "curve": curve(rows, config.train.steps),
        **json.loads((folder / DONE).read_text(encoding="utf-8")),
    }


def settings_of(training: Training, config: RunConfig) -> dict[str, Any]:
    """What is told of a training's settings. config: the whole resolved recipe."""
    return {
        "recipe": training.recipe,
        "set": list(training.set),
        **({"after": training.after} if training.after else {}),
        "data": list(config.data.names),
        "steps": config.train.steps,
        "config": without_absolute_paths(config.model_dump(mode="json")),
    }


def curve(rows: Sequence[Mapping[str, float]], steps: int) -> dict[str, list[float]]:
    """The reward by step, as means over equally many steps each: POINTS of them at most, each at its last step.

    Beside it `chance`, what a pick at random would earn in the same states, where every step tells it.
    """
    size = ceil(steps / POINTS)
    parts: dict[int, list[Mapping[str, float]]] = {}
    for row in rows:
        if isfinite(row.get("reward", nan)):
            parts.setdefault(min(ceil(row["step"] / size) * size, steps), []).append(row)
    names = {"reward": "reward"}
    if parts and all("reward_uniform" in row for some in parts.values() for row in some):
        names["chance"] = "reward_uniform"
    means = {name: [round(fmean(row[of] for row in some), 4) for some in parts.values()] for name, of in names.items()}
    return {"step": list(parts), **means}


def check_held_out(config: RunConfig, tests: Sequence[Dataset]) -> None:
    """Raises InputError if the training learns from a list that is tested: its query, or its group in the same set."""
    unsorted = config.model_copy(update={"data": config.data.model_copy(update={"first_stage": {}})})
    with loading():
        datasets = load_datasets(unsorted)  # which lists there are does not depend on their candidates' order
    groups = {dataset.name: {e.group for e in dataset.train if e.group} for dataset in datasets}
    queries = {normalise(e.query) for e in mix(datasets).train if e.query}
    for test in tests:
        known = groups.get(test.name, set())
        if shared := sum(e.group in known or normalise(e.query) in queries for e in test.test):
            raise ConfigError(
                f"training '{config.name}' learns from {shared:,} of the {len(test.test):,} test lists of "
                f"'{test.name}': give recipe and plan the same options of the split (test_users, test_fraction, seed)"
            )


def bank_file(out: Path, bank: str, seed: int) -> Path:
    """A bank's file."""
    return out / "banks" / bank / f"seed-{seed}.jsonl"


def record_bank(plan: Plan, bank: Bank, model: Path, seed: int, out: Path, sources: Mapping[str, str]) -> None:
    """Record a bank that is missing. Raises ConfigError where there is one with other settings."""
    from r1ranker.cli.thoughts import record

    data, file = plan.bench.data, bank_file(out, bank.name, seed)
    options = {name: data.options_of(name) for name in bank.datasets}
    of = {"options": options, "model": model_fingerprint(model)[:16]}
    told = json.dumps({**bank.model_dump(mode="json"), **of}, sort_keys=True)
    settings = file.with_suffix(".json")
    if settings.exists() and settings.read_text(encoding="utf-8") != told:
        raise ConfigError(
            f"{file} was recorded with other settings than the plan's bank '{bank.name}', or by another model than "
            f"{model} holds now: move it away"
        )
    if file.exists():
        return
    write_atomic(settings, told)
    texts = []
    for name in bank.datasets:
        part = file.with_suffix("") / f"{name}.jsonl"
        if not part.exists():
            say(f"recording thoughts of {bank.training}, seed {seed}, on {name}")
            source = place_of(name, {**data.sources, **sources})
            begun = part.with_name(f"{part.name}.begun")  # what a stopped recording leaves is no whole part
            record(
                model=str(model),
                dataset=name,
                out=begun,
                source=None if source is None else Path(source),
                option=[f"{key}={json.dumps(value)}" for key, value in options[name].items()],
                limit=bank.limit,
                device=plan.bench.device,
            )
            os.replace(begun, part)
        texts.append(part.read_text(encoding="utf-8"))
    write_atomic(file, "".join(texts))

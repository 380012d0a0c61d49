"""A training run from its recipe to a saved model; also what `demo` is made of. No typer here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from r1ranker.assets import fetch_model
from r1ranker.baselines import presort_dataset
from r1ranker.checkpoint import GO_ON, complete_checkpoints
from r1ranker.cli.console import Bar, loading, say
from r1ranker.cli.errors import on_interrupt, on_sigterm, require_writable
from r1ranker.cli.facts import versions
from r1ranker.cli.options import load_data
from r1ranker.config import ModelConfig, RunConfig
from r1ranker.datasets import Dataset, built_as
from r1ranker.datasets.base import normalise, note
from r1ranker.datasets.duplicates import near_duplicate_groups
from r1ranker.errors import InputError, R1RankerError
from r1ranker.fingerprints import digest, model_fingerprint
from r1ranker.modelfolder import read_facts, save_ranker, short_name
from r1ranker.types import RankingExample

if TYPE_CHECKING:
    from r1ranker.rl.policy import Policy

OWN_TEST_FRACTION = 0.2
"""How much of a .jsonl file is kept for testing where a recipe does not say."""

OnStep = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its folder, the model's folder in it, the policy as trained, and every step's metrics."""

    config: RunConfig
    folder: Path
    model: Path
    policy: Policy
    metrics: list[dict[str, float]]
    seconds: float


def data_options(config: RunConfig, name: str) -> dict[str, Any]:
    """A data set's options in this recipe. A .jsonl file, which has no split, keeps a fifth for testing."""
    options = dict(config.data.options.get(name, {}))
    if name.endswith((".jsonl", ".jsonl.gz")):
        options.setdefault("test_fraction", OWN_TEST_FRACTION)
    return options


def load_datasets(config: RunConfig) -> list[Dataset]:
    """The recipe's data sets, each built with its source and options, and listed by its first stage if it has one."""
    datasets = []
    for name in config.data.names:
        dataset = load_data(name, config.data.sources.get(name), data_options(config, name))
        dataset = replace(dataset, fingerprints={name: dataset.fingerprint()})
        if first_stage := config.data.first_stage.get(name):
            dataset = presort_dataset(dataset, first_stage, share=config.data.first_stage_share, seed=config.seed)
        datasets.append(dataset)
    return datasets


def load_examples(config: RunConfig) -> Dataset:
    """The recipe's data as one data set; several are mixed (see `mix`)."""
    return mix(load_datasets(config))


def mix(datasets: list[Dataset]) -> Dataset:
    """Data sets one after the other, each training example with the data set it is from; the trainer shuffles them.

    Groups count within their own data set. A query that is tested in one data set is not trained on in another,
    nor is a near-duplicate of it, nor the very history of a list without a query, nor a user who is tested there under
    the same id (of a file that `data build` wrote).
    """
    if len(datasets) == 1:
        return datasets[0]
    taken: set[str] = set()
    train: list[RankingExample] = []
    test: list[RankingExample] = []
    notes: list[str] = []
    for number, dataset in enumerate(datasets, 1):
        twice = any(e.id in taken for e in (*dataset.train, *dataset.test))
        taken |= {e.id for e in (*dataset.train, *dataset.test)}
        for side, examples in ((train, dataset.train), (test, dataset.test)):
            side += [
                replace(e, id=f"{number}:{e.id}" if twice else e.id, group=f"{number}:{e.group}" if e.group else "")
                for e in examples
            ]
        notes += [f"{dataset.name}: {text}" for text in dataset.notes]
    keys = iter(near_duplicate_groups([e.query for e in (*train, *test) if e.query.strip()]))
    asked = [next(keys) if e.query.strip() else "" for e in (*train, *test)]
    tests = iter(asked[len(train) :])
    tested = [
        {*islice(tests, len(one.test)), *map(_past, one.test), *(built_as(e.id) for e in one.test)} - {""}
        for one in datasets
    ]
    elsewhere = [set().union(*(keys for keys in tested if keys is not own)) for own in tested]
    origins = [(one.name, known, e.id) for one, known in zip(datasets, elsewhere, strict=True) for e in one.train]
    kept = [
        (e, origin)
        for e, (origin, known, own), key in zip(train, origins, asked, strict=False)
        if not {key, _past(e), built_as(own)} & known
    ]
    dropped = "training examples dropped: their query, history or user is tested in another data set"
    note(notes, len(train) - len(kept), dropped)
    popularity: dict[str, float] = {}
    for dataset in datasets:
        for key, count in dataset.popularity.items():
            popularity[key] = popularity.get(key, 0) + count
    return Dataset(
        name="+".join(d.name for d in datasets),
        train=tuple(e for e, _ in kept),
        test=tuple(test),
        popularity=popularity,
        notes=tuple(notes),
        sequences=tuple(sequence for d in datasets for sequence in d.sequences),
        origins=tuple(origin for _, origin in kept),
        fingerprints={name: told for d in datasets for name, told in d.fingerprints.items()},
    )


def _past(example: RankingExample) -> str:
    """The history of a list without a query, as it is compared."""
    return "" if example.query.strip() else "past: " + normalise(" | ".join(example.history))


def train_run(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    dataset: Dataset | None = None,
    on_step: OnStep | None = None,
    bar: bool = True,
) -> TrainedRun:
    """Train by a recipe and save the model in `folder`/model.

    dataset: the recipe's data, where it is loaded already.
    bar: show progress on stderr, with the reward and the time left.
    Raises R1RankerError if the model cannot be saved; the checkpoint then stays. Ctrl-C or SIGTERM keeps a
    checkpoint and says so.
    """
    from r1ranker.rl.policy import Policy
    from r1ranker.rl.trainer import Trainer

    require_writable(folder)
    begin = time.perf_counter()
    with on_interrupt(lambda: _kept(folder)), on_sigterm():
        data = dataset if dataset is not None else load_examples(config)
        if not data.train:
            raise InputError(f"'{data.name}' has no training examples: lower its test_fraction")
        with loading():
            policy = Policy.load(config.model, config.seed)
        began_at = _began_at(config.model)  # now, while it is there
        show = _shown if bar else None
        trainer = Trainer(
            config,
            policy,
            data.train,
            folder,
            origins=data.origins,
            model=_fingerprint(config.model),
            on_step=on_step,
            show=show,
        )
        if trainer.truncated:
            say(f"  {trainer.truncated:,} texts cut to fit the model's context, or ranker.document_tokens")
        metrics = trainer.run(resume=resume)
    seconds = time.perf_counter() - begin
    model = _save(config, folder, policy, data, metrics, seconds, began_at)
    return TrainedRun(config, folder, model, policy, metrics, seconds)


@contextmanager
def _shown(what: str, steps: int) -> Iterator[OnStep]:
    """A bar for a part of the run, with what is worth seeing of each step."""
    with Bar(what, steps, start=None) as bar:
        yield lambda done, _, metrics: bar.update(done, _note(metrics))


def _note(metrics: dict[str, float]) -> str:
    reward = f"reward {metrics['reward']:.3f}" if "reward" in metrics else ""
    if "accepted" not in metrics:
        return reward
    return f"{reward}, accepted {metrics['accepted']:,.0f} of {metrics['sampled']:,.0f} completions"  # of a warm-up


def _save(
    config: RunConfig,
    folder: Path,
    policy: Policy,
    data: Dataset,
    metrics: list[dict[str, float]],
    seconds: float,
    began_at: dict[str, Any] | None,
) -> Path:
    ranker = config.ranker
    if ranker.templates:  # the model's folder is used from anywhere
        ranker = ranker.model_copy(update={"templates": str(Path(ranker.templates).resolve())})
    base = Path(config.model.path)
    named = str(base.resolve()) if base.is_dir() else config.model.path  # a known name stays as it is
    facts = {
        "recipe": config.name,
        **({"began_at": began_at} if began_at else {}),
        "data": data.name,
        "options": {name: data_options(config, name) for name in config.data.names},
        "fingerprint": data.fingerprint(),
        **({"fingerprints": dict(data.fingerprints)} if data.fingerprints else {}),
        "algorithm": config.train.algorithm,
        **({"warmup_rounds": config.warmup.rounds} if config.warmup else {}),
        "steps": config.train.steps,
        "seed": config.seed,
        "seconds": round(seconds, 1),
        "versions": versions(),
    }
    if metrics and "reward" in metrics[-1]:
        facts["last_reward"] = metrics[-1]["reward"]
    try:
        save_ranker(folder / "model", policy.model, policy.tokenizer, ranker, base=named, facts=facts)
    except (OSError, SafetensorError, R1RankerError) as error:
        raise R1RankerError(
            f"the model could not be saved in {folder / 'model'} ({error}). {_last(folder)}: make room there, "
            f"then {GO_ON}"
        ) from error
    return folder / "model"


def _fingerprint(model: ModelConfig) -> str:
    """Of the base, and of the adapter that LoRA begins at."""
    return digest([model_fingerprint(fetch_model(part)) for part in (model.path, model.adapter) if part])


def _began_at(model: ModelConfig) -> dict[str, Any] | None:
    """What is known of the training before: its name at least; None for a model that was not trained here."""
    start = model.adapter or model.path
    facts = read_facts(fetch_model(start))
    return {"recipe": short_name(start), **facts} if facts or model.adapter else None


def run_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, the last one last; those of its warm-up come first."""
    from r1ranker.rl.warmup import WARMUP

    parts = (folder / "checkpoints" / WARMUP, folder / "checkpoints")
    return [path for part in parts for path in complete_checkpoints(part)]


def _last(folder: Path) -> str:
    found = run_checkpoints(folder)
    return f"The checkpoint is kept in {found[-1]}" if found else "There is no checkpoint"


def _kept(folder: Path) -> str:
    if not run_checkpoints(folder):
        return "stopped before the first step: nothing was trained"
    return f"stopped. {_last(folder)}: {GO_ON}"


def report_notes(data: Dataset) -> None:
    """Tell what was dropped or merged, on stderr."""
    for text in data.notes:
        say(f"  {text}")

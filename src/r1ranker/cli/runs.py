"""A training run from its recipe to a saved model; also what `demo` is made of. No typer here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safetensors import SafetensorError

from r1ranker.assets import fetch_model
from r1ranker.checkpoint import GO_ON, STATE, complete_checkpoints, load_checkpoint, restore_tensors
from r1ranker.cli.console import Bar, loading, say
from r1ranker.cli.errors import on_interrupt, on_sigterm, require_writable
from r1ranker.cli.facts import versions
from r1ranker.cli.mixing import data_options, load_examples
from r1ranker.cli.validation import keep_out, measure_of
from r1ranker.config import ModelConfig, RunConfig
from r1ranker.datasets import Dataset
from r1ranker.errors import AssetError, CheckpointError, InputError, R1RankerError
from r1ranker.files import file_lock, new_folder, write_atomic
from r1ranker.fingerprints import digest, model_fingerprint
from r1ranker.modelfolder import read_facts, save_ranker, short_name

if TYPE_CHECKING:
    from r1ranker.rl.policy import Policy

FACTS = "facts.json"
"""What a model of the run tells beside its steps, kept from the run's beginning for models of its checkpoints."""
LOCK = ".lock"

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
    best_step: int | None = None
    """Whose weights the model has, where [validation] chose; None: the last step's."""


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

    dataset: the recipe's data, where it is loaded already; or any other, which the model's facts then name.
    bar: show progress on stderr, with the reward and the time left.
    Raises R1RankerError if another process trains in the folder, or if the model cannot be saved; the checkpoint then
    stays. Ctrl-C or SIGTERM keeps a checkpoint and says so.
    """
    require_writable(folder)
    with file_lock(folder / LOCK, lambda: _taken(folder)):
        return _train(config, folder, resume, dataset, on_step, bar)


def _taken(folder: Path) -> NoReturn:
    raise R1RankerError(f"another process trains in {folder}: wait for its end, or train into another folder")


def _train(
    config: RunConfig, folder: Path, resume: bool, dataset: Dataset | None, on_step: OnStep | None, bar: bool
) -> TrainedRun:
    from r1ranker.rl.policy import Policy
    from r1ranker.rl.trainer import Trainer

    begin = time.perf_counter()
    with on_interrupt(lambda: _kept(folder)), on_sigterm():
        data = dataset if dataset is not None else load_examples(config)
        if not data.train:
            raise InputError(f"'{data.name}' has no training examples: lower its test_fraction")
        aside = keep_out(config, data)
        with loading():
            policy = Policy.load(config.model, config.seed)
        origin = _origin(config, data)  # now, while what it began at is there
        if not run_checkpoints(folder):  # a run that goes on has its own
            kept = {"base": model_fingerprint(fetch_model(config.model.path)), "facts": origin}
            write_atomic(folder / FACTS, json.dumps(kept, indent=2) + "\n")
        show = _shown if bar else None
        trainer = Trainer(
            config,
            policy,
            aside.train,
            folder,
            origins=aside.origins,
            model=_fingerprint(config.model),
            on_step=on_step,
            validate=measure_of(config, policy, aside.lists),
            show=show,
        )
        if trainer.truncated:
            say(f"  {trainer.truncated:,} texts cut to fit the model's context, or ranker.document_tokens")
        metrics = trainer.run(resume=resume)
    seconds = time.perf_counter() - begin
    facts = _facts(
        config,
        origin,
        metrics,
        steps=config.train.steps,
        best_step=trainer.best_step,
        seconds=_seconds(folder, metrics),
    )
    model = folder / "model"
    try:
        _save(config, model, policy, facts)
    except (OSError, SafetensorError, R1RankerError) as error:
        raise R1RankerError(
            f"the model could not be saved in {model} ({error}). {_last(folder)}: make room there, then {GO_ON}"
        ) from error
    return TrainedRun(config, folder, model, policy, metrics, seconds, trainer.best_step)


def save_model(place: Path, out: Path) -> Path:
    """Save the model of a run's checkpoint in `out`, a new folder, as the run itself would; returns the checkpoint.

    place: a checkpoint, also one of a warm-up or the best one of a validation, or a run's folder: its newest one.
    Needs the base model as it was; not the data, nor the adapter that LoRA began at.
    Raises CheckpointError where there is no checkpoint, or one that is damaged or of another base, AssetError for an
    `out` that is there already or cannot be written.
    """
    from r1ranker.rl.metrics import read_metrics
    from r1ranker.rl.policy import Policy
    from r1ranker.rl.validation import BEST
    from r1ranker.rl.warmup import WARMUP

    if out.exists():
        raise AssetError(f"{out} is there already: choose a new folder")
    path = _checkpoint(place)
    saved = load_checkpoint(path)
    try:
        config = RunConfig.model_validate(saved.config)
    except ValueError as error:
        raise CheckpointError(f"{path} was made with a recipe that this version does not read") from error
    above = path.resolve().parent
    warm = above.name == WARMUP
    folder = above.parent.parent if above.name in (WARMUP, BEST) else above.parent
    origin = _kept_origin(config, folder)
    with loading():
        # On the CPU: a run's GPU may be busy, or elsewhere. Where LoRA began, the checkpoint's tensors stand now.
        policy = Policy.load(config.model.model_copy(update={"device": "cpu", "adapter": None}), config.seed)
    restore_tensors(policy.model, saved.tensors["policy"], str(path))
    steps = 0 if warm else saved.step
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["step"] <= steps]
    rounds = saved.step if warm else None
    facts = _facts(config, origin, rows, steps=steps, rounds=rounds, seconds=_seconds(folder, rows))
    try:
        with new_folder(out) as made:
            _save(config, made, policy, facts)
    except (OSError, SafetensorError) as error:
        raise AssetError(f"{out}: the model cannot be saved ({error}): make room, or choose another folder") from error
    return path


def _seconds(folder: Path, metrics: Sequence[dict[str, float]]) -> float:
    """What the steps and the rounds of a warm-up took, those before a stop too."""
    from r1ranker.rl.metrics import read_metrics
    from r1ranker.rl.warmup import WARMUP

    return sum(row["seconds"] for row in (*read_metrics(folder / f"{WARMUP}.jsonl"), *metrics))


def _checkpoint(place: Path) -> Path:
    if (place / STATE).exists():
        return place
    if not (found := run_checkpoints(place)):
        raise CheckpointError(f"{place} is no checkpoint, and no run's folder with one: give RUN/checkpoints/step-…")
    return found[-1]


def _kept_origin(config: RunConfig, folder: Path) -> dict[str, Any]:
    """What a run kept of its beginning; of one that kept nothing, what its recipe says.

    Raises CheckpointError where its base is another than it was.
    """
    path = folder / FACTS
    if not path.exists():
        options = {name: data_options(config, name) for name in config.data.names}
        return {**_earlier(config.model), "data": "+".join(config.data.names), "options": options}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        base, origin = kept["base"], dict(kept["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): delete it to save the model without it") from error
    if base != model_fingerprint(fetch_model(config.model.path)):
        raise CheckpointError(f"{config.model.path} is another model than when the run in {folder} began: put it back")
    return origin


@contextmanager
def _shown(what: str, steps: int) -> Iterator[OnStep]:
    """A bar for a part of the run, with what is worth seeing of each step."""
    with Bar(what, steps, start=None) as bar:
        yield lambda done, _, metrics: bar.update(done, _note(metrics))


def _note(metrics: dict[str, float]) -> str:
    reward = f"reward {metrics['reward']:.3f}" if "reward" in metrics else ""
    for name in metrics:
        if name.startswith("validation/"):
            reward += f", {name} {metrics[name]:.3f}"
    if "accepted" not in metrics:
        return reward
    return f"{reward}, accepted {metrics['accepted']:,.0f} of {metrics['sampled']:,.0f} completions"  # of a warm-up


def _save(config: RunConfig, folder: Path, policy: Policy, facts: dict[str, Any]) -> None:
    ranker = config.ranker
    if ranker.templates:  # the model's folder is used from anywhere
        ranker = ranker.model_copy(update={"templates": str(Path(ranker.templates).resolve())})
    base = Path(config.model.path)
    named = str(base.resolve()) if base.is_dir() else config.model.path  # a known name stays as it is
    save_ranker(folder, policy.model, policy.tokenizer, ranker, base=named, facts=facts)


def _origin(config: RunConfig, data: Dataset) -> dict[str, Any]:
    """What is told of a model's data, of the training before, and of the software."""
    names = list(data.fingerprints or dict.fromkeys(data.origins)) or [data.name]
    return {
        **_earlier(config.model),
        "data": data.name,
        "options": {name: data_options(config, name) if name in config.data.names else {} for name in names},
        "fingerprint": data.fingerprint(),
        **({"fingerprints": dict(data.fingerprints)} if data.fingerprints else {}),
        "versions": versions(),
    }


def _facts(
    config: RunConfig,
    origin: dict[str, Any],
    metrics: list[dict[str, float]],
    *,
    steps: int,
    rounds: int | None = None,
    best_step: int | None = None,
    seconds: float,
) -> dict[str, Any]:
    """What a model tells of the run.

    metrics: of its steps. rounds: of its warm-up; None: all. best_step: whose weights it has, of all steps; None: the
    last one's. seconds: what it took; 0: not known.
    """
    return {
        "recipe": config.name,
        **origin,
        "algorithm": config.train.algorithm,
        **({"warmup_rounds": config.warmup.rounds if rounds is None else rounds} if config.warmup else {}),
        "steps": steps,
        **({} if best_step is None else {"best_step": best_step}),
        "seed": config.seed,
        **({"seconds": round(seconds, 1)} if seconds else {}),
        **({"last_reward": metrics[-1]["reward"]} if metrics and "reward" in metrics[-1] else {}),
    }


def _fingerprint(model: ModelConfig) -> str:
    """Of the base, and of the adapter that LoRA begins at."""
    return digest([model_fingerprint(fetch_model(part)) for part in (model.path, model.adapter) if part])


def _earlier(model: ModelConfig) -> dict[str, Any]:
    """What is known of the training before: its name at least; nothing for a model that was not trained here."""
    start = model.adapter or model.path
    facts = read_facts(fetch_model(start))
    return {"began_at": {"recipe": short_name(start), **facts}} if facts or model.adapter else {}


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
    return f"stopped. {_last(folder)}: {GO_ON}, or `r1ranker model save {folder} --out FOLDER` to use it as it is"


def report_notes(data: Dataset) -> None:
    """Tell what was dropped or merged, on stderr."""
    for text in data.notes:
        say(f"  {text}")

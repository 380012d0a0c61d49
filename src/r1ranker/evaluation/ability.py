"""What a model can do beside ranking, before training and after: tasks of lm-evaluation-harness (EleutherAI)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from r1ranker.assets.shipped import ADAPTER_CONFIG
from r1ranker.errors import AssetError, InputError, MissingExtraError
from r1ranker.evaluation.significance import holm, paired_p_value
from r1ranker.modelfolder import RANKER

SAFE_TASKS = ("gsm8k", "ifeval", "mmlu", "openbookqa", "hellaswag", "mathqa")
CODE_TASKS = ("mbpp", "humaneval")
"""These run what the model writes. Both together are the paper's tasks (arXiv 2506.21638)."""
LEGEND = (
    "±: the harness's standard error of each figure. Both models answer the same questions, so the two errors do not "
    "tell how sure the difference is; p does: a paired randomization test over questions, after Holm's correction for "
    "all lines of the table. -: the harness tells no value for each question."
)


@dataclass(frozen=True)
class Score:
    """A metric's value on the harness's own scale, its standard error (None: the harness has none), questions asked.

    each: the questions' own values, in order, where the value is their mean.
    """

    value: float
    stderr: float | None
    questions: int
    each: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Difference:
    """After minus before. p: two-sided, paired by questions, after Holm's correction; None without their values."""

    value: float
    p: float | None


Scores = dict[str, dict[str, Score]]
"""Task (or group of tasks) -> metric -> score. A metric's filter follows it: `exact_match,strict-match`."""


def load_tasks(names: Sequence[str], *, include: Path | None = None, unsafe_code: bool = False) -> list[Any]:
    """The harness's tasks and groups of these names (or YAML files), their data fetched.

    include: a folder with task files of one's own; they may name Python functions, which are run.
    unsafe_code: whether tasks may run code that the model writes, in this process's rights; the harness fetches the
        code that runs it from the hub.
    Raises MissingExtraError without the harness, InputError for an unknown, an unsafe or an unusable task, AssetError
    where its data cannot be had.
    """
    try:
        from datasets.exceptions import DatasetsError
        from jinja2 import TemplateError
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtraError("Measuring other abilities", "lm_eval", "ability") from error
    if include is not None and not include.is_dir():
        raise InputError(f"{include} is not a folder: give the one with the tasks' YAML files")
    if unsafe_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # the metric asks once more
    manager = TaskManager(include_path=include)
    found: list[Any] = []
    within: dict[str, str] = {}
    for name in dict.fromkeys(names):
        entry = manager.task_index.get(name)
        if entry is None and not Path(name).is_file():
            raise InputError(f"the harness has no task '{name}': 'lm-eval ls tasks' lists them")
        if entry is not None and (entry.cfg or {}).get("unsafe_code") and not unsafe_code:
            raise _unsafe(name)  # before it is loaded, for that runs code too
        try:
            loaded = manager.load(name)
        except ImportError as error:
            raise InputError(
                f"the task '{name}' needs a package ({error}): install it, or leave the task out"
            ) from error
        except OSError as error:
            raise AssetError(
                f"the data of the task '{name}' cannot be had ({_line(error)}): check that the hub can be reached, "
                "or name a task whose files are on this machine (--include-path)"
            ) from error
        except (ValueError, KeyError, TypeError, DatasetsError, TemplateError) as error:
            raise InputError(
                f"the task '{name}' cannot be used ({_line(error)}): mend its YAML or leave it out"
            ) from error
        for part, task in loaded["tasks"].items():
            if getattr(task, "UNSAFE_CODE", False) and not unsafe_code:
                raise _unsafe(part)
            if part in within:
                raise InputError(f"the task '{part}' is in both '{within[part]}' and '{name}': name one of them")
            within[part] = name
        found += [loaded["groups"][name]] if name in loaded["groups"] else loaded["tasks"].values()
    return found


def measure(
    folder: Path,
    tasks: Sequence[Any],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
    dtype: str = "auto",
    unsafe_code: bool = False,
) -> Scores:
    """A model's scores on what `load_tasks` returned, in its order; the harness sets the global seeds.

    folder: as for `load_model`, so an adapter is merged into its base. limit: of each task, the first questions alone.
    No chat template is applied, as is the harness's default.
    Raises AssetError for a folder that holds no model that transformers can run.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from r1ranker.llm.load import load_model

    model, tokenizer = load_model(folder, device=device, dtype=dtype)
    found = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=list(tasks),
        limit=limit,
        log_samples=True,
        confirm_run_unsafe_code=unsafe_code,
    )
    samples = found["samples"]
    scores = {name: _scores(row, samples.get(name, ())) for name, row in found["results"].items()}
    return {name: scores[name] for name in _names(tasks) if scores.get(name)}


def base_of(folder: Path) -> Path:
    """The folder of the model that this one was trained from. Raises AssetError where the folder names none."""
    from r1ranker.assets import fetch_model
    from r1ranker.llm.load import adapter_base

    if (adapter := folder / ADAPTER_CONFIG).exists():
        return adapter_base(adapter)
    try:
        base = json.loads((folder / RANKER).read_text(encoding="utf-8"))["base"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{folder} does not say which model it was trained from: name it with --base") from error
    return fetch_model(base)


def differences(before: Scores, after: Scores) -> dict[tuple[str, str], Difference]:
    """(task, metric) -> what training changed."""
    pairs = {(task, metric): (before[task][metric], score) for task in after for metric, score in after[task].items()}
    p_values = {
        place: paired_p_value(new.each, old.each)
        for place, (old, new) in pairs.items()
        if new.each is not None and old.each is not None
    }
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {place: Difference(new.value - old.value, corrected.get(place)) for place, (old, new) in pairs.items()}


def ability_json(before: Scores, after: Scores | None, facts: Mapping[str, Any]) -> str:
    """Both sides' scores, their differences and the facts as JSON; null as long as there is no `after`."""
    sides: dict[str, Any] = {"before": _plain(before), "after": None, "differences": None}
    if after is not None:
        told: dict[str, dict[str, Any]] = {}
        for (task, metric), difference in differences(before, after).items():
            told.setdefault(task, {})[metric] = asdict(difference)
        sides |= {"after": _plain(after), "differences": told}
    return json.dumps({"facts": dict(facts), **sides}, indent=1, ensure_ascii=False) + "\n"


def ability_table(before: Scores, after: Scores) -> str:
    """A Markdown table with a line for each task and metric."""
    lines = ["| task | metric | questions | before | after | difference | p |", f"|---|---|{'---:|' * 5}"]
    for (task, metric), difference in differences(before, after).items():
        old, new = before[task][metric], after[task][metric]
        p = "-" if difference.p is None else f"{difference.p:.4f}"
        cells = (task, metric, f"{new.questions:,}", _text(old), _text(new), f"{difference.value:+.4f}", p)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _plain(scores: Scores) -> dict[str, Any]:
    return {
        task: {m: {"value": s.value, "stderr": s.stderr, "questions": s.questions} for m, s in row.items()}
        for task, row in scores.items()
    }


def _text(score: Score) -> str:
    return f"{score.value:.4f}" if score.stderr is None else f"{score.value:.4f} ± {score.stderr:.4f}"


def _names(tasks: Sequence[Any]) -> list[str]:
    """Tasks by name; a group by its own name and, where the harness sums nothing up for it, its members'."""
    names = []
    for task in tasks:
        if hasattr(task, "get_all_tasks"):
            names += [task.name] if task.has_aggregation else [part.task_name for part in task.get_all_tasks()]
        else:
            names.append(task.task_name)
    return names


def _scores(row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
    """The numbers among a result's entries, which are called `metric,filter` and `metric_stderr,filter`.

    samples: what the harness keeps of each question, once for each filter.
    """
    found = {}
    for key, value in row.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        stderr = row.get(f"{metric}_stderr,{kind}", "N/A")
        questions = row.get("sample_count", {}).get(key, row["sample_len"])
        found[metric if kind == "none" else key] = Score(
            float(value),
            None if isinstance(stderr, str) else float(stderr),
            int(questions),
            _each(float(value), metric, [sample for sample in samples if sample["filter"] == kind]),
        )
    return found


def _each(mean: float, metric: str, samples: Sequence[Mapping[str, Any]]) -> tuple[float, ...] | None:
    """The questions' values of a metric; None for one that is summed up in another way, such as a perplexity."""
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    values = [sample.get(metric) for sample in ordered]
    each = tuple(float(value) for value in values if isinstance(value, bool | int | float | np.number))
    if not values or len(each) < len(values):
        return None
    return each if math.isclose(fmean(each), mean, abs_tol=1e-6) else None


def _unsafe(name: str) -> InputError:
    return InputError(
        f"the task '{name}' runs code that the model writes: allow it with --unsafe-code, in a sandbox, or leave it out"
    )


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

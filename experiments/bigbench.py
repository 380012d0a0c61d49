"""Multiple-choice tasks of BIG-bench as files for `r1ranker ability`, to measure abilities where no hub is reached.

    pip download --no-deps bigbench==1.0.0
    python experiments/bigbench.py bigbench-1.0.0.tar.gz --out data/bigbench
    r1ranker ability --model iranker-135m --include-path data/bigbench --task bigbench-choices --limit 200

The tasks (Apache-2.0, Srivastava et al. 2022, arXiv 2206.04615) are to stay out of what models are trained on, so their
files are made from the package, and are not for repositories.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from r1ranker.cli.console import say
from r1ranker.cli.errors import complain
from r1ranker.errors import AssetError, R1RankerError
from r1ranker.files import sha256, write_atomic

SHA256 = "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2"
GROUP = "bigbench-choices"
TASKS = {
    "bigbench-general-knowledge": "general_knowledge",
    "bigbench-social-iqa": "social_iqa",
    "bigbench-wikihow-step": "goal_step_wikihow/step_inference",
    "bigbench-wikihow-goal": "goal_step_wikihow/goal_inference",
    "bigbench-math-qa": "elementary_math_qa/question_only",
}
"""Task -> its folder in BIG-bench: knowledge, everyday reasoning and arithmetic, as in the paper's tasks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 for an error, which is told in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="bigbench-1.0.0.tar.gz, as PyPI has it")
    parser.add_argument("--out", type=Path, default=Path("data/bigbench"), help="the folder of the tasks' files")
    args = parser.parse_args(arguments)
    try:
        write_tasks(args.package, args.out)
    except R1RankerError as error:
        complain(f"error: {error}")
        return 1
    print(args.out)
    return 0


def write_tasks(package: Path, out: Path, expected: str = SHA256) -> None:
    """A YAML file (JSON is YAML) and questions for each task, and their group.

    Raises AssetError for a file that is not the package, by its SHA-256, or lacks a task.
    """
    if not package.is_file():
        raise AssetError(f"{package} is not there: pip download --no-deps bigbench==1.0.0")
    if (found := sha256(package)) != expected:
        raise AssetError(f"{package} has the SHA-256 {found} instead of {expected}: download bigbench 1.0.0 from PyPI")
    for task, examples in _read(package):
        rows = [row for example in examples if (row := question(example)) is not None]
        chance = fmean(1 / len(row["choices"]) for row in rows) if rows else 0.0
        dropped = len(examples) - len(rows)
        without = f" ({dropped:,} without exactly one right choice are left out)" if dropped else ""
        say(f"{task}: {len(rows):,} questions{without}, chance {chance:.3f}")
        data = (out / f"{task}.jsonl").resolve()
        write_atomic(data, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        write_atomic(out / f"{task}.yaml", json.dumps(_task(task, data), indent=1) + "\n")
    write_atomic(out / f"{GROUP}.yaml", json.dumps({"group": GROUP, "task": list(TASKS)}, indent=1) + "\n")


def question(example: dict[str, Any]) -> dict[str, Any] | None:
    """A question with its choices and the right one's place; None unless exactly one is right."""
    choices = list(example["target_scores"])
    right = [place for place, choice in enumerate(choices) if example["target_scores"][choice] == 1]
    if len(right) != 1:
        return None
    return {"question": example["input"].strip(), "choices": choices, "label": right[0]}


def _read(package: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each task and its examples, in the order of the package, which is read once."""
    wanted = {f"/benchmark_tasks/{folder}/task.json": task for task, folder in TASKS.items()}
    with tarfile.open(package) as tar:
        for member in tar:
            for ending in [ending for ending in wanted if member.name.endswith(ending)]:
                if (file := tar.extractfile(member)) is not None:
                    yield wanted.pop(ending), json.loads(file.read())["examples"]
            if not wanted:
                return
    raise AssetError(f"{package} has no {', '.join(wanted)}")


def _task(name: str, data: Path) -> dict[str, Any]:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(data.parent / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
    }


if __name__ == "__main__":
    sys.exit(main())

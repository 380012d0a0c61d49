"""BIG-bench's package becomes tasks of the harness: what is right, what is left out, what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import bigbench
from r1ranker.errors import AssetError
from r1ranker.files import sha256


def package(folder: Path, tasks: dict[str, list[dict[str, Any]]]) -> Path:
    path = folder / "bigbench-1.0.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, examples in tasks.items():
            content = json.dumps({"examples": examples}).encode()
            member = tarfile.TarInfo(f"bigbench-1.0.0/bigbench/benchmark_tasks/{name}/task.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def example(question: str, **scores: int) -> dict[str, Any]:
    return {"input": question, "target_scores": scores}


def test_a_question_needs_exactly_one_right_choice() -> None:
    assert bigbench.question(example(" How many legs? ", two=0, four=1)) == {
        "question": "How many legs?",
        "choices": ["two", "four"],
        "label": 1,
    }
    assert bigbench.question(example("?", two=1, four=1)) is None
    assert bigbench.question(example("?", two=0, four=0)) is None


def test_every_task_is_written_with_its_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = [example("Which?", a=1, b=0), example("None?", a=0, b=0)]
    path = package(tmp_path, {"other": [], **dict.fromkeys(bigbench.TASKS.values(), examples)})
    out = tmp_path / "tasks"
    bigbench.write_tasks(path, out, expected=sha256(path))
    group = json.loads((out / "bigbench-choices.yaml").read_text(encoding="utf-8"))
    assert group["task"] == list(bigbench.TASKS)
    told = capsys.readouterr().err
    for name in bigbench.TASKS:
        assert f"{name}: 1 questions (1 without exactly one right choice are left out), chance 0.500" in told
        task = json.loads((out / f"{name}.yaml").read_text(encoding="utf-8"))
        rows = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8").splitlines()
        assert [json.loads(row)["question"] for row in rows] == ["Which?"]


def test_the_harness_reads_them(tmp_path: Path, tiny_folder: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: r1ranker[ability]")
    from r1ranker.evaluation.ability import load_tasks, measure

    examples = [example(f"Which of {k}?", one=k % 2, two=1 - k % 2) for k in range(4)]
    path = package(tmp_path, dict.fromkeys(bigbench.TASKS.values(), examples))
    bigbench.write_tasks(path, tmp_path / "tasks", expected=sha256(path))
    scores = measure(tiny_folder, load_tasks([bigbench.GROUP], include=tmp_path / "tasks"), device="cpu")
    assert list(scores) == list(bigbench.TASKS)
    assert {row["acc"].questions for row in scores.values()} == {4}


def test_another_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = package(tmp_path, {"general_knowledge": []})
    assert bigbench.main([str(path), "--out", str(tmp_path / "tasks")]) == 1
    assert "instead of 1bb398a5" in capsys.readouterr().err
    assert not (tmp_path / "tasks").exists()
    assert bigbench.main([str(tmp_path / "none.tar.gz")]) == 1
    assert "pip download" in capsys.readouterr().err
    with pytest.raises(AssetError, match=r"has no .*social_iqa"):
        bigbench.write_tasks(path, tmp_path / "tasks", expected=sha256(path))

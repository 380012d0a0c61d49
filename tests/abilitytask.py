"""Small tasks of lm-evaluation-harness in a folder, and what a model should score on them, computed by hand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

QUESTIONS = (
    ("What is the capital of Italy?", ("Rome", "a whale", "bread and salt"), 0),
    ("What breathes air?", ("copper", "a whale", "the violin"), 1),
    ("What is bread made of?", ("glaciers", "tea", "flour"), 2),
    ("What has four strings?", ("the violin", "Heat", "a cool slope"), 0),
    ("What conducts electricity?", ("Toy Story", "copper", "salt"), 1),
    ("Where does tea grow?", ("in the sea", "in Rome", "on slopes"), 2),
)


def harness_of_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the harness to the tasks of a test: reading its own thousands of files takes far longer than the test."""
    tasks = pytest.importorskip("lm_eval.tasks", reason="lm-evaluation-harness is not installed: r1ranker[ability]")
    monkeypatch.setattr(tasks, "TaskManager", partial(tasks.TaskManager, include_defaults=False))


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> Path:
    """A task's YAML (JSON is YAML) and its rows beside it; the harness's cache stays in the folder too."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(task), encoding="utf-8")
    return path


def write_choices(folder: Path, name: str = "tiny-choice", questions: Any = QUESTIONS, **settings: Any) -> Path:
    """A multiple-choice task, with accuracy plain and normalised by the choices' lengths."""
    rows = [{"question": text, "choices": choices, "label": label} for text, choices, label in questions]
    metrics = [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")]
    return write_task(
        folder,
        name,
        rows,
        output_type="multiple_choice",
        doc_to_choice="choices",
        doc_to_target="label",
        metric_list=metrics,
        **settings,
    )


def right_by_hand(model: Any, tokenizer: Any) -> dict[str, list[bool]]:
    """Which of QUESTIONS a model gets right: the likeliest choice, and the likeliest by the choices' letters."""
    import torch

    right: dict[str, list[bool]] = {"acc": [], "acc_norm": []}
    for text, choices, label in QUESTIONS:
        prompt = tokenizer(f"Question: {text}\nAnswer:")["input_ids"]
        scores = []
        for choice in choices:
            answer = tokenizer(f" {choice}")["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + answer])).logits[0].float()
            logs = logits.log_softmax(-1)
            scores.append(sum(float(logs[len(prompt) - 1 + k, token]) for k, token in enumerate(answer)))
        normed = [score / len(choice) for score, choice in zip(scores, choices, strict=True)]
        right["acc"].append(max(range(3), key=scores.__getitem__) == label)
        right["acc_norm"].append(max(range(3), key=normed.__getitem__) == label)
    return right


def write_adapter(folder: Path, base: Path) -> Path:
    """A LoRA adapter that changes what the base answers."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {"peft_type": "LORA", "lora_alpha": 40, "r": 1, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    made = torch.Generator().manual_seed(1)
    key = "base_model.model.model.layers.2.mlp.up_proj"
    factors = {
        f"{key}.lora_A.weight": torch.randn(1, 32, generator=made),
        f"{key}.lora_B.weight": torch.randn(64, 1, generator=made),
    }
    save_file(factors, str(folder / "adapter_model.safetensors"))
    return folder

"""`r1ranker thoughts record`: a bank of training lists alone, and what is told of it; `--thoughts` shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from fakeserver import Body, serving
from r1ranker import rollout as rollout_module
from r1ranker.datasets import load_dataset
from r1ranker.thoughts import ThoughtBank

Invoke = Callable[..., Result]
HALF = ("--option", "test_fraction=0.5", "--option", "shuffle=false")
RECORD = ("thoughts", "record", "--out", "bank.jsonl", *HALF)


def asked(body: Body) -> str:
    """The user's text of a request."""
    return str(body["messages"][-1]["content"])


def thinks(body: Body) -> str:
    """Excludes the last of "passage 1", which is relevant, to "passage 3", with a thought of the query's own."""
    (number,) = set(re.findall(r"question number (\d)", asked(body)))
    last = 3 if "passage 3" in asked(body) else 2
    return f"<think>{last} of {number}</think><answer>passage {last}</answer>"


def test_right_thoughts_of_training_lists_are_kept(cli: Invoke, tasks_file: Path) -> None:
    pytest.importorskip("openai")
    with serving(thinks) as fake:
        result = cli(*RECORD, "--model", f"openai:m@{fake.url}", "--dataset", tasks_file, "--per-query", 1)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "bank.jsonl\n"
    assert "2 of 4 turns' thoughts are kept; left out: 2 beyond 1 of a query" in result.stderr
    train = load_dataset(str(tasks_file), test_fraction=0.5, shuffle=False).train
    kept = ThoughtBank.read(Path("bank.jsonl")).thoughts
    assert [(t.example_id, t.context, t.thought, t.excluded, t.model) for t in kept] == [
        (e.id, e.query, f"2 of {e.id[1:]}", e.candidates[1].text, "m") for e in train
    ]


def test_evaluate_shows_the_nearest_thought(cli: Invoke, tasks_file: Path) -> None:
    pytest.importorskip("openai")
    row: dict[str, Any] = {
        "example_id": "x", "scenario": "passage", "context": "question 2", "thought": "none of it", "excluded": "y",
        "reward": 1.0, "model": "m",
    }  # fmt: skip
    Path("bank.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with serving(lambda _: "<answer>passage 3</answer>") as fake:
        result = cli(
            "evaluate", "-m", f"openai:m@{fake.url}", "-D", tasks_file, "--no-baselines", "--thoughts", "bank.jsonl"
        )
    assert result.exit_code == 0, result.stderr
    assert len(fake.bodies) == 4 * 2
    assert all("Case: question 2\nThought: none of it\nExcluded: y\n\n" in asked(body) for body in fake.bodies)


def test_lists_for_testing_alone_are_refused(cli: Invoke, tasks_file: Path) -> None:
    result = cli("thoughts", "record", "--model", "unused", "--dataset", tasks_file, "--out", "bank.jsonl")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has no training examples" in result.stderr
    assert "test_fraction=0.2" in result.stderr


def test_a_model_that_writes_nothing_of_use_leaves_no_file(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    result = cli(*RECORD, "--model", tiny_folder, "--dataset", tasks_file, "--max-tokens", 4)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "0 of 4 turns' thoughts are kept; left out: 4 not well formed, or without a thought" in result.stderr
    assert "nothing is written to bank.jsonl" in result.stderr
    assert not Path("bank.jsonl").exists()


def test_what_was_finished_before_a_stop_is_kept(
    cli: Invoke, tasks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    whole = rollout_module.rollout

    def stopped(*arguments: Any, **more: Any) -> Any:
        yield next(iter(whole(*arguments, **more)))
        raise KeyboardInterrupt

    monkeypatch.setattr(rollout_module, "rollout", stopped)
    with serving(thinks) as fake:
        result = cli(*RECORD, "--model", f"openai:m@{fake.url}", "--dataset", tasks_file)
    assert result.exit_code == 130
    assert "stopped after 1 of 2 lists" in result.stderr
    assert len(ThoughtBank.read(Path("bank.jsonl")).thoughts) == 2

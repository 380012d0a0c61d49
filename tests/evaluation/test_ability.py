"""Other abilities by lm-evaluation-harness: scores against log-likelihoods computed by hand, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from abilitytask import QUESTIONS, harness_of_own_tasks, right_by_hand, write_adapter, write_choices, write_task
from r1ranker.errors import AssetError, InputError, MissingExtraError
from r1ranker.evaluation.ability import (
    Score,
    ability_json,
    ability_table,
    base_of,
    differences,
    load_tasks,
    measure,
)

LOAD = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness, with no tasks but the test's."""
    harness_of_own_tasks(monkeypatch)


@pytest.mark.usefixtures("harness")
def test_scores_are_those_of_the_log_likelihoods(
    tiny_folder: Path, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    write_choices(tmp_path)
    scores = measure(tiny_folder, load_tasks(["tiny-choice"], include=tmp_path), **LOAD)
    assert list(scores) == ["tiny-choice"]
    assert set(scores["tiny-choice"]) == {"acc", "acc_norm"}
    for metric, right in right_by_hand(tiny_model, tiny_tokenizer).items():
        share = sum(right) / 6
        assert 0 < share < 1
        score = scores["tiny-choice"][metric]
        assert score.value == pytest.approx(share)
        assert score.stderr == pytest.approx(math.sqrt(share * (1 - share) / 5))  # that of a mean of six
        assert score.questions == 6
        assert score.each == tuple(map(float, right))


@pytest.mark.usefixtures("harness")
def test_an_adapter_is_measured_merged_and_the_tasks_serve_both(tiny_folder: Path, tmp_path: Path) -> None:
    from r1ranker.llm.load import load_model

    write_choices(tmp_path)
    adapter = write_adapter(tmp_path / "adapter", tiny_folder)
    tasks = load_tasks(["tiny-choice"], include=tmp_path)
    before, after = (measure(folder, tasks, **LOAD)["tiny-choice"] for folder in (base_of(adapter), adapter))
    right = right_by_hand(*load_model(adapter, **LOAD))
    assert [after[m].value for m in ("acc", "acc_norm")] == pytest.approx([sum(right[m]) / 6 for m in right])
    assert before != after


@pytest.mark.usefixtures("harness")
def test_a_limit_takes_the_first_questions(
    tiny_folder: Path, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    write_choices(tmp_path)
    score = measure(tiny_folder, load_tasks(["tiny-choice"], include=tmp_path), limit=4, **LOAD)["tiny-choice"]["acc"]
    assert (score.value, score.questions) == (sum(right_by_hand(tiny_model, tiny_tokenizer)["acc"][:4]) / 4, 4)


@pytest.mark.usefixtures("harness")
def test_written_answers_are_compared_and_a_filter_is_told(
    tiny_folder: Path, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    import torch

    prompt = torch.tensor([tiny_tokenizer(f"Question: {QUESTIONS[0][0]}\nAnswer:")["input_ids"]])
    written = tiny_model.generate(prompt, max_new_tokens=4, do_sample=False)[0, prompt.shape[1] :]
    text = tiny_tokenizer.decode(written, skip_special_tokens=True)
    assert text.strip()
    write_task(
        tmp_path,
        "tiny-write",
        [{"question": question[0], "answer": text if k == 0 else "never"} for k, question in enumerate(QUESTIONS[:4])],
        output_type="generate_until",
        doc_to_target="answer",
        generation_kwargs={"until": [], "do_sample": False, "max_gen_toks": 4},
        filter_list=[{"name": "strict", "filter": [{"function": "take_first"}]}],
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    scores = measure(tiny_folder, load_tasks(["tiny-write"], include=tmp_path), **LOAD)
    assert scores["tiny-write"]["exact_match,strict"].value == 0.25
    assert scores["tiny-write"]["exact_match,strict"].each == (1.0, 0.0, 0.0, 0.0)


@pytest.mark.usefixtures("harness")
def test_a_group_is_one_row_if_the_harness_sums_it_up_and_else_its_members(tiny_folder: Path, tmp_path: Path) -> None:
    write_choices(tmp_path, "one")
    write_choices(tmp_path, "two", QUESTIONS[:2])
    group = {"group": "all", "task": ["one", "two"]}
    (tmp_path / "loose.yaml").write_text(json.dumps(group | {"group": "loose"}))
    (tmp_path / "all.yaml").write_text(
        json.dumps(group | {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]})
    )
    members = measure(tiny_folder, load_tasks(["loose"], include=tmp_path), **LOAD)
    assert {name: row["acc"].questions for name, row in members.items()} == {"one": 6, "two": 2}
    summed = measure(tiny_folder, load_tasks(["all"], include=tmp_path), **LOAD)
    assert list(summed) == ["all"]
    score = summed["all"]["acc"]
    assert score.value == pytest.approx((6 * members["one"]["acc"].value + 2 * members["two"]["acc"].value) / 8)
    assert score.questions == 8
    assert score.each is None
    with pytest.raises(InputError, match="'one' is in both 'all' and 'one'"):
        load_tasks(["all", "one"], include=tmp_path)


@pytest.mark.usefixtures("harness")
def test_what_cannot_be_loaded_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_choices(tmp_path)
    (tmp_path / "tiny-choice.jsonl").unlink()

    def refused(names: list[str], error: type[Exception], *parts: str) -> None:
        with pytest.raises(error) as caught:
            load_tasks(names, include=tmp_path)
        text = str(caught.value)
        assert "\n" not in text
        assert all(part in text for part in parts), text

    refused(["nosuch"], InputError, "'nosuch'", "lm-eval ls tasks")
    refused(["tiny-choice"], AssetError, "'tiny-choice'", "tiny-choice.jsonl", "--include-path")
    write_choices(tmp_path, "no-words", doc_to_text="{{question")
    refused(["no-words"], InputError, "'no-words'")
    write_task(tmp_path, "no-split", [{"question": "?"}], doc_to_target="question", output_type="generate_until")
    path = tmp_path / "no-split.yaml"
    path.write_text(path.read_text().replace('"test_split": "test"', '"test_split": "exam"'))
    refused(["no-split"], InputError, "'no-split'", "exam")

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'a/b' on the Hub\nmore")

    write_choices(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", unreachable)
    refused(["tiny-choice"], AssetError, "'tiny-choice'", "Couldn't reach 'a/b' on the Hub)", "check that the hub")
    with pytest.raises(InputError, match="is not a folder"):
        load_tasks(["tiny-choice"], include=tmp_path / "absent")


@pytest.mark.usefixtures("harness")
def test_tasks_that_run_code_must_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    write_choices(tmp_path, "coding", unsafe_code=True)
    (tmp_path / "group.yaml").write_text(json.dumps({"group": "group", "task": ["coding"]}))
    for name in ("coding", "group", str(tmp_path / "coding.yaml")):
        with pytest.raises(InputError, match="'coding' runs code that the model writes"):
            load_tasks([name], include=tmp_path)
    assert len(load_tasks(["coding"], include=tmp_path, unsafe_code=True)) == 1


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MissingExtraError, match=r"r1ranker\[ability\]"):
        load_tasks(["hellaswag"])


def test_the_base_is_what_a_folder_names(tmp_path: Path, tiny_folder: Path) -> None:
    assert base_of(write_adapter(tmp_path / "adapter", tiny_folder)) == tiny_folder
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "ranker.json").write_text(json.dumps({"ranker": {}, "base": str(tiny_folder)}))
    assert base_of(whole) == tiny_folder
    with pytest.raises(AssetError, match="--base"):
        base_of(tiny_folder)


def test_the_table_and_the_json_tell_both_sides() -> None:
    right, wrong = (1.0,) * 6, (0.0,) * 6
    before = {"mmlu": {"acc": Score(1.0, 0.0, 6, right)}, "ifeval": {"inst_level_strict_acc": Score(0.5, None, 541)}}
    after = {"mmlu": {"acc": Score(0.0, 0.0, 6, wrong)}, "ifeval": {"inst_level_strict_acc": Score(0.625, None, 541)}}
    lost = differences(before, after)["mmlu", "acc"]
    assert lost.value == -1
    assert lost.p == pytest.approx(2 / 64, abs=0.01)  # all six signs alike: two draws of 64
    assert ability_table(before, after).splitlines()[2:] == [
        f"| mmlu | acc | 6 | 1.0000 ± 0.0000 | 0.0000 ± 0.0000 | -1.0000 | {lost.p:.4f} |",
        "| ifeval | inst_level_strict_acc | 541 | 0.5000 | 0.6250 | +0.1250 | - |",
    ]
    told = json.loads(ability_json(before, after, {"limit": None}))
    assert told["facts"] == {"limit": None}
    assert told["before"]["mmlu"]["acc"] == {"value": 1.0, "stderr": 0.0, "questions": 6}
    assert told["after"]["ifeval"]["inst_level_strict_acc"]["stderr"] is None
    assert told["differences"]["mmlu"]["acc"] == {"value": -1.0, "p": lost.p}
    assert told["differences"]["ifeval"]["inst_level_strict_acc"] == {"value": 0.125, "p": None}
    alone = json.loads(ability_json(before, None, {}))
    assert alone["after"] is alone["differences"] is None


def test_p_values_are_corrected_for_all_lines() -> None:
    right, wrong = (1.0,) * 6, (0.0,) * 6
    before = {name: {"acc": Score(1.0, 0.0, 6, right)} for name in ("a", "b")}
    after = {name: {"acc": Score(0.0, 0.0, 6, wrong)} for name in ("a", "b")}
    alone = differences({"a": before["a"]}, {"a": after["a"]})["a", "acc"].p
    assert alone is not None
    assert [found.p for found in differences(before, after).values()] == pytest.approx([2 * alone] * 2)

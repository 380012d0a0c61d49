"""`r1ranker rank`: results, traces, and every way in which the input can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from factories import ExampleFactory
from fakeserver import Body, failure, serving
from r1ranker.cli.console import turns
from r1ranker.config import RankerConfig
from r1ranker.datasets import read_run
from r1ranker.errors import InputError
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.rankers import make_ranker
from r1ranker.types import Completion, Request, Sampling

Invoke = Callable[..., Result]
DOCS = ("--doc", "Bread is made of flour.", "--doc", "The Tiber flows through Rome.", "--doc", "A whale is a mammal.")
QUERY = ("--query", "Where is Rome?")


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_ranks_documents_best_first(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, *DOCS, "--model", tiny_folder)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line[:2] for line in lines] == ["1.", "2.", "3."]
    assert {line.split("] ")[1] for line in lines} == set(DOCS[1::2])


def test_a_history_asks_for_what_comes_next(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", "--history", "Heat (1995)", "--doc", "Alien", "--doc", "Jaws", "-m", tiny_folder, "-k", 1)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1


def test_json_holds_the_ranking_and_what_it_cost(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, *DOCS, "--model", tiny_folder, "--json", "--top-k", 2)
    (row,) = records(result.stdout)
    assert sorted(row["ranking"]) == ["0", "1", "2"]
    assert [(r["rank"], r["id"]) for r in row["results"]] == [(1, row["ranking"][0]), (2, row["ranking"][1])]
    assert row["usage"]["calls"] == 2
    assert row["parse"] == {"exact": 2}
    assert "trace" not in row


def test_a_trace_shows_every_exclusion_with_probabilities(cli: Invoke, tiny_folder: Path) -> None:
    text = cli("rank", *QUERY, *DOCS, "--model", tiny_folder, "--trace").stdout
    (row,) = records(cli("rank", *QUERY, *DOCS, "--model", tiny_folder, "--trace", "--json").stdout)
    for number, turn in enumerate(row["trace"], 1):
        assert f"turn {number} of 2: excluded [{turn['excluded']}]" in text
        assert sum(turn["probabilities"].values()) == pytest.approx(1)
        # Greedy: the most probable candidate is the one that is excluded.
        assert max(turn["probabilities"], key=turn["probabilities"].get) == turn["excluded"]
    assert [t["excluded"] for t in row["trace"]] == row["ranking"][:0:-1]
    assert text.count("%") == 3 + 2


def test_a_trace_with_thinking_shows_the_thought_and_the_status(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, *DOCS, "--model", tiny_folder, "--trace", "--think", "--max-tokens", 8)
    assert result.exit_code == 0
    assert result.stdout.count("excluded") == 2
    assert "cut at --max-tokens" in result.stdout  # the tiny model babbles
    assert "failed: there is no answer" in result.stdout


def test_a_direct_ranker_shows_its_reply(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, *DOCS, "-m", tiny_folder, "--ranker", "direct", "--trace", "--max-tokens", 8)
    assert result.exit_code == 0
    assert "the model's reply (" in result.stdout
    assert "<answer>" in result.stdout


def test_a_file_is_ranked_line_by_line(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    result = cli("rank", "--input", tasks_file, "--model", tiny_folder, "--out", "deep/er/ranked.jsonl")
    assert result.exit_code == 0
    assert result.stdout == ""
    rows = records(Path("deep/er/ranked.jsonl").read_text(encoding="utf-8"))
    assert sorted(row["id"] for row in rows) == ["q0", "q1", "q2", "q3"]
    assert "ranked 4 of 4 lists" in result.stderr


def test_stdin_is_read_too(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    text = tasks_file.read_text(encoding="utf-8") + "{broken\n"
    result = cli("rank", "--input", "-", "--model", tiny_folder, "--json", input=text)
    assert result.exit_code == 2
    assert len(records(result.stdout)) == 4
    assert "stdin:5: not valid JSON" in result.stderr


def test_broken_lines_are_reported_and_the_others_ranked(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    bad = [
        "{not json",
        '{"query": "q", "candidates": []}',
        '{"query": "q"}',
        '{"qurey": "q", "candidates": ["a"]}',
        "7",
    ]
    tasks_file.write_text(tasks_file.read_text(encoding="utf-8") + "\n".join(bad), encoding="utf-8")
    result = cli("rank", "--input", tasks_file, "--model", tiny_folder, "--out", "ranked.jsonl")
    assert result.exit_code == 2
    assert len(records(Path("ranked.jsonl").read_text(encoding="utf-8"))) == 4
    for line in range(5, 10):
        assert f"tasks.jsonl:{line}: " in result.stderr
    assert "did you mean 'query'?" in result.stderr
    assert "ranked 4 of 9 lists" in result.stderr


def test_of_many_broken_lines_a_few_are_named(cli: Invoke, tiny_folder: Path, tasks_file: Path, tmp_path: Path) -> None:
    tasks_file.write_text(tasks_file.read_text(encoding="utf-8") + "{\n" * 30, encoding="utf-8")
    result = cli("rank", "--input", tasks_file, "--model", tiny_folder, "--out", "ranked.jsonl")
    assert result.exit_code == 2
    assert result.stderr.count("not valid JSON") == 5
    assert "and 25 lines more that are none (r1ranker data validate names them all)" in result.stderr
    (tmp_path / "bm25.run").write_text("q1 Q0 d1 1 1.0 t\n" * 50, encoding="utf-8")
    result = cli("rank", "--input", "bm25.run", "--model", tiny_folder)
    assert result.exit_code == 1
    assert "bm25.run is a run, which has no texts: r1ranker data build trec --source DIR" in result.stderr


def test_answers_that_name_no_candidate_are_told(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    """A random model writes no list: what stands there is the order that was given, which nobody would see."""
    result = cli("rank", "-i", tasks_file, "-m", tiny_folder, "--ranker", "direct", "--max-tokens", 4, "--json")
    assert result.exit_code == 0
    assert all(set(row["parse"]) <= {"failed", "defaulted"} for row in records(result.stdout))
    assert "4 lists have turns whose answer named no candidate: there the order stays as listed" in result.stderr
    quiet = cli("rank", "-i", tasks_file, "-m", tiny_folder, "--json")
    assert "named no candidate" not in quiet.stderr


def test_a_list_that_cannot_fit_leaves_the_others_ranked(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    long = {"id": "long", "query": "q", "candidates": [f"candidate number {k} of many" for k in range(1000)]}
    tasks_file.write_text(json.dumps(long) + "\n" + tasks_file.read_text(encoding="utf-8"), encoding="utf-8")
    result = cli("rank", "--input", tasks_file, "--model", tiny_folder, "--out", "ranked.jsonl")
    assert result.exit_code == 2
    assert len(records(Path("ranked.jsonl").read_text(encoding="utf-8"))) == 4
    assert "not ranked: example 'long'" in result.stderr


def test_nothing_that_can_be_ranked_is_exit_code_1(cli: Invoke, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{\n", encoding="utf-8")
    result = cli("rank", "--input", "bad.jsonl", "--model", tiny_folder)
    assert result.exit_code == 1
    assert "bad.jsonl:1: " in result.stderr
    assert "error: bad.jsonl holds no list" in result.stderr


def test_a_thousand_candidates_are_one_clear_message(cli: Invoke, tiny_folder: Path) -> None:
    docs = [part for k in range(1000) for part in ("--doc", f"candidate number {k} of many")]
    result = cli("rank", *QUERY, *docs, "--model", tiny_folder)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "1000 candidates do not fit" in result.stderr.replace(",", "")


def test_a_text_longer_than_the_context_is_cut_and_reported(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, "--doc", "whale " * 3000, "--doc", "Rome", "--model", tiny_folder, "--json")
    assert result.exit_code == 0
    assert records(result.stdout)[0]["truncated"] == 1
    assert "1 text was cut" in result.stderr
    # What comes back is the text as it was given.
    assert "whale " * 3000 in [r["text"] for r in records(result.stdout)[0]["results"]]


def test_documents_are_cut_to_a_limit_that_is_asked_for(cli: Invoke, tiny_folder: Path) -> None:
    documents = ("--doc", "whale " * 30, "--doc", "Rome", "--doc", "ship " * 30)
    result = cli("rank", *QUERY, *documents, "--model", tiny_folder, "--json", "--document-tokens", 8)
    assert result.exit_code == 0
    assert records(result.stdout)[0]["truncated"] == 2
    assert "2 texts were cut" in result.stderr
    whole = cli("rank", *QUERY, *documents, "--model", tiny_folder, "--json")
    assert records(whole.stdout)[0]["truncated"] == 0
    assert cli("rank", *QUERY, *documents, "--model", tiny_folder, "--document-tokens", 3).exit_code == 2


def test_duplicate_texts_stay_apart(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, *("--doc", "the same") * 3, "--model", tiny_folder, "--json")
    assert result.exit_code == 0
    assert sorted(records(result.stdout)[0]["ranking"]) == ["0", "1", "2"]


def test_duplicate_ids_are_a_bad_line(cli: Invoke, tiny_folder: Path, tmp_path: Path) -> None:
    twice = {"query": "q", "candidates": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}
    (tmp_path / "twice.jsonl").write_text(json.dumps(twice), encoding="utf-8")
    result = cli("rank", "--input", "twice.jsonl", "--model", tiny_folder)
    assert result.exit_code == 1
    assert "the candidate id 'a' stands twice" in result.stderr


def test_one_candidate_needs_no_model_call(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, "--doc", "only me", "--model", tiny_folder, "--trace")
    assert result.exit_code == 0
    assert "one candidate: nothing to exclude" in result.stdout
    assert "1. [0] only me" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there is nothing to rank for"),
        (("--query", "q"), "give each candidate with --doc"),
        (("--doc", "d"), "there is nothing to rank for"),
        (("--query", "   ", "--doc", "d"), "there is nothing to rank for"),
        (("--query", "q", "--input", "x.jsonl"), "give either a file or one list"),
        (("--presorted", "--input", "x.jsonl"), "--presorted is for --doc"),
        (("--input", "missing.jsonl"), "missing.jsonl does not exist"),
        (("--query", "q", "--doc", "d", "--model", "smollm2-135m-instrukt"), "did you mean 'smollm2-135m-instruct'?"),
    ],
)
def test_what_is_missing_is_said(cli: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = cli("rank", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_an_unknown_option_names_the_nearest(cli: Invoke) -> None:
    result = cli("rank", "--docs", "x")
    assert result.exit_code == 2
    assert "--doc" in result.stderr


def test_an_output_that_cannot_be_written_is_said_before_the_model_is_loaded(cli: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = cli("rank", *QUERY, *DOCS, "--model", "no-such-model", "--out", "file/ranked.jsonl")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_an_old_output_survives_a_model_that_does_not_load(cli: Invoke, tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text("precious\n", encoding="utf-8")
    assert cli("rank", *QUERY, *DOCS, "--model", "no-such-model", "--out", "old.jsonl").exit_code == 1
    assert (tmp_path / "old.jsonl").read_text(encoding="utf-8") == "precious\n"


def test_the_input_is_never_the_output(cli: Invoke, tasks_file: Path) -> None:
    result = cli("rank", "--input", tasks_file, "--out", tasks_file)
    assert result.exit_code == 1
    assert "choose another file" in result.stderr
    assert tasks_file.read_text(encoding="utf-8").count("\n") == 4


# First-step scores


@pytest.mark.parametrize(("kind", "calls"), [("iterative", 0 + 1 + 3), ("direct", 2), ("first_step", 2)])
def test_how_many_calls_a_kind_makes(kind: str, calls: int, make_example: ExampleFactory) -> None:
    assert turns(make_ranker(kind), [make_example(n) for n in (1, 2, 4)]) == calls  # type: ignore[arg-type]


def test_first_step_scores_all_candidates_in_one_call(cli: Invoke, tiny_folder: Path) -> None:
    asked = ("rank", *QUERY, *DOCS, "--model", tiny_folder, "--ranker", "first-step", "--trace")
    (row,) = records(cli(*asked, "--json").stdout)
    assert (row["usage"]["calls"], row["parse"]) == (1, {"exact": 1})
    (turn,) = row["trace"]
    chances = turn["probabilities"]
    assert turn["remaining"] == ["0", "1", "2"]
    assert sum(chances.values()) == pytest.approx(1)
    assert row["ranking"] == sorted(chances, key=lambda i: chances[i])
    # What an IRanker excludes first is what the first step ranks last.
    (whole,) = records(cli("rank", *QUERY, *DOCS, "--model", tiny_folder, "--json").stdout)
    assert whole["ranking"][-1] == row["ranking"][-1]
    lines = cli(*asked).stdout.splitlines()
    assert lines[0] == "each candidate's probability of being excluded:"
    assert [line.split("[")[1][0] for line in lines[1:4]] == row["ranking"][::-1]
    assert lines[4] == "ranking, best first:"


def test_first_step_does_not_think(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *QUERY, *DOCS, "--model", tiny_folder, "--ranker", "first-step", "--think")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: settings: kind = 'first_step' scores the candidates and writes nothing: "
        "set thinking = false (--no-think)\n"
    )


# Models behind a server


def test_a_model_behind_a_server_ranks(cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def answer(body: Body) -> str | tuple[int, Body]:
        if "temperature" in body:
            return failure(400, "unsupported", param="temperature")
        left = body["messages"][1]["content"].partition("Candidates:")[2]
        return f"<think>short</think><answer>passage {3 if 'passage 3' in left else 1}</answer>"

    with serving(answer) as fake:
        address = fake.url.replace("http://", "http://me:secret@")
        result = cli("rank", *QUERY, *DOCS, "--model", f"openai:m@{address}", "--think", "--trace")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-3:] == [
        "1. [1] The Tiber flows through Rome.",
        "2. [0] Bread is made of flour.",
        "3. [2] A whale is a mammal.",
    ]
    assert "turn 1 of 2: excluded [2] A whale is a mammal. (exact)\n    short\n" in result.stdout
    assert f"openai:m@{fake.url} refuses 'temperature': asked without it\n" in result.stderr
    assert "secret" not in result.output


def test_documents_of_an_earlier_ranking_are_told_as_such(cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    asked: list[str] = []

    def answer(body: Body) -> str:
        asked.append(body["messages"][1]["content"])
        return "<think>short</think><answer>passage 2</answer>"

    with serving(answer) as fake:
        for more in ([], ["--presorted"]):
            model = ("--model", f"openai:m@{fake.url}", "--think")
            assert cli("rank", *QUERY, *DOCS[:4], *more, *model).exit_code == 0
    assert ["An earlier ranking" in prompt for prompt in asked] == [False, True]


def test_a_server_that_fails_is_one_line(cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving(lambda _: failure(401, "wrong key sk-secret")) as fake:
        result = cli("rank", *QUERY, *DOCS, "--model", f"openai:m@{fake.url}")
        scores = cli("rank", *QUERY, *DOCS, "--model", f"openai:m@{fake.url}", "--ranker", "first-step")
    assert (result.exit_code, result.stdout) == (1, "")
    refusal = f"error: {fake.url} refuses the key (401): set OPENAI_API_KEY to one that is valid there\n"
    assert result.stderr == refusal
    assert (scores.exit_code, scores.stderr.count("\n")) == (1, 1)
    assert "cannot score given choices" in scores.stderr


def test_a_list_that_is_too_long_is_named_and_the_others_are_ranked(
    cli: Invoke, tiny_folder: Path, tasks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = TransformersLLM.complete

    def refuse(self: TransformersLLM, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        if any("number 2" in request.prompt.user for request in requests):
            raise InputError("the prompt takes too many tokens")
        return complete(self, requests, sampling)

    monkeypatch.setattr(TransformersLLM, "complete", refuse)
    result = cli("rank", "--input", tasks_file, "--model", tiny_folder, "--out", "ranked.jsonl")
    assert result.exit_code == 2
    assert sorted(row["id"] for row in records(Path("ranked.jsonl").read_text(encoding="utf-8"))) == ["q0", "q1", "q3"]
    assert "not ranked: example 'q2': the prompt takes too many tokens" in result.stderr


def test_results_stay_where_no_list_can_be_ranked(
    cli: Invoke, tiny_folder: Path, tasks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[Completion]:
        raise InputError("nothing works")

    monkeypatch.setattr(TransformersLLM, "complete", refuse)
    Path("ranked.jsonl").write_text("of before\n", encoding="utf-8")
    result = cli("rank", "--input", tasks_file, "--model", tiny_folder, "--out", "ranked.jsonl")
    assert result.exit_code == 1
    assert Path("ranked.jsonl").read_text(encoding="utf-8") == "of before\n"
    assert "ranked 0 of 4 lists\n" in result.stderr


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ((), "passage"),
        (("--scenario", "routing"), "LLM"),
        (("--scenario", "routing", "--goal", "fast"), "answer this query, fast."),
        (("--item-type", "planet", "--answer-form", "id"), "planet 2"),
    ],
)
def test_the_scenario_and_the_word_for_a_document_can_be_told(
    options: tuple[str, ...], asked: str, cli: Invoke, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    complete = TransformersLLM.complete

    def listen(self: TransformersLLM, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        shown.extend(request.prompt.user for request in requests)
        return complete(self, requests, sampling)

    monkeypatch.setattr(TransformersLLM, "complete", listen)
    assert cli("rank", *QUERY, *DOCS, *options, "-m", tiny_folder).exit_code == 0
    assert shown
    assert all(asked in text for text in shown)
    result = cli("rank", "--input", "tasks.jsonl", "--scenario", "routing")
    assert 'write "scenario" into the lines of the file' in result.stderr


def test_both_spellings_of_a_kind_are_taken(cli: Invoke, tiny_folder: Path) -> None:
    for kind in ("first-step", "first_step"):
        result = cli("rank", *QUERY, *DOCS, "-m", tiny_folder, "--ranker", kind, "--json")
        assert result.exit_code == 0
        assert records(result.stdout)[0]["usage"]["calls"] == 1
        assert RankerConfig.model_validate({"kind": kind}).kind == "first_step"


def test_results_can_be_a_trec_run(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    assert cli("rank", "--input", tasks_file, "-m", tiny_folder, "--out", "ranked.run", "-k", 2).exit_code == 0
    run = read_run(Path("ranked.run"))
    assert sorted(run) == ["q0", "q1", "q2", "q3"]
    assert all(len(set(documents)) == 2 for documents in run.values())
    tasks_file.write_text('{"query": "q", "candidates": [{"id": "two words", "text": "a"}, "b"]}\n', encoding="utf-8")
    result = cli("rank", "--input", tasks_file, "-m", tiny_folder, "--out", "ranked.run")
    assert (result.exit_code, "document id" in result.stderr) == (1, True)
    assert len(read_run(Path("ranked.run"))) == 4

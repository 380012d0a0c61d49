"""`--ranker pointwise`: a ranking by candidates that are judged alone, and its trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Invoke = Callable[..., Result]
TEXTS = ("Bread is made of flour.", "The Tiber flows through Rome.", "A whale is a mammal.")
ASKED = ("--query", "Where is Rome?", *(part for text in TEXTS for part in ("--doc", text)), "--ranker", "pointwise")


def test_a_trace_tells_each_candidates_probability_of_yes(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *ASKED, "--model", tiny_folder, "--trace", "--json")
    assert result.exit_code == 0
    row = json.loads(result.stdout)
    chances = {turn["remaining"][0]: turn["yes"] for turn in row["trace"]}
    assert list(chances) == ["0", "1", "2"]
    assert all(0 < chance < 1 for chance in chances.values())
    assert row["ranking"] == sorted(chances, key=lambda i: -chances[i])
    assert (row["usage"]["calls"], row["parse"], row["cut_short"]) == (3, {"exact": 3}, False)
    lines = cli("rank", *ASKED, "--model", tiny_folder, "--trace").stdout.splitlines()
    assert lines[0] == "each candidate's probability of yes, judged alone:"
    assert lines[1:4] == [f"    {chances[str(k)]:6.1%}  [{k}] {text}" for k, text in enumerate(TEXTS)]
    assert lines[4] == "ranking, best first:"
    assert len(lines) == 4 + 1 + 3


def test_a_budget_leaves_the_others_as_listed(cli: Invoke, tiny_folder: Path) -> None:
    result = cli("rank", *ASKED, "--model", tiny_folder, "--budget-calls", 2, "--json")
    row = json.loads(result.stdout)
    assert (row["ranking"][2], row["usage"]["calls"], row["cut_short"]) == ("2", 2, True)
    assert "1 list was not ranked to the end within the budget" in result.stderr


def test_what_it_does_not_go_with_is_one_line(cli: Invoke, tiny_folder: Path) -> None:
    for more, said in (("--think",), "set thinking = false (--no-think)"), (("--window", 2), "leave out window"):
        result = cli("rank", *ASKED, "--model", tiny_folder, *more)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert said in result.stderr


SHOW = ("data", "show", "--option", "shuffle=false")


def test_data_show_asks_what_is_asked_first(cli: Invoke, tasks_file: Path) -> None:
    text = cli(*SHOW, tasks_file, "--ranker", "pointwise").stdout.split("the first prompt")[1]
    assert "Is this passage helpful to answer the query? Reply with yes or no only." in text
    assert "answer 0 to 0" in text
    assert "answer 1 to 0" not in text
    assert text.endswith("goes on\nyes\nno\n")
    assert "answer 1 to 0" not in cli(*SHOW, tasks_file, "--tournament", 2).stdout.split("Candidates:")[1]

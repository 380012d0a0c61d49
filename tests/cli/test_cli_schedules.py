"""Schedules on the command line and in `Reranker.load`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from r1ranker.errors import ConfigError
from r1ranker.reranker import Reranker
from r1ranker.schedules import Windows

Invoke = Callable[..., Result]
TEXTS = [f"text number {k}" for k in range(8)]
ASKED = ("rank", "--query", "which?", *(part for text in TEXTS for part in ("--doc", text)))


@pytest.mark.parametrize(
    ("options", "calls", "excluded"),
    [
        (("--exclude-per-turn", 3), 3, [3, 3, 1]),
        (("--exclude-per-turn", 0.5), 3, [4, 2, 1]),
        (("--stop-at", 5), 4, [1, 1, 1, 4]),
        (("--window", 4), 7, [1] * 7),
        (("--tournament", 4, "--exclude-per-turn", 2), 4, [2, 2, 2, 1]),
        (("--budget-calls", 2), 2, [1, 1]),
        (("--budget-tokens", 1), 0, []),
    ],
)
def test_rank_by_a_schedule(
    options: tuple[object, ...], calls: int, excluded: list[int], cli: Invoke, tiny_folder: Path
) -> None:
    result = cli(*ASKED, "--model", tiny_folder, *options, "--json", "--trace")
    assert result.exit_code == 0
    row = json.loads(result.stdout)
    assert sorted(row["ranking"]) == [str(k) for k in range(8)]
    assert row["usage"]["calls"] == calls
    assert [len(t["excluded"]) if isinstance(t["excluded"], list) else 1 for t in row["trace"]] == excluded
    budget = str(options[0]).startswith("--budget")
    assert row["cut_short"] is budget
    assert ("1 list was not ranked to the end within the budget" in result.stderr) is budget


def test_rank_averages_the_scores_of_several_orders(cli: Invoke, tiny_folder: Path) -> None:
    asked = (*ASKED, "--model", tiny_folder, "--ranker", "first-step", "--orders", 3, "--trace")
    row = json.loads(cli(*asked, "--json").stdout)
    assert row["usage"]["calls"] == 3
    first, back, other = (turn["remaining"] for turn in row["trace"])
    assert first == back[::-1] == [str(k) for k in range(8)]
    assert other not in (first, back)
    assert sorted(row["ranking"]) == sorted(first)
    titles = [line for line in cli(*asked).stdout.splitlines() if line.startswith("each candidate's")]
    assert [title.rpartition(" (")[2] for title in titles] == ["pass 1 of 3):", "pass 2 of 3):", "pass 3 of 3):"]


def test_rank_fuses_a_sorted_list_with_the_scores(cli: Invoke, tiny_folder: Path) -> None:
    asked = (*ASKED, "--model", tiny_folder, "--ranker", "first-step", "--orders", 2, "--json")
    listed, alone = [str(k) for k in range(8)], json.loads(cli(*asked).stdout)["ranking"]
    assert alone != listed
    for fusion, ranking in ((1e-9, listed), (1e9, alone)):
        assert json.loads(cli(*asked, "--presorted", "--fusion", fusion).stdout)["ranking"] == ranking
    refused = cli(*asked, "--presorted")
    assert refused.exit_code == 1
    assert "set orders = 1, or fusion" in refused.stderr


def test_a_trace_names_all_that_a_turn_excludes(cli: Invoke, tiny_folder: Path) -> None:
    text = cli(*ASKED, "--model", tiny_folder, "--exclude-per-turn", 4, "--trace").stdout
    assert "turn 1 of 2: excluded [" in text
    assert text.splitlines()[0].count("text number") == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--exclude-per-turn", 1.5),
            "exclude_per_turn is 1.5: give a whole number from 1, or a share between 0 and 1",
        ),
        (("--window", 4, "--tournament", 4), "give one of them"),
        (("--orders", 2), "orders are for kind = 'first_step', not 'iterative'"),
        (("--ranker", "direct", "--stop-at", 2), "for kind = 'iterative', not 'direct'"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    options: tuple[object, ...], said: str, cli: Invoke, tiny_folder: Path
) -> None:
    result = cli(*ASKED, "--model", tiny_folder, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_budget_that_allows_no_call_is_told_as_such(cli: Invoke, tiny_folder: Path) -> None:
    asked = ("-q", "a question", "-d", "one", "-d", "two", "-d", "three")
    result = cli("rank", *asked, "--model", tiny_folder, "--budget-tokens", 1, "--trace")
    assert "the budget allows no call\n1. [0] one\n2. [1] two\n3. [2] three" in result.stdout


def test_results_can_go_into_a_pipe(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    result = cli("rank", "--input", tasks_file, "--model", tiny_folder, "--out", "/dev/null")
    assert result.exit_code == 0, result.stderr


def test_evaluate_tells_how_many_lists_a_budget_ended(cli: Invoke, tiny_folder: Path, tasks_file: Path) -> None:
    result = cli("evaluate", "--dataset", tasks_file, "--model", tiny_folder, "--budget-calls", 1, "--no-baselines")
    assert result.exit_code == 0
    assert f"{tiny_folder.name}: 4 lists were not ranked to the end within the budget" in result.stderr


def test_data_show_asks_as_the_schedule_does(cli: Invoke, tasks_file: Path) -> None:
    asked = ("data", "show", tasks_file, "--think", "--option", "shuffle=false")
    assert "Which passage is the least helpful" in cli(*asked).stdout
    assert "Which 2 passages are the least helpful" in cli(*asked, "--exclude-per-turn", 2).stdout
    assert "answer 0 to 0" not in cli(*asked, "--window", 2).stdout.split("the first prompt")[1]


def test_the_python_api_takes_the_same_settings(tiny_folder: Path) -> None:
    reranker = Reranker.load(tiny_folder, exclude_per_turn=0.5)
    assert reranker.rank("which?", TEXTS).usage.calls == 3
    assert isinstance(Reranker.load(tiny_folder, window=4, stride=1).ranker, Windows)
    with pytest.raises(ConfigError, match="stride is by how many a window moves on"):
        Reranker.load(tiny_folder, stride=1)

"""The page: what its tables say, that it says what is missing, and that it is the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import page
import page_tables
from figures import Figures
from pairs import pairs_of

PAGE, RESULTS = Path("docs/experiments.md"), Path("docs/results/experiments")


def all_bytes() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (PAGE, *sorted(RESULTS.iterdir()))}


def line(text: str, start: str) -> list[str]:
    """The cells of the first line of a table that begins so."""
    found = next(one for one in text.splitlines() if one.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def made(**changes: Any) -> Figures:
    def cell(row: str, dataset: str, mrr: list[float], seed: int | None = None) -> dict[str, Any]:
        values = {"MRR": mrr, "nDCG@10": [0.5] * len(mrr), "Hit@1": [0.25] * len(mrr)}
        return {"row": row, "dataset": dataset, "seed": seed, "values": values, "run_means": [], "tokens": 8}

    return Figures(
        {
            "name": "x",
            "title": "T",
            "question": "Q?",
            "rows": {"base": "base", "ours": "base", "later": "base"},
            "datasets": ["rec-movie", "own"],
            "data": {name: {"scenario": "passage", "source": "a|b"} for name in ("rec-movie", "own")},
            "missing": [],
            "quoted": False,
            "trainings": [],
            "command": "c",
            "commit": "k",
            "date": "d",
            "machine": {"cpus": 2},
            "versions": {"torch": "2"},
            "cells": [
                cell("base", "rec-movie", [0.5, 0.5]),
                cell("base", "own", [0.5, 0.5]),
                cell("ours", "rec-movie", [1.0, 0.5], 0),
                cell("ours", "rec-movie", [1.0, 1.0], 1),
            ],
            **changes,
        }
    )


@pytest.mark.usefixtures("finished")
def test_the_same_files_give_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert page.main([]) == 0
    assert capsys.readouterr().out.strip() == str(PAGE)
    first = all_bytes()
    assert [Path(name).name for name in first] == ["experiments.md", "tiny-learner-reward.png", "tiny.json", "tiny.png"]
    assert page.main([]) == 0
    assert all_bytes() == first
    text = PAGE.read_text(encoding="utf-8")
    for name in ("tiny.png", "tiny-learner-reward.png", "tiny.json"):
        assert f"(results/experiments/{name})" in text
    assert "- rec-music: the source of" in text
    assert "    python experiments/run.py plan.toml --source rec-music=music\n" in text
    assert "Quoted" not in text


@pytest.mark.usefixtures("finished")
def test_main_stands_first() -> None:
    text = (RESULTS / "tiny.json").read_text(encoding="utf-8")
    for name in ("main", "ablations"):
        other = {**json.loads(text), "name": name, "title": f"About {name}"}
        (RESULTS / f"{name}.json").write_text(json.dumps(other), encoding="utf-8")
    assert page.main([]) == 0
    titles = [one for one in PAGE.read_text(encoding="utf-8").splitlines() if one.startswith("## ")]
    assert titles == ["## About main", "## About ablations", "## A tiny experiment"]


def test_the_tables_of_a_part() -> None:
    text = page.section(made(missing=["own: not at hand"]), "results", ["x.png"])
    # Seed means per query 1 and 0.75; seeds' means 0.75 and 1, so a deviation of 0.25 / sqrt(2).
    assert line(text, "ours")[1:] == ["0.875 [0.750, 1.000] ± 0.177", "-"]
    assert line(text, "base")[1:] == ["0.500 [0.500, 0.500]", "0.500 [0.500, 0.500]"]
    assert "| later |" not in text
    seeds = text[text.index("seed by seed") :]
    assert line(seeds, "ours") == ["ours", "0", "0.750", "-", "-"]
    assert [row[1:] for row in page_tables.seed_table(made(datasets=["rec-movie"]))[1]] == [
        ["0", "0.750", "0.750"],
        ["1", "1.000", "1.000"],
    ]
    one = made(cells=[cell for cell in made().results["cells"] if cell["seed"] != 1])
    assert "seed by seed" not in page.section(one, "results", [])
    gains = text[text.index("| row |") :]
    # Gains of 50% and 100%, and in a draw what lies between at equal chances: 51.25% to 98.75%, but for chance.
    assert line(gains, "ours")[1:] == [
        *("base", "+75.0% [+51.4%, +98.7%]", "1 of 1", "0 of 1", "0 of 1", "2", "2", "4", "-", "-", "-"),
    ]
    assert line(gains, "base")[1:] == ["-", "-", "-", "-", "-", "1", "2", "4", "0.500", "0.500", "0.250"]
    assert "Missing or to be known:\n\n- own: not at hand\n" in text
    assert "a\\|b" in text


def test_rows_beside_each_other() -> None:
    figures = made(pairs={"ours": ["base"], "later": ["base"]})
    text = page.section(figures, "results", [])
    beside = text[text.index("Rows beside each other") :]
    # Of two queries even the largest difference has p = 0.5 at best.
    ((*cells, p, lists),) = page_tables.pair_table(figures, pairs_of(figures))[1]
    assert cells == ["ours", "base", "+0.375", "-", "+0.375 [+0.257, +0.493]"]
    assert float(p) == pytest.approx(0.5, abs=0.02)
    assert lists == "2 / 0 / 0"
    assert line(beside, "ours")[:3] == ["ours", "base", "+0.375"]
    clear = [
        {**cell, "values": {"MRR": [0.9 if cell["row"] == "ours" else 0.1] * 20}, "seed": None, "run_means": []}
        for cell in made().results["cells"][1:3]
    ]
    clear[0]["dataset"] = "rec-movie"
    figures = made(cells=clear, pairs={"ours": ["base"]})
    ((*_, marked, _, _, p, lists),) = page_tables.pair_table(figures, pairs_of(figures))[1]
    assert (marked, p, lists) == ("+0.800*", "< 0.001", "20 / 0 / 0")
    assert "Rows beside each other" not in page.section(made(), "results", [])


def test_the_papers_figures_are_marked_as_quoted() -> None:
    text = page.section(made(quoted=True), "results", [])
    assert "Quoted from the paper" in text
    assert line(text, "quoted") == ["quoted", "rec-movie"]
    assert line(text, "IRanker-3B (RL)") == ["IRanker-3B (RL)", "0.347"]
    assert line(text, "BPR")[1] == "about 0.260"
    assert "Quoted" not in page.section(made(quoted=True, datasets=["own"]), "results", [])


def test_without_results_there_is_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert page.main([]) == 1
    assert "run experiments/run.py first" in capsys.readouterr().err


def trained(seed: int, **curve: list[float]) -> dict[str, Any]:
    told = {"name": "ours", "recipe": "r", "set": [], "steps": 2, "seconds": 60, "tokens": 8, "commit": "k"}
    return {**told, "seed": seed, "curve": curve}


@pytest.mark.parametrize(
    ("second", "label", "series", "cell"),
    [
        ({"chance": [0.5, 0.75]}, "reward above chance", [[-0.25, 0.25], [0.25, 0.0]], "0.750 (+0.000)"),
        ({}, "reward", [[0.25, 0.75], [0.75, 0.75]], "0.750"),
    ],
)
def test_rewards_are_shown_above_chance_where_all_seeds_tell_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    second: dict[str, list[float]],
    label: str,
    series: list[list[float]],
    cell: str,
) -> None:
    drawn: dict[str, Any] = {}

    def plot_curve(steps: list[int], of: dict[str, list[float]], path: Path, title: str, label: str) -> None:
        drawn.update(steps=steps, of=of, label=label, file=path.name, title=title)

    monkeypatch.setattr(page, "plot_curve", plot_curve)
    figures = made(
        trainings=[
            trained(0, step=[1, 2], reward=[0.25, 0.75], chance=[0.5, 0.5]),
            trained(1, step=[1, 2], reward=[0.75, 0.75], **second),
        ]
    )
    assert page.draw(figures, tmp_path) == ["x.png", "x-ours-reward.png"]
    assert (drawn["file"], drawn["title"], drawn["label"]) == ("x-ours-reward.png", "ours: reward by step", label)
    assert (drawn["steps"], drawn["of"]) == ([1, 2], {"seed 0": series[0], "seed 1": series[1]})
    columns, rows = page_tables.training_table(figures, "place", [])
    assert [row[columns.index("last reward (above chance)")] for row in rows] == ["0.750 (+0.250)", cell]


def test_a_training_without_a_reward_has_no_curve(tmp_path: Path) -> None:
    figures = made(trainings=[trained(0, step=[], reward=[])])
    assert page.draw(figures, tmp_path) == ["x.png"]
    assert page_tables.training_table(figures, "place", [])[1][0][7:9] == ["-", "-"]

"""What is kept of a ranking, and rows over several runs, worked out by hand."""

from __future__ import annotations

import json

import pytest

from factories import example
from r1ranker.errors import InputError
from r1ranker.evaluation import Outcome, row_of_outcomes
from r1ranker.types import Completion, ParsedAnswer, Prompt, Request, Trace, Turn

EXAMPLES = [example(3, id="a"), example(3, id="b")]  # c1 is relevant


def turn(status: str, cached: int) -> Turn:
    completion = Completion("x", prompt_tokens=100, completion_tokens=10, cached_tokens=cached)
    return Turn(("c1",), Request(Prompt("s", "u")), completion, ParsedAnswer(status))  # type: ignore[arg-type]


def test_an_outcome_is_a_trace_without_its_texts() -> None:
    turns = (turn("exact", 0), turn("failed", 60), turn("exact", 70))
    outcome = Outcome.of(Trace("a", ("c2", "c1"), turns, truncated=2, cut_short=True))
    assert outcome == Outcome("a", ("c2", "c1"), 3, 300, 30, 130, {"exact": 2, "failed": 1}, 2, True)
    assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
    assert Outcome.of(Trace("a", ("c1",))) == Outcome("a", ("c1",))
    older = {key: value for key, value in outcome.to_dict().items() if key != "cut_short"}
    assert Outcome.from_dict(older).cut_short is False


@pytest.mark.parametrize("data", [{}, {"example_id": "a"}, {"example_id": "a", "ranking": ["c1"], "odd": 1}, []])
def test_what_is_no_outcome(data: object) -> None:
    with pytest.raises(InputError, match="not a ranking's outcome"):
        Outcome.from_dict(data)  # type: ignore[arg-type]


def test_measures_are_means_over_the_runs_and_costs_are_sums() -> None:
    runs = [
        [
            Outcome("b", ("c2", "c1", "c3"), 2, 10, 1, 5, {"exact": 2}),
            Outcome("a", ("c1", "c2", "c3"), 2, 20, 2, 6, cut_short=True),
        ],
        [
            Outcome("a", ("c1", "c2", "c3"), 2, 30, 3, 7, {"failed": 1, "exact": 1}, 4, True),
            Outcome("b", ("c1", "c3", "c2")),
        ],
    ]
    row = row_of_outcomes("x", "data", EXAMPLES, runs, seconds=3.0, flops=7.0)
    assert row.per_query["MRR"] == [1.0, 0.75]  # in the order of the examples
    assert row.run_means == [0.75, 1.0]
    assert row.measures["MRR"] == 0.875
    assert row.measures["Hit@1"] == 0.75
    assert row.queries == 2
    assert (row.calls, row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (6, 60, 6, 18)
    assert row.parse == {"exact": 3, "repaired": 0, "defaulted": 0, "failed": 1}
    assert (row.truncated, row.seconds, row.flops, row.cut_short) == (4, 3.0, 7.0, 2)


def test_a_run_that_lacks_a_query_is_no_run() -> None:
    with pytest.raises(InputError, match="no ranking for example 'b'"):
        row_of_outcomes("x", "data", EXAMPLES, [[Outcome("a", ("c1", "c2", "c3"))]])

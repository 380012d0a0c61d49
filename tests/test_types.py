from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from factories import ExampleFactory
from r1ranker.errors import InputError
from r1ranker.types import (
    Candidate,
    Completion,
    ParsedAnswer,
    Prompt,
    RankingExample,
    Request,
    Trace,
    Turn,
    Usage,
)


def two(**fields: object) -> RankingExample:
    given = {"id": "q7", "scenario": "passage", "candidates": (Candidate("a", "A"), Candidate("b", "B")), **fields}
    return RankingExample(**given)  # type: ignore[arg-type]


def test_an_example_without_candidates_is_refused() -> None:
    with pytest.raises(InputError, match=r"example 'q7' has no candidates"):
        two(candidates=())


@pytest.mark.parametrize("scenario", ["passage", "routing"])
def test_a_history_where_none_is_read_is_refused(scenario: str) -> None:
    with pytest.raises(InputError, match=f"example 'q7': {scenario} is asked by a query alone: leave the history out"):
        two(scenario=scenario, query="q", history=("h",))
    assert two(scenario="recommendation", query="q", history=("h",)).history == ("h",)


@pytest.mark.parametrize("scenario", ["passage", "recommendation"])
def test_a_goal_is_for_routing_alone(scenario: str) -> None:
    with pytest.raises(InputError, match=f"example 'q7': a goal is for routing; {scenario} has none: leave it out"):
        two(scenario=scenario, query="q", goal="well")
    assert two(scenario="routing", query="q", goal="well").restrict(["a"]).goal == "well"


def test_an_id_that_stands_twice_is_named() -> None:
    with pytest.raises(InputError, match=r"example 'q7': the candidate id 'b' stands twice"):
        two(candidates=(Candidate("a", "A"), Candidate("b", "B"), Candidate("b", "C")))


@pytest.mark.parametrize("grade", [-1.0, -0.001, float("nan"), float("inf"), float("-inf")])
def test_an_unusable_grade_is_named(grade: float) -> None:
    with pytest.raises(InputError, match=rf"the grade of 'b' is {grade}"):
        two(relevance={"a": 1.0, "b": grade})


def test_a_grade_for_no_candidate_is_named() -> None:
    with pytest.raises(InputError, match="relevance names 'c', which is not a candidate"):
        two(relevance={"c": 1.0})


def test_grades_default_to_zero_and_zero_is_allowed() -> None:
    example = two(relevance={"a": 2, "b": 0})
    assert (example.grade("a"), example.grade("b"), two().grade("a")) == (2.0, 0.0, 0.0)


def test_restrict_keeps_the_order_asked_for_and_the_grades_of_what_is_left(make_example: ExampleFactory) -> None:
    example = make_example(4, positives={"c1": 2.0, "c3": 1.0})
    small = example.restrict(["c4", "c3"])
    assert small.ids == ("c4", "c3")
    assert dict(small.relevance) == {"c3": 1.0}
    assert (small.id, small.history, small.item_type) == (example.id, example.history, example.item_type)
    assert example.ids == ("c1", "c2", "c3", "c4")
    assert example.restrict(example.ids) == example
    with pytest.raises(InputError, match="no candidates"):
        example.restrict([])


def test_examples_are_frozen(make_example: ExampleFactory) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_example().id = "other"  # type: ignore[misc]


def turn(excluded: tuple[str, ...], prompt: int, completion: int, cached: int) -> Turn:
    counted = Completion("x", prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
    return Turn(("a", "b"), Request(Prompt("s", "u")), counted, ParsedAnswer("exact", ("a",)), excluded)


def test_a_trace_sums_its_turns_and_lists_what_they_excluded() -> None:
    trace = Trace("e", ("c", "a", "d", "b"), (turn(("b", "d"), 100, 7, 0), turn(("a",), 90, 5, 60)))
    assert trace.eliminated == ("b", "d", "a")
    assert [t.excluded for t in trace.turns] == ["b", "a"]
    assert trace.usage == Usage(calls=2, prompt_tokens=190, completion_tokens=12, cached_tokens=60)
    direct = Trace("e", ("a", "b"), (turn((), 100, 7, 0),))
    assert direct.eliminated == ()
    assert direct.turns[0].excluded is None
    assert direct.usage == Usage(1, 100, 7, 0)
    assert Trace("e", ("a",)).usage == Usage()


def test_usage_adds_up() -> None:
    total = Usage(1, 20, 3, 4, 0.5) + Usage(10, 200, 30, 40, 5.0)
    assert total == Usage(11, 220, 33, 44, 5.5)


def test_the_core_imports_no_torch() -> None:
    code = (
        "import sys, r1ranker, r1ranker.types, r1ranker.prompts, r1ranker.parsing, r1ranker.rankers, "
        "r1ranker.rewards, r1ranker.rollout, r1ranker.llm.base; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Rankings that ask several requests at once, and several rankings as one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from r1ranker.prompted import (
    Asked,
    OutOfBudget,
    Ranking,
    Told,
    advance,
    ask,
    ask_all,
    deal,
    in_turn,
    one_ahead,
    requests_of,
    side_by_side,
)
from r1ranker.types import Completion, Prompt, Request, Trace


def request(text: str, session: str = "s") -> Request:
    return Request(Prompt("", text), session=session)


def answer(asked: Asked) -> Told:
    """What was asked, in capitals."""
    told = [Completion(r.prompt.user.upper()) for r in requests_of(asked)]
    return tuple(told) if isinstance(asked, tuple) else told[0]


def asking(name: str, *steps: str | tuple[str, ...]) -> Ranking:
    """Asks one text, or a tuple of them, a step; its trace holds all that it was told. Ends where a budget says so."""
    told: list[str] = []
    try:
        for step in steps:
            if isinstance(step, str):
                told.append((yield from ask(request(step))).text)
            else:
                told += [c.text for c in (yield from ask_all([request(text) for text in step]))]
    except OutOfBudget as short:
        return Trace(name, (*told, *(c.text for c in short.completions)), cut_short=True)
    return Trace(name, tuple(told))


def run(ranking: Ranking) -> tuple[Trace, list[str | tuple[str, ...]]]:
    """Answer all steps; returns the trace, and what was asked."""
    step, asked = advance(ranking), list[str | tuple[str, ...]]()
    while not isinstance(step, Trace):
        texts = tuple(r.prompt.user for r in requests_of(step))
        asked.append(texts if isinstance(step, tuple) else texts[0])
        step = advance(ranking, answer(step))
    return step, asked


def together(rankings: Sequence[Ranking]) -> Ranking:
    """Side by side, as one ranking: its trace names all traces and what they were told."""
    traces = yield from side_by_side(rankings)
    return Trace("all", tuple(f"{t.example_id}:{''.join(t.ranking)}" for t in traces))


def test_completions_are_dealt_to_those_who_asked() -> None:
    one, two, three, four = (Completion(text) for text in "abcd")
    asked: list[Asked] = [request("a"), (request("b"), request("c")), (), (request("d"),)]
    assert deal(asked, [one, two, three, four]) == [one, (two, three), (), (four,)]
    for wrong in ([one, two, three], [one, two, three, four, one]):
        with pytest.raises(ValueError, match="zip"):
            deal(asked, wrong)


def test_a_ranking_is_told_in_the_form_in_which_it_asked() -> None:
    trace, asked = run(asking("x", "a", ("b", "c"), ("d",)))
    assert asked == ["a", ("b", "c"), ("d",)]
    assert trace.ranking == ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("steps", "asked"),
    [
        ((("a", "b", "c"), ("d", "e")), ["a", ("b", "c"), ("d", "e")]),
        ((("a", "b"), "c"), ["a", ("b",), "c"]),
        ((("a",), ("b", "c")), [("a",), ("b", "c")]),
        # What a first request alone has read is kept already.
        (("a", ("b", "c")), ["a", ("b", "c")]),
        ((), []),
    ],
)
def test_the_first_of_the_first_goes_ahead(steps: tuple[str | tuple[str, ...], ...], asked: list[object]) -> None:
    trace, found = run(one_ahead(asking("x", *steps)))
    assert found == asked
    assert trace == run(asking("x", *steps))[0]


def test_side_by_side_a_turn_of_each_at_a_time() -> None:
    trace, asked = run(together([asking("x", "a", "b"), asking("y"), asking("z", ("c", "d"), "e", "f")]))
    assert asked == [("a", "c", "d"), ("b", "e"), ("f",)]
    assert trace.ranking == ("x:AB", "y:", "z:CDEF")


def test_side_by_side_each_has_a_session_of_its_own() -> None:
    ranking = together([asking("x", "a"), asking("y"), asking("z", "b", "c")])
    first = advance(ranking)
    assert isinstance(first, tuple)
    assert [r.session for r in first] == ["s#0", "s#2"]
    second = advance(ranking, answer(first))
    assert isinstance(second, tuple)
    assert [r.session for r in second] == ["s#2"]


def test_none_at_all_side_by_side() -> None:
    assert run(together([])) == (Trace("all", ()), [])
    assert run(together([asking("x")]))[1] == []


def test_in_turn_those_after_the_one_that_a_budget_ends_are_left_out() -> None:
    rankings = [asking("x", "a"), asking("y", "b", "c"), asking("z", "d")]
    steps = in_turn(rankings)
    assert requests_of(next(steps))[0].session == "s"
    assert requests_of(steps.send(Completion("A")))[0].prompt.user == "b"
    steps.send(Completion("B"))
    with pytest.raises(StopIteration) as stop:
        steps.throw(OutOfBudget())
    assert stop.value.value == [Trace("x", ("A",)), Trace("y", ("B",), cut_short=True)]

"""An IRanker's first turn alone, in one order of the list or averaged over several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import ExampleFactory
from r1ranker.config import RankerConfig
from r1ranker.errors import ConfigError, InputError
from r1ranker.firststep import FirstStep
from r1ranker.llm.base import ScriptedLLM
from r1ranker.prompted import OutOfBudget
from r1ranker.rankers import IRanker, make_ranker
from r1ranker.rollout import rank_all
from r1ranker.schedules import Budget, Tournament, Windows
from r1ranker.sections import parse_section
from r1ranker.types import Completion, ParsedAnswer, RankingExample, Request, Sampling, Trace

if TYPE_CHECKING:
    from r1ranker.llm.transformers import TransformersLLM


def scored(ranker: FirstStep, example: RankingExample, logprobs: tuple[float, ...]) -> Trace:
    """Drive the one turn by hand."""
    ranking = ranker.rank(example)
    next(ranking)
    with pytest.raises(StopIteration) as stop:
        ranking.send(Completion("", choice_logprobs=logprobs))
    trace: Trace = stop.value.value
    return trace


@pytest.mark.parametrize(
    ("logprobs", "ranking"),
    [
        # The likeliest to be excluded is last.
        ((-2.0, -0.5, -1.0, -3.0), ("c4", "c1", "c3", "c2")),
        # Equal scores keep the listed order, wherever they stand.
        ((-1.0, -1.0, -1.0, -1.0), ("c1", "c2", "c3", "c4")),
        ((-1.0, -2.0, -1.0, -2.0), ("c2", "c4", "c1", "c3")),
        ((-0.5, -1.0, -1.0, -1.0), ("c2", "c3", "c4", "c1")),
    ],
)
def test_the_first_step_ranks_by_how_unlikely_exclusion_is(
    logprobs: tuple[float, ...], ranking: tuple[str, ...], make_example: ExampleFactory
) -> None:
    trace = scored(FirstStep(), make_example(4), logprobs)
    assert trace.ranking == ranking
    [turn] = trace.turns
    assert (turn.remaining, turn.excluded, trace.eliminated) == (("c1", "c2", "c3", "c4"), None, ())
    assert turn.parsed == ParsedAnswer("exact", ranking)


def test_what_a_candidate_scored_is_told(make_example: ExampleFactory) -> None:
    trace = scored(FirstStep(), make_example(3), (-2.0, -0.5, -1.0))
    assert trace.scores == {"c1": 2.0, "c2": 0.5, "c3": 1.0}
    assert list(trace.ranking) == sorted(trace.scores, key=lambda i: -trace.scores[i])
    sorted_list = replace(make_example(3), presorted=True)
    fused = scored(FirstStep(fusion=0.5), sorted_list, (-2.0, -0.5, -1.0))  # -log(place) - 0.5 * log-prob
    assert fused.scores == pytest.approx({"c1": 1.0, "c2": -math.log(2) + 0.25, "c3": -math.log(3) + 0.5})
    assert list(fused.ranking) == sorted(fused.scores, key=lambda i: -fused.scores[i])


def test_equal_scores_keep_the_listed_order_not_that_of_the_ids(make_example: ExampleFactory) -> None:
    example = make_example(4).restrict(["c4", "c1", "c3"])
    assert scored(FirstStep(), example, (-1.0, -1.0, -2.0)).ranking == ("c3", "c4", "c1")


@pytest.mark.parametrize("layout", ["rebuild", "append"])
def test_the_first_step_asks_what_an_iranker_asks_first(layout: str, make_example: ExampleFactory) -> None:
    example = make_example(3)
    llm = ScriptedLLM(["Heat (1995)"])
    [first] = rank_all(make_ranker("first_step", layout=layout), [example], llm)  # type: ignore[arg-type]
    whole = IRanker(thinking=False, layout=layout)  # type: ignore[arg-type]
    [request] = llm.requests
    assert request.prompt == whole.request(example, example.ids).prompt
    assert request.choices == ("Toy Story (1995)", "Heat (1995)", "Casablanca (1942)")
    assert (request.scored, request.session) == (True, "")
    # The script gives its choice log-prob 0 and the others -1.
    assert first.ranking == ("c1", "c3", "c2")
    assert first.usage.calls == 1


@pytest.mark.parametrize("logprobs", [(), (-1.0, -2.0)])
def test_the_first_step_needs_every_choices_log_prob(logprobs: tuple[float, ...], make_example: ExampleFactory) -> None:
    ranking = FirstStep().rank(make_example(3))
    next(ranking)
    with pytest.raises(InputError, match=r"example 'e1': the LLM tells \d of 3 .* take kind = 'iterative' or 'direct'"):
        ranking.send(Completion("Heat (1995)</answer>", choice_logprobs=logprobs))


def test_the_first_step_does_not_think() -> None:
    assert FirstStep().thinking is False
    with pytest.raises(ConfigError, match=r"'first_step' scores the candidates .*: set thinking = false"):
        FirstStep(thinking=True)


# Several orders


class Scores(ScriptedLLM):
    """Scores a label by its worth, less 0.3 for each candidate that is listed before it; keeps the batches' sizes."""

    def __init__(self, worth: dict[str, float]) -> None:
        super().__init__(lambda request: request.choices[0])
        self.worth = worth
        self.batches: list[int] = []

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.batches.append(len(requests))
        return [
            replace(
                completion,
                choice_logprobs=tuple(self.worth[label] - 0.3 * place for place, label in enumerate(request.choices)),
                prompt_tokens=10,
            )
            for request, completion in zip(requests, super().complete(requests, sampling), strict=True)
        ]


TITLES = ("Toy Story (1995)", "Heat (1995)", "Casablanca (1942)", "Alien (1979)")
# As listed: -1.0, -1.1 - 0.3, -1.2 - 0.6, -1.6 - 0.9.
WORTH = dict(zip(TITLES, (-1.0, -1.1, -1.2, -1.6), strict=True))


def test_a_list_and_its_reverse_take_out_what_the_place_is_worth(make_example: ExampleFactory) -> None:
    worth = WORTH | {TITLES[1]: -1.3}
    example = make_example(4)
    [once] = rank_all(FirstStep(), [example], Scores(worth))
    [twice] = rank_all(FirstStep(orders=2), [example], Scores(worth))
    assert once.ranking == ("c4", "c3", "c2", "c1")
    assert twice.ranking == ("c4", "c2", "c3", "c1")  # by worth: -1.6, -1.3, -1.2, -1.0
    assert [turn.remaining for turn in twice.turns] == [("c1", "c2", "c3", "c4"), ("c4", "c3", "c2", "c1")]
    # Each turn tells what its own order came to; backwards: -1.0 - 0.9, -1.3 - 0.6, -1.2 - 0.3, -1.6.
    assert twice.turns[0].parsed.ids == once.ranking
    assert [turn.excluded for turn in twice.turns] == [None, None]
    assert twice.eliminated == ()


def test_scores_are_averaged_over_orders_by_hand(make_example: ExampleFactory) -> None:
    ranking = FirstStep(orders=2).rank(make_example(3))
    asked = next(ranking)
    assert isinstance(asked, tuple)
    assert [request.choices for request in asked] == [TITLES[:3], TITLES[2::-1]]
    told = (Completion("", choice_logprobs=(-1.0, -2.0, -4.0)), Completion("", choice_logprobs=(-1.0, -4.0, -3.5)))
    with pytest.raises(StopIteration) as stop:
        ranking.send(told)
    # c1: -1.0 - 3.5, c2: -2.0 - 4.0, c3: -4.0 - 1.0
    assert stop.value.value.ranking == ("c2", "c3", "c1")


def test_every_order_is_a_call_and_the_first_of_all_goes_ahead(make_example: ExampleFactory) -> None:
    llm = Scores(WORTH)
    [trace] = rank_all(FirstStep(orders=5), [make_example(4)], llm)
    assert llm.batches == [1, 4]  # the others find the beginning kept
    assert {request.session for request in llm.requests} == {"e1"}
    assert (trace.usage.calls, trace.usage.prompt_tokens) == (5, 50)
    assert FirstStep(orders=5).calls(4) == 5
    assert FirstStep(orders=5).calls(1) == 0
    [alone] = rank_all(FirstStep(orders=5), [make_example(1)], llm)
    assert (alone.ranking, alone.turns) == (("c1",), ())


@given(st.integers(2, 6), st.integers(1, 7))
def test_orders_are_permutations_in_pairs_and_the_same_every_time(
    make_example: ExampleFactory, n: int, orders: int
) -> None:
    example = make_example(n)
    listings = FirstStep(orders=orders).listings(example)
    assert len(listings) == orders
    assert listings[0] == example
    assert all(sorted(listing.ids) == sorted(example.ids) and listing.id == example.id for listing in listings)
    for k in range(1, orders, 2):
        assert listings[k].ids == listings[k - 1].ids[::-1]
    assert listings == FirstStep(orders=orders).listings(example)
    assert FirstStep(orders=orders + 1).listings(example)[:orders] == listings  # more orders only add some


def test_other_ids_are_shuffled_otherwise(make_example: ExampleFactory) -> None:
    shuffled = {FirstStep(orders=3).listings(make_example(6, id=f"e{k}"))[2].ids for k in range(8)}
    assert len(shuffled) > 4


def test_a_budget_counts_the_orders_that_it_allows(make_example: ExampleFactory) -> None:
    [trace] = rank_all(Budget(FirstStep(orders=4), max_calls=2), [make_example(4)], Scores(WORTH))
    [twice] = rank_all(FirstStep(orders=2), [make_example(4)], Scores(WORTH))
    assert (trace.ranking, len(trace.turns), trace.cut_short) == (twice.ranking, 2, True)
    ranking = FirstStep(orders=2).rank(make_example(3))
    next(ranking)
    with pytest.raises(StopIteration) as stop:
        ranking.throw(OutOfBudget())
    assert (stop.value.value.ranking, stop.value.value.cut_short) == (("c1", "c2", "c3"), True)


@pytest.mark.parametrize(
    ("schedule", "calls"), [(Windows(FirstStep(orders=2), 3, 1), 4), (Tournament(FirstStep(orders=2), 2), 6)]
)
def test_windows_and_groups_are_shown_in_several_orders_too(
    schedule: Windows | Tournament, calls: int, make_example: ExampleFactory
) -> None:
    [trace] = rank_all(schedule, [make_example(4)], Scores(WORTH))
    assert sorted(trace.ranking) == ["c1", "c2", "c3", "c4"]
    assert trace.usage.calls == schedule.calls(4) == calls


def test_a_list_in_the_order_of_a_first_stage_is_not_shuffled(make_example: ExampleFactory) -> None:
    example = replace(make_example(3), presorted=True)
    [trace] = rank_all(FirstStep(), [example], Scores(WORTH))
    assert len(trace.turns) == 1
    with pytest.raises(InputError, match=r"example 'e1' stands in the order of a first stage.*: set orders = 1"):
        rank_all(FirstStep(orders=2), [example], Scores(WORTH))


# Beside a first stage


@pytest.mark.parametrize(
    ("fusion", "presorted", "ranking"),
    [
        # -log(place) - fusion * log-prob: 0 + 1, -0.69 + 0.5, -1.10 + 3
        (1.0, True, ("c3", "c1", "c2")),
        # 0 + 0.4, -0.69 + 0.2, -1.10 + 1.2
        (0.4, True, ("c1", "c3", "c2")),
        # 0 + 0.1, -0.69 + 0.05, -1.10 + 0.3
        (0.1, True, ("c1", "c2", "c3")),
        (0.1, False, ("c3", "c1", "c2")),  # by scores alone
        (0.0, True, ("c3", "c1", "c2")),
    ],
)
def test_places_and_scores_are_fused_by_hand(
    fusion: float, presorted: bool, ranking: tuple[str, ...], make_example: ExampleFactory
) -> None:
    example = replace(make_example(3), presorted=presorted)
    trace = scored(FirstStep(fusion=fusion), example, (-1.0, -0.5, -3.0))
    assert trace.ranking == ranking
    assert trace.turns[0].parsed.ids == ("c3", "c1", "c2")  # what the model alone says


def test_fused_lists_are_asked_as_if_their_order_meant_nothing(make_example: ExampleFactory) -> None:
    example = make_example(4)
    told = FirstStep().request(replace(example, presorted=True)).prompt
    asked = next(FirstStep(orders=2, fusion=0.5).rank(replace(example, presorted=True)))
    assert isinstance(asked, tuple)
    assert asked[0].prompt == FirstStep().request(example).prompt != told
    assert [request.choices for request in asked] == [TITLES, TITLES[::-1]]


def test_fused_scores_are_means_over_the_orders_that_a_budget_allows(make_example: ExampleFactory) -> None:
    example = replace(make_example(4), presorted=True)
    # A list and its reverse: means are the worth less 0.45. c4 is 0.6 better, and log(4) behind: 1.386 / 0.6 = 2.31.
    for fusion, first in ((2.3, "c1"), (2.32, "c4")):
        [trace] = rank_all(FirstStep(orders=2, fusion=fusion), [example], Scores(WORTH))
        assert trace.ranking[0] == first
    # As it stands alone c4 has 0.9 more for its place: 1.386 / 1.5 = 0.924.
    for fusion, first in ((0.92, "c1"), (0.93, "c4")):
        [trace] = rank_all(Budget(FirstStep(orders=2, fusion=fusion), max_calls=1), [example], Scores(WORTH))
        assert (trace.ranking[0], trace.cut_short) == (first, True)
    [none] = rank_all(Budget(FirstStep(orders=2, fusion=9.0), max_tokens=1), [example], Scores(WORTH))
    assert (none.ranking, none.turns, none.cut_short) == (("c1", "c2", "c3", "c4"), (), True)


def test_fusion_is_a_setting_of_the_first_step_on_whole_lists() -> None:
    given = {"kind": "first_step", "fusion": 0.3}
    assert parse_section(RankerConfig, given, "test").build(None) == FirstStep(fusion=0.3)
    for wrong, said in (
        ({"fusion": 0.3}, "fusion is for kind = 'first_step', not 'iterative'"),
        ({**given, "window": 4}, "places in the whole list: leave out window and tournament"),
        ({**given, "tournament": 4}, "places in the whole list: leave out window and tournament"),
        ({"kind": "first_step", "fusion": -1}, "fusion"),
        ({"kind": "first_step", "fusion": float("inf")}, "fusion"),
    ):
        with pytest.raises(ConfigError) as error:
            parse_section(RankerConfig, wrong, "test")
        assert said in str(error.value)
    with pytest.raises(ConfigError, match=r"fusion is -0\.5"):
        FirstStep(fusion=-0.5)


def test_orders_are_a_setting_of_the_first_step_alone() -> None:
    assert parse_section(RankerConfig, {"kind": "first_step", "orders": 4}, "test").build(None) == FirstStep(orders=4)
    with pytest.raises(ConfigError, match=r"orders are for kind = 'first_step', not 'iterative'"):
        parse_section(RankerConfig, {"orders": 2}, "test")
    with pytest.raises(ConfigError, match="orders"):
        parse_section(RankerConfig, {"kind": "first_step", "orders": 0}, "test")
    with pytest.raises(ConfigError, match="orders is 0"):
        FirstStep(orders=0)


def test_a_model_scores_each_order_as_if_it_were_asked_alone(
    tiny_llm: TransformersLLM, make_example: ExampleFactory
) -> None:
    example = make_example(4)
    ranker = FirstStep(orders=3, answer_form="id")
    [trace] = rank_all(ranker, [example], tiny_llm)
    assert len(trace.turns) == 3
    for turn, listing in zip(trace.turns, ranker.listings(example), strict=True):
        [alone] = rank_all(FirstStep(answer_form="id"), [listing], tiny_llm)
        expected = alone.turns[0].completion.choice_logprobs
        assert turn.completion.choice_logprobs == pytest.approx(expected, abs=1e-4)
    assert trace.usage.cached_tokens > 0  # the orders share their beginning

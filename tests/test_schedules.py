from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.config import RankerConfig
from r1ranker.errors import ConfigError, InputError
from r1ranker.llm.base import ScriptedLLM
from r1ranker.pointwise import Pointwise
from r1ranker.prompted import INSTRUCTIONS, part_of
from r1ranker.rankers import AnyRanker, DRanker, FirstStep, IRanker
from r1ranker.rollout import rank_all
from r1ranker.schedules import Budget, ScheduledRanker, Tournament, Windows
from r1ranker.types import Candidate, Completion, RankingExample, Request, Sampling, Trace

if TYPE_CHECKING:
    from r1ranker.llm.transformers import TransformersLLM

QUICK = IRanker(thinking=False)


def films(n: int) -> RankingExample:
    """c1, c2, …: film 1, film 2, …"""
    return RankingExample("e1", "recommendation", tuple(Candidate(f"c{k}", f"film {k}") for k in range(1, n + 1)))


def ids(text: str) -> tuple[str, ...]:
    """ "3 1 2" -> c3, c1, c2."""
    return tuple(f"c{k}" for k in text.split())


class Judge:
    """Scores a label always alike: the later a film stands in `order` (best first), the likelier it is excluded.

    Tokens are words; `counts` says whether it tells them.
    """

    name, parameters, context_tokens = "judge", None, None

    def __init__(self, order: Sequence[int], *, counts: bool = True) -> None:
        self.place = {f"film {k}": place for place, k in enumerate(order)}
        self.counts = counts
        self.requests: list[Request] = []
        self.batches: list[list[str]] = []

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:  # noqa: ARG002
        self.requests += requests
        self.batches.append([request.session for request in requests])
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Completion:
        scores = tuple(float(self.place[label]) for label in request.choices)
        words = self.count_tokens(f"{request.prompt.system} {request.prompt.user}") if self.counts else 0
        text = request.choices[scores.index(max(scores))] + request.stop
        scored = 2 * len(scores) if self.counts else 0
        return Completion(text, choice_logprobs=scores, prompt_tokens=words, completion_tokens=scored)

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def judged(ranker: ScheduledRanker, order: str, **options: Any) -> tuple[Trace, Judge]:
    """A ranking of as many films as the order has."""
    llm = Judge([int(k) for k in order.split()], **options)
    [trace] = rank_all(ranker, [films(len(llm.place))], llm)
    return trace, llm


def listed(request: Request) -> list[str]:
    return request.prompt.user.split("Candidates:\n")[1].split("\n\n")[0].split("\n")


# Windows


def test_a_window_slides_from_the_back_to_the_front_and_carries_its_best() -> None:
    trace, llm = judged(Windows(QUICK, 4, 2), "7 6 5 4 3 2 1")
    assert [t.remaining for t in trace.turns] == [
        ids("4 5 6 7"),
        ids("5 6 7"),  # 4 and 5 are settled; the best, 7 and then 6, are carried to the next four
        ids("2 3 7 6"),
        ids("3 7 6"),
        ids("1 7 6"),  # no more than a window: ranked whole
        ids("7 6"),
    ]
    assert trace.eliminated == ids("4 5 2 3 1 6")
    assert trace.ranking == ids("7 6 1 3 2 5 4")
    assert (trace.example_id, trace.cut_short) == ("e1", False)
    assert listed(llm.requests[2]) == ["film 2", "film 3", "film 7", "film 6"]


def test_a_list_no_longer_than_the_window_is_ranked_as_without() -> None:
    for n in (1, 3, 4):
        order = " ".join(str(k) for k in range(n, 0, -1))
        assert judged(Windows(QUICK, 4, 2), order)[0] == judged(QUICK, order)[0]
        assert judged(Tournament(QUICK, 4), order)[0] == judged(QUICK, order)[0]


def test_one_pass_of_a_consistent_judge_gets_the_top_right() -> None:
    # Of a window of 5, 3 are carried: the first three places are right wherever the best stand.
    trace, _ = judged(Windows(QUICK, 5, 2), "9 1 5 2 3 4 6 7 8")
    assert trace.ranking[:3] == ids("9 1 5")


def test_windows_over_direct_rankings_are_rankgpt() -> None:
    answers = iter(["film 5\nfilm 4\nfilm 3", "film 5\nfilm 2\nfilm 4", "film 1\nfilm 5\nfilm 2"])
    llm = ScriptedLLM(lambda _: next(answers) + "</answer>")
    [trace] = rank_all(Windows(DRanker(thinking=False), 3, 1), [films(5)], llm)
    assert [listed(r) for r in llm.requests] == [
        ["film 3", "film 4", "film 5"],
        ["film 2", "film 5", "film 4"],
        ["film 1", "film 5", "film 2"],
    ]
    assert trace.ranking == ids("1 5 2 4 3")
    assert trace.eliminated == ()


# Tournaments


def test_a_round_deals_out_in_turn_and_the_better_half_goes_on() -> None:
    trace, _ = judged(Tournament(QUICK, 3), "5 4 3 2 1")
    assert [t.remaining for t in trace.turns] == [ids("1 3 5"), ids("3 5"), ids("2 4"), ids("4 5")]
    # Out in the first round: 3 and 2 in the second place of their groups, then 1 in the third.
    assert trace.ranking == ids("5 4 3 2 1")
    assert trace.eliminated == ids("1 3 2 4")


def test_who_loses_later_ranks_higher() -> None:
    # 5 is the second best, and meets the best at once.
    trace, _ = judged(Tournament(QUICK, 2), "1 5 2 6 3 7 4")
    assert [t.remaining for t in trace.turns] == [ids(pair) for pair in ("1 5", "2 6", "3 7", "1 3", "2 4", "1 2")]
    assert trace.ranking == ids("1 2 3 4 5 6 7")


def test_the_place_in_a_group_counts_also_where_groups_differ_in_size() -> None:
    # Seven in groups of four: 1 3 5 7 (two go on) and 2 4 6 (one goes on).
    trace, _ = judged(Tournament(QUICK, 4), "1 2 3 4 5 6 7")
    # The second place of the smaller group, 4, stands before the third places 5 and 6, and these before the fourth, 7.
    assert trace.ranking == ids("1 2 3 4 5 6 7")
    backwards, _ = judged(Tournament(QUICK, 4), "2 6 4 7 5 3 1")
    # 7 5 | 3 1 and 2 | 6 4: second places 6; third places 3 and 4; fourth place 1.
    assert backwards.ranking == ids("2 7 5 6 3 4 1")


def test_a_share_of_a_group_goes_on() -> None:
    ranker = Tournament(QUICK, 10, 0.3)
    trace, _ = judged(ranker, " ".join(str(k) for k in range(20, 0, -1)))
    assert len(trace.turns) == ranker.calls(20) == 2 * 7 + 5
    assert trace.ranking[:6] == ids("20 19 18 17 16 15")


def test_a_tournament_of_first_steps_is_a_call_a_group() -> None:
    trace, _ = judged(Tournament(FirstStep(), 3), "5 4 3 2 1")
    assert [t.remaining for t in trace.turns] == [ids("1 3 5"), ids("2 4"), ids("4 5")]
    assert (trace.ranking, trace.eliminated) == (ids("5 4 3 2 1"), ())


def test_the_groups_of_a_round_are_asked_side_by_side() -> None:
    trace, llm = judged(Tournament(QUICK, 3), "7 6 5 4 3 2 1")
    # 1 4 7 (one goes on), 2 5 and 3 6, a turn each; the very first goes ahead. Then 7 5 6, in the first session.
    assert llm.batches == [["e1#0"], ["e1#1", "e1#2"], ["e1#0"], ["e1#0"], ["e1#0"]]
    assert [t.remaining for t in trace.turns] == [ids(g) for g in ("1 4 7", "4 7", "2 5", "3 6", "5 6 7", "6 7")]
    assert trace.ranking == ids("7 6 5 4 2 3 1")  # second places of the groups 4, 2, 3, then the third, 1
    alone, llm = judged(Budget(Tournament(QUICK, 3), max_calls=9), "7 6 5 4 3 2 1")
    assert alone == trace
    assert llm.batches == [["e1"]] * 6


@given(
    st.permutations(range(1, 14)),
    st.integers(2, 6),
    st.floats(0.1, 0.9),
    st.sampled_from([QUICK, IRanker(thinking=False, exclude_per_turn=0.5), FirstStep()]),
)
def test_side_by_side_or_in_turn_is_the_same_ranking(
    order: list[int], size: int, advance: float, inner: AnyRanker
) -> None:
    ranker = Tournament(inner, size, advance)
    [trace] = rank_all(ranker, [films(13)], Judge(order))
    [alone] = rank_all(Budget(ranker, max_calls=10**6), [films(13)], Judge(order))
    assert trace == alone


# Budgets


def test_a_budget_of_calls_ends_the_elimination() -> None:
    trace, llm = judged(Budget(QUICK, max_calls=2), "4 1 5 3 2")
    assert (len(llm.requests), trace.cut_short, trace.eliminated) == (2, True, ids("2 3"))
    assert trace.ranking == ids("4 1 5 3 2")  # what is left, in the order of the last scores


def test_a_budget_that_is_enough_changes_nothing() -> None:
    for ranker in (QUICK, Windows(QUICK, 3, 1), Tournament(QUICK, 3), FirstStep()):
        whole, _ = judged(ranker, "4 1 5 3 2")
        assert judged(Budget(ranker, len(whole.turns), 10**6), "4 1 5 3 2")[0] == whole
        assert not whole.cut_short


def test_without_scores_what_is_left_stays_as_listed() -> None:
    llm = ScriptedLLM(["Hm.</think><answer>film 2</answer>"])
    [trace] = rank_all(Budget(IRanker(), max_calls=1), [films(4)], llm)
    assert (trace.ranking, trace.cut_short) == (ids("1 3 4 2"), True)


@pytest.mark.parametrize("ranker", [IRanker(), DRanker(), FirstStep()])
def test_a_budget_too_small_for_one_call_leaves_the_list_as_it_is(ranker: AnyRanker) -> None:
    for schedule in (ranker, Windows(ranker, 2, 1), Tournament(ranker, 2)):
        [trace] = rank_all(Budget(schedule, max_tokens=1), [films(5)], ScriptedLLM([]))
        assert trace == Trace("e1", ids("1 2 3 4 5"), cut_short=True)


def test_before_the_window_in_which_a_budget_ends_the_listed_order_stays() -> None:
    trace, _ = judged(Budget(Windows(QUICK, 4, 2), max_calls=3), "7 6 5 4 3 2 1")
    # 4 and 5 are settled; in the window 2 3 7 6 only 2 is out, and its scores put 7 6 3 in order. 1 was never shown.
    assert (trace.ranking, trace.cut_short) == (ids("1 7 6 3 2 5 4"), True)


def test_what_is_not_out_when_a_budget_ends_a_tournament_stays_as_listed() -> None:
    trace, _ = judged(Budget(Tournament(QUICK, 3), max_calls=1), "5 4 3 2 1")
    assert (trace.ranking, trace.cut_short) == (ids("2 3 4 5 1"), True)
    trace, _ = judged(Budget(Tournament(QUICK, 3), max_calls=2), "5 4 3 2 1")
    assert (trace.ranking, trace.cut_short) == (ids("2 4 5 3 1"), True)
    trace, _ = judged(Budget(Tournament(QUICK, 3), max_calls=3), "5 4 3 2 1")
    assert (trace.ranking, trace.cut_short) == (ids("4 5 3 2 1"), True)  # before the last group
    trace, _ = judged(Budget(Tournament(QUICK, 4), max_calls=3), "7 6 5 4 3 2 1")
    # Of 1 3 5 7 the third and the fourth place are out, 3 and 1; of 2 4 6 the third, 2.
    assert (trace.ranking, trace.cut_short) == (ids("4 5 6 7 3 2 1"), True)


def most(request: Request) -> int:
    """The bound by hand, where nothing is known: bytes (all are ASCII), and 64 tokens for a label."""
    prompt = request.prompt
    return INSTRUCTIONS + len(prompt.system) + len(prompt.user) + len(prompt.prefill) + 3 + 64


def test_a_budget_of_tokens_is_kept_by_an_upper_bound() -> None:
    whole, llm = judged(QUICK, "1 2 3 4")
    first = most(llm.requests[0])
    spent = [turn.completion.prompt_tokens + turn.completion.completion_tokens for turn in whole.turns]
    # The later prompts have no line that is new, so that they take no more than the one before, and a label's 64.
    second = spent[0] + whole.turns[0].completion.prompt_tokens + 64
    third = spent[0] + spent[1] + whole.turns[1].completion.prompt_tokens + 64
    assert second < third < first
    for budget, turns in ((first - 1, 0), (first, 3)):
        trace, _ = judged(Budget(QUICK, max_tokens=budget), "1 2 3 4")
        assert (len(trace.turns), trace.cut_short) == (turns, turns < 3)


def test_what_is_known_of_the_last_prompt_bounds_the_next() -> None:
    class Wordy(Judge):
        """Says that each prompt takes 1,000 tokens."""

        def _one(self, request: Request) -> Completion:
            return replace(super()._one(request), prompt_tokens=1000, completion_tokens=8)

    for layout in ("rebuild", "append"):
        ranker = IRanker(thinking=False, layout=layout)  # type: ignore[arg-type]
        before, after = (r.prompt.user for r in judged(ranker, "1 2 3 4")[1].requests[:2])
        grown = max(0, len(after) - len(before))  # with append by whole lines: the note
        second = 1008 + 1000 + 64 + grown
        for budget, turns in ((second - 1, 1), (second, 2)):
            [trace] = rank_all(Budget(ranker, max_tokens=budget), [films(4)], Wordy([1, 2, 3, 4]))
            assert (len(trace.turns), trace.cut_short) == (turns, True), layout


def test_a_backend_that_counts_no_tokens_is_charged_the_bound() -> None:
    _, llm = judged(QUICK, "1 2 3 4")
    bounds = [most(request) for request in llm.requests]
    for budget, turns in ((bounds[0] + bounds[1] - 1, 1), (bounds[0] + bounds[1], 2), (sum(bounds), 3)):
        trace, _ = judged(Budget(QUICK, max_tokens=budget), "1 2 3 4", counts=False)
        assert (len(trace.turns), trace.cut_short) == (turns, turns < 3)


def test_free_answers_are_charged_what_they_may_take() -> None:
    llm = ScriptedLLM(["Hm.</think><answer>film 2</answer>"])
    [request] = [next(IRanker().rank(films(3)))]
    lines = f"{request.prompt.system}\n{request.prompt.user}\n<think>".split("\n")
    bound = INSTRUCTIONS + sum(len(line) + 1 for line in lines) + 500
    [trace] = rank_all(Budget(IRanker(), max_tokens=bound - 1, answer_tokens=500), [films(3)], llm)
    assert (len(trace.turns), trace.cut_short) == (0, True)
    [trace] = rank_all(Budget(IRanker(), max_calls=1, max_tokens=bound, answer_tokens=500), [films(3)], llm)
    assert len(trace.turns) == 1


@pytest.mark.parametrize(
    ("ranker", "reply", "longest"),
    [
        (IRanker(thinking=False, constrained=True), "film 2</answer>", "film 1</answer>"),
        (
            DRanker(thinking=False, constrained=True),
            "film 2\nfilm 1\nfilm 3\n</answer>",
            "film 1\nfilm 2\nfilm 3\n</answer>",
        ),
    ],
)
def test_a_constrained_answer_is_charged_its_longest(ranker: IRanker | DRanker, reply: str, longest: str) -> None:
    request = next(ranker.rank(films(3)))
    lines = f"{request.prompt.system}\n{request.prompt.user}\n<answer>".split("\n")
    bound = INSTRUCTIONS + sum(len(line) + 1 for line in lines) + len(longest)
    for budget, turns in ((bound - 1, 0), (bound, 1)):
        [trace] = rank_all(Budget(ranker, max_calls=1, max_tokens=budget), [films(3)], ScriptedLLM([reply]))
        # One call is a whole list, and one exclusion of two.
        assert (len(trace.turns), trace.cut_short) == (turns, turns == 0 or isinstance(ranker, IRanker))


@pytest.mark.parametrize(
    "ranker",
    [
        QUICK,
        IRanker(thinking=False, exclude_per_turn=0.5),
        IRanker(thinking=False, constrained=True),
        Windows(QUICK, 4, 2),
    ],
)
@pytest.mark.parametrize("layout", ["rebuild", "append"])
def test_a_real_tokenizer_stays_within_the_budget(ranker: Any, layout: str, tiny_llm: TransformersLLM) -> None:
    inner = replace(ranker.inner if isinstance(ranker, Windows) else ranker, layout=layout)
    ranker = replace(ranker, inner=inner) if isinstance(ranker, Windows) else inner
    [whole] = rank_all(ranker, [films(8)], tiny_llm)
    taken = [t.completion.prompt_tokens + t.completion.completion_tokens for t in whole.turns]
    for share in (0.4, 0.6, 0.8, 1.2):
        budget = int(share * sum(taken))
        [trace] = rank_all(Budget(ranker, max_tokens=budget), [films(8)], tiny_llm)
        spent = trace.usage.prompt_tokens + trace.usage.completion_tokens
        assert spent <= budget
        assert trace.cut_short is (len(trace.turns) < len(whole.turns))


def test_what_a_budget_leaves_of_the_calls() -> None:
    assert [Budget(QUICK, max_calls=3).calls(n) for n in (1, 3, 4, 9)] == [0, 2, 3, 3]
    assert Budget(QUICK, max_tokens=100).calls(9) == 8


def test_a_part_is_rounded_down_and_never_all() -> None:
    assert [part_of(0.5, n) for n in (1, 2, 3, 4, 5)] == [1, 1, 1, 2, 2]
    assert (part_of(0.29, 100), part_of(0.01, 7), part_of(0.9999999999, 5)) == (29, 1, 4)


# One driver, one session, texts that fit


@pytest.mark.parametrize("inner", [QUICK, FirstStep(), DRanker(thinking=False)])
@pytest.mark.parametrize("make", [lambda r: Windows(r, 4, 2), lambda r: Tournament(r, 4)])
def test_kept_prefixes_change_nothing_and_save_the_common_beginning(
    make: Callable[[AnyRanker], ScheduledRanker], inner: AnyRanker, tiny_llm: TransformersLLM
) -> None:
    example, sampling = replace(films(9), history=("Rocky (1976)", "Big (1988)")), Sampling(max_tokens=8)
    [kept] = rank_all(make(inner), [example], tiny_llm, sampling)
    tiny_llm.prefixes.clear()
    tiny_llm.prefixes.max_tokens = 0
    [fresh] = rank_all(make(inner), [example], tiny_llm, sampling)
    assert kept.ranking == fresh.ranking
    assert fresh.usage.cached_tokens == 0
    # All of a ranking's turns but the first find the system's message, the history and the question computed.
    assert all(t.completion.cached_tokens > 50 for t in kept.turns[1:])
    assert {t.request.session for t in kept.turns} == {"e1"}


@pytest.mark.parametrize("schedule", [Windows(QUICK, 5, 2), Tournament(QUICK, 5), Budget(Windows(QUICK, 5, 2), 10**6)])
def test_only_what_a_prompt_shows_must_fit(schedule: ScheduledRanker) -> None:
    llm = ScriptedLLM(lambda r: r.choices[0], context_tokens=INSTRUCTIONS + 64 + 60)
    with pytest.raises(InputError, match="its 200 candidates do not fit"):
        rank_all(QUICK, [films(200)], llm)
    [trace] = rank_all(schedule, [films(200)], llm)
    assert sorted(trace.ranking) == sorted(films(200).ids)
    assert trace.truncated == 0
    assert max(len(r.choices) for r in llm.requests) == 5


def test_several_lists_at_once_are_ranked_as_one_at_a_time() -> None:
    examples = [replace(films(n), id=f"e{n}") for n in (9, 1, 4, 12)]
    for ranker in (Windows(QUICK, 4, 2), Tournament(QUICK, 4), Budget(QUICK, 3)):
        assert rank_all(ranker, examples, Judge(range(12, 0, -1))) == rank_all(
            ranker, examples, Judge(range(12, 0, -1)), concurrency=1
        )


# Settings


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Windows(QUICK, 4, 4), r"stride 4 in a window of 4: give at least 1"),
        (lambda: Windows(QUICK, 4, 0), r"stride 0 in a window of 4"),
        (lambda: Tournament(QUICK, 1), r"groups of 1: give 2 or more"),
        (lambda: Tournament(QUICK, 4, 1.0), r"advance is 1\.0: give a share between 0 and 1"),
        (lambda: Tournament(QUICK, 4, 0.0), r"advance is 0\.0"),
    ],
)
def test_what_cannot_be_a_schedule(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize(
    ("settings", "ranker"),
    [
        ({"exclude_per_turn": 0.5, "stop_at": 5}, IRanker(thinking=False, exclude_per_turn=0.5, stop_at=5)),
        ({"window": 7}, Windows(QUICK, 7, 3)),
        ({"window": 20, "stride": 5, "kind": "direct"}, Windows(DRanker(thinking=False), 20, 5)),
        ({"tournament": 6}, Tournament(QUICK, 6, 0.5)),
        ({"tournament": 6, "advance": 0.2, "kind": "first_step"}, Tournament(FirstStep(), 6, 0.2)),
        ({"budget_calls": 4}, Budget(QUICK, 4, None, 1024)),
        ({"document_tokens": 64, "window": 7}, Windows(replace(QUICK, document_tokens=64), 7, 3)),
        ({"document_tokens": 64, "kind": "pointwise"}, Pointwise(document_tokens=64)),
        ({"window": 4, "budget_tokens": 900, "max_tokens": 50}, Budget(Windows(QUICK, 4, 2), None, 900, 50)),
    ],
)
def test_a_schedule_is_built_from_settings(settings: dict[str, Any], ranker: ScheduledRanker) -> None:
    assert RankerConfig(**{"thinking": False, **settings}).build(None) == ranker


# Whatever the settings and the answers


@st.composite
def schedules(draw: st.DrawFn, thinking: bool) -> ScheduledRanker:
    inner: AnyRanker = draw(
        st.one_of(
            st.builds(
                lambda m, k: IRanker(thinking=thinking, exclude_per_turn=m, stop_at=k),
                st.integers(1, 4) | st.floats(0.05, 0.95),
                st.integers(1, 6),
            ),
            st.just(DRanker(thinking=thinking)),
            *([] if thinking else [st.just(FirstStep())]),
        )
    )
    size = draw(st.integers(2, 6))
    ranker = draw(
        st.sampled_from([inner, Windows(inner, size, draw(st.integers(1, size - 1)))])
        | st.builds(lambda share: Tournament(inner, size, share), st.floats(0.01, 0.99))
    )
    if draw(st.booleans()):
        calls, tokens = (draw(st.none() | st.integers(1, most)) for most in (12, 3000))
        return Budget(ranker, calls, tokens, answer_tokens=40)
    return ranker


def check(ranker: ScheduledRanker, trace: Trace, n: int) -> None:
    """What holds of every trace."""
    assert sorted(trace.ranking) == sorted(films(n).ids)
    assert len(set(trace.eliminated)) == len(trace.eliminated)
    for turn in trace.turns:
        assert set(turn.excluded_ids) < set(turn.remaining)
    usage = trace.usage
    if isinstance(ranker, Budget):
        assert ranker.max_calls is None or usage.calls <= ranker.max_calls
        assert ranker.max_tokens is None or usage.prompt_tokens + usage.completion_tokens <= ranker.max_tokens
    else:
        assert not trace.cut_short


@given(schedules(thinking=False), st.permutations(range(1, 14)), st.integers(1, 13))
def test_a_scored_ranking_is_a_permutation_within_its_budget(ranker: ScheduledRanker, order: list[int], n: int) -> None:
    class Both(Judge):
        """Writes, where it is asked freely, some of the films."""

        def _one(self, request: Request) -> Completion:
            if request.choices:
                return super()._one(request)
            text = "\n".join(sorted(listed(request), key=self.place.__getitem__)[:-1])
            words = self.count_tokens(f"{request.prompt.system} {request.prompt.user}")
            return Completion(text, prompt_tokens=words, completion_tokens=self.count_tokens(text))

    llm = Both(order)
    [trace] = rank_all(ranker, [films(n)], llm)
    check(ranker, trace, n)
    if not trace.cut_short:
        assert len(trace.turns) == (ranker.inner if isinstance(ranker, Budget) else ranker).calls(n)
        best = next(f"c{k}" for k in order if k <= n)
        writes = any(not r.choices for r in llm.requests)
        assert trace.ranking[0] == best or writes
    inner = ranker.inner if isinstance(ranker, Budget) else ranker
    if isinstance(inner, IRanker) and not trace.cut_short:
        assert trace.ranking[1:] == trace.eliminated[::-1]
    if isinstance(inner, Windows) and isinstance(inner.inner, IRanker) and not trace.cut_short:
        assert trace.ranking[1:] == trace.eliminated[::-1]


@given(
    schedules(thinking=True),
    st.integers(1, 9),
    st.lists(st.sampled_from(["film 1", "film 2", "film 3", "film 9", "\n", "</think>", "<answer>", "?"]), max_size=9),
)
def test_a_written_ranking_is_a_permutation_within_its_budget(
    ranker: ScheduledRanker, n: int, words: list[str]
) -> None:
    def script(request: Request) -> str:
        turn = zlib.crc32(request.prompt.user.encode())
        return "".join(words[turn % 3 :])[:150] + "</answer>"

    [trace] = rank_all(ranker, [films(n)], ScriptedLLM(script), Sampling(max_tokens=40))
    check(ranker, trace, n)

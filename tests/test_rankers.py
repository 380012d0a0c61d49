from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import ExampleFactory
from r1ranker.answers import ANSWER_FORMS, AnswerForm
from r1ranker.errors import ConfigError, InputError
from r1ranker.llm.base import ScriptedLLM
from r1ranker.prompted import INSTRUCTIONS, LABEL_TOKENS, Ranker
from r1ranker.rankers import DRanker, FirstStep, IRanker, make_ranker
from r1ranker.rollout import rank_all
from r1ranker.types import Candidate, Completion, ParsedAnswer, RankingExample, Request, Sampling, Scenario, Trace


def run(ranker: Ranker, example: RankingExample, script: list[str]) -> tuple[Trace, ScriptedLLM]:
    llm = ScriptedLLM(script)
    [trace] = rank_all(ranker, [example], llm)
    assert len(llm.requests) == len(script)
    return trace, llm


def say(answer: str) -> str:
    """What follows the prefill `<think>`."""
    return f"Hm.</think><answer>{answer}</answer>"


def test_the_ranking_is_the_reverse_order_of_exclusion(make_example: ExampleFactory) -> None:
    example = make_example(4)
    script = [say("Heat (1995)"), say("Alien (1979)"), say("Toy Story (1995)")]
    trace, llm = run(IRanker(), example, script)
    assert trace.ranking == ("c3", "c1", "c4", "c2")
    assert trace.eliminated == ("c2", "c4", "c1")
    assert [t.remaining for t in trace.turns] == [("c1", "c2", "c3", "c4"), ("c1", "c3", "c4"), ("c1", "c3")]
    assert [t.parsed.status for t in trace.turns] == ["exact"] * 3
    assert [t.parsed.thought for t in trace.turns] == ["Hm."] * 3
    assert trace.example_id == "e1"
    assert trace.usage.calls == 3
    assert all(r.session == "e1" and not r.choices and r.prompt.prefill == "<think>" for r in llm.requests)


def test_an_answer_that_names_no_candidate_excludes_the_last_one_listed(make_example: ExampleFactory) -> None:
    script = [say("Rocky (1976)"), "no answer at all", say("toy story")]
    trace, _ = run(IRanker(), make_example(4), script)
    assert [t.parsed.status for t in trace.turns] == ["defaulted", "failed", "repaired"]
    assert trace.eliminated == ("c4", "c3", "c1")
    assert trace.ranking == ("c2", "c1", "c3", "c4")


def test_what_is_excluded_already_is_no_candidate_any_more(make_example: ExampleFactory) -> None:
    trace, _ = run(IRanker(), make_example(3), [say("Heat (1995)"), say("Heat (1995)")])
    assert [t.parsed.status for t in trace.turns] == ["exact", "defaulted"]
    assert trace.ranking == ("c1", "c3", "c2")


SEQUELS = RankingExample(
    "e1",
    "recommendation",
    tuple(Candidate(f"c{k}", name) for k, name in enumerate(("Toy Story", "Toy Story 2", "Toy Story 3", "Heat"), 1)),
)


def test_an_excluded_name_does_not_pass_for_a_longer_one_that_is_left() -> None:
    trace, _ = run(IRanker(), SEQUELS, [say("Toy Story"), say("toy story"), say("Toy Story 2")])
    assert [t.parsed.status for t in trace.turns] == ["exact", "defaulted", "exact"]
    assert trace.turns[1].parsed.ids == ()
    # The default: the last one listed, Heat, and not Toy Story 2.
    assert trace.eliminated == ("c1", "c4", "c2")
    assert trace.ranking == ("c3", "c2", "c4", "c1")


@pytest.mark.parametrize(
    ("answer", "status", "ids"),
    [
        ("Toy Story 2", "exact", ("c2",)),
        ("TOY STORY 2", "repaired", ("c2",)),
        ("I drop Toy Story 2", "repaired", ("c2",)),
        ("Toy Story", "defaulted", ()),  # excluded already, though a part of what is left
        ("Toy Story 3", "defaulted", ()),  # excluded already
        ("Not Toy Story 3", "defaulted", ()),  # the same, and only it is named
        ("Toy Story 2, not Toy Story 3", "defaulted", ()),  # names two, though one of them is gone
        ("Toy", "defaulted", ()),
        ("", "failed", ()),
    ],
)
def test_all_labels_compete_in_parsing(answer: str, status: str, ids: tuple[str, ...]) -> None:
    ranker, left = IRanker(), ("c2", "c4")
    parsed = ranker.parse(SEQUELS, left, ranker.request(SEQUELS, left), Completion(say(answer)))
    assert parsed == ParsedAnswer(status, ids, "Hm.", 0, True)  # type: ignore[arg-type]


def test_an_excluded_candidates_answer_keeps_its_faults() -> None:
    ranker, left = IRanker(), ("c2", "c4")
    parsed = ranker.parse(SEQUELS, left, ranker.request(SEQUELS, left), Completion("Hm.</think><answer>Toy Story 3"))
    assert parsed == ParsedAnswer("defaulted", (), "Hm.", 1, False)


@pytest.mark.parametrize("ranker", [IRanker(), DRanker(), IRanker(thinking=False), FirstStep()])
def test_one_candidate_needs_no_llm(ranker: Ranker, make_example: ExampleFactory) -> None:
    trace, _ = run(ranker, make_example(1), [])
    assert trace == Trace("e1", ("c1",))


def test_labels_are_the_whole_examples_in_every_turn(make_example: ExampleFactory) -> None:
    example = make_example(3, scenario="passage")
    trace, llm = run(IRanker(answer_form="id"), example, [say("passage 1"), say("passage 3")])
    assert trace.ranking == ("c2", "c3", "c1")
    assert "passage 1:" not in llm.requests[1].prompt.user
    assert "passage 2: The Tiber" in llm.requests[1].prompt.user
    assert "passage 3: A whale" in llm.requests[1].prompt.user


def test_alike_texts_keep_their_numbers_when_the_first_is_gone(make_example: ExampleFactory) -> None:
    twins = make_example(9).restrict(["c1", "c9", "c2"])
    assert IRanker().labels(twins) == {"c1": "Toy Story (1995)", "c9": "Toy Story (1995) (2)", "c2": "Heat (1995)"}
    trace, llm = run(IRanker(), twins, [say("Toy Story (1995)"), say("Toy Story (1995) (2)")])
    assert trace.eliminated == ("c1", "c9")
    assert [t.parsed.status for t in trace.turns] == ["exact", "exact"]
    assert llm.requests[1].prompt.user.endswith("\n\nCandidates:\nToy Story (1995) (2): Toy Story (1995)\nHeat (1995)")


def test_without_thinking_the_labels_of_what_is_left_are_the_choices(make_example: ExampleFactory) -> None:
    trace, llm = run(IRanker(thinking=False), make_example(3), ["Heat (1995)", "Toy Story (1995)"])
    assert [r.choices for r in llm.requests] == [
        ("Toy Story (1995)", "Heat (1995)", "Casablanca (1942)"),
        ("Toy Story (1995)", "Casablanca (1942)"),
    ]
    assert all((r.prompt.prefill, r.stop) == ("<answer>", "</answer>") for r in llm.requests)
    assert [t.completion.text for t in trace.turns] == ["Heat (1995)</answer>", "Toy Story (1995)</answer>"]
    assert trace.ranking == ("c3", "c1", "c2")
    assert [t.parsed.status for t in trace.turns] == ["exact", "exact"]
    assert all(t.parsed.well_formed and t.parsed.wrong_tags == 0 for t in trace.turns)


@pytest.mark.parametrize("form", ANSWER_FORMS)
@pytest.mark.parametrize("scenario", ["recommendation", "routing", "passage"])
def test_every_choice_parses_exact(form: AnswerForm, scenario: Scenario, make_example: ExampleFactory) -> None:
    ranker = IRanker(thinking=False, answer_form=form)
    example = make_example(4, scenario=scenario)
    [trace] = rank_all(ranker, [example], ScriptedLLM(lambda r: r.choices[1]))
    assert trace.ranking == ("c1", "c4", "c3", "c2")
    assert [t.parsed.status for t in trace.turns] == ["exact"] * 3


def test_append_asks_with_one_prefix_and_ranks_alike(make_example: ExampleFactory) -> None:
    example, script = make_example(4), [say("Heat (1995)"), say("Alien (1979)"), say("Toy Story (1995)")]
    appended, llm = run(IRanker(layout="append"), example, script)
    rebuilt, _ = run(IRanker(), example, script)
    assert appended.ranking == rebuilt.ranking
    first, second, third = (r.prompt.user for r in llm.requests)
    # In the order of exclusion: what has been read stays as it is.
    assert second == first + "\n\nAlready excluded:\nHeat (1995)\n"
    assert third == second + "Alien (1979)\n"


@pytest.mark.parametrize("thinking", [True, False])
def test_constrained_answers_are_the_labels_that_are_left(make_example: ExampleFactory, thinking: bool) -> None:
    ranker = IRanker(thinking=thinking, constrained=True)
    request = ranker.request(make_example(4), ("c1", "c4"))
    assert (request.answers, request.choices, request.scored) == (("Toy Story (1995)", "Alien (1979)"), (), False)
    assert (
        replace(request, answers=()).prompt == IRanker(thinking=thinking).request(make_example(4), ("c1", "c4")).prompt
    )
    answer = "Heat (1995)</answer>"
    trace, _ = run(ranker, make_example(2), [f"Hm.</think><answer>{answer}" if thinking else answer])
    assert (trace.ranking, trace.turns[0].parsed.status) == (("c1", "c2"), "exact")
    for several in ({"exclude_per_turn": 2}, {"stop_at": 3}):
        with pytest.raises(ConfigError, match="a constrained answer names one candidate"):
            IRanker(constrained=True, **several)  # type: ignore[arg-type]


def test_a_constrained_list_is_of_all_labels(make_example: ExampleFactory) -> None:
    ranker = DRanker(thinking=False, constrained=True)
    example = make_example(4)
    free, held = DRanker(thinking=False).request(example), ranker.request(example)
    labels = tuple(ranker.labels(example).values())
    assert held == replace(free, answers=labels, listed=True)
    assert (free.answers, free.listed) == ((), False)
    begun = ranker.request(example, written=("c3", "c1"))
    assert (begun.answers, begun.written) == ((labels[1], labels[3]), (labels[2], labels[0]))
    assert begun.prompt == free.prompt
    trace, _ = run(ranker, example, ["\n".join(reversed(labels)) + "\n</answer>"])
    assert trace.ranking == ("c4", "c3", "c2", "c1")
    assert trace.turns[0].parsed.status == "exact"


def test_a_constrained_list_leaves_room_for_its_labels() -> None:
    assert DRanker(thinking=False).text_budget(2000, 300) == 2000 - 300 - INSTRUCTIONS
    assert DRanker(thinking=False, constrained=True).text_budget(2000, 300) == (2000 - INSTRUCTIONS) // 2
    assert DRanker(constrained=True).text_budget(2000, 300) == (2000 - 300 - INSTRUCTIONS) // 2


@pytest.mark.parametrize(
    "ranker", [IRanker(thinking=False, constrained=True, exclude_per_turn=2), FirstStep(constrained=True)]
)
def test_where_several_are_compared_constrained_answers_are_scored(make_example: ExampleFactory, ranker: Any) -> None:
    ranking = ranker.rank(make_example(4))
    request = next(ranking)
    assert (len(request.answers), request.choices, request.scored) == (4, (), True)
    labels = next(ranker.rank(make_example(4))).answers
    scores = (-2.0, -0.5, -3.0, -1.0)
    try:
        while True:
            kept = [scores[k] for k, label in enumerate(labels) if label in request.answers]
            best = max(range(len(kept)), key=kept.__getitem__)
            written = Completion(request.answers[best] + "</answer>", choice_logprobs=tuple(kept) * request.scored)
            request = ranking.send(written)
    except StopIteration as stop:
        trace = stop.value
    # The likeliest to be written is excluded first.
    assert trace.ranking == ("c3", "c1", "c4", "c2")
    assert {turn.parsed.status for turn in trace.turns} == {"exact"}


def test_a_direct_ranking_is_completed_in_listed_order(make_example: ExampleFactory) -> None:
    trace, llm = run(DRanker(), make_example(4), [say("Alien (1979)\nHeat (1995)")])
    assert trace.ranking == ("c4", "c2", "c1", "c3")
    assert trace.eliminated == ()
    assert trace.turns[0].parsed.ids == ("c4", "c2")
    assert trace.turns[0].parsed.status == "repaired"
    assert (llm.requests[0].choices, llm.requests[0].session) == ((), "")
    whole, _ = run(DRanker(), make_example(3), [say("Casablanca (1942)\nToy Story (1995)\nHeat (1995)")])
    assert (whole.ranking, whole.turns[0].parsed.status) == (("c3", "c1", "c2"), "exact")


@pytest.mark.parametrize(("text", "status"), [(say("nothing"), "defaulted"), ("", "failed")])
def test_a_direct_answer_without_candidates_leaves_the_listed_order(
    text: str, status: str, make_example: ExampleFactory
) -> None:
    trace, _ = run(DRanker(), make_example(3), [text])
    assert trace.ranking == ("c1", "c2", "c3")
    assert trace.turns[0].parsed.status == status


def test_direct_without_thinking_writes_freely_after_the_answer_tag(make_example: ExampleFactory) -> None:
    trace, llm = run(DRanker(thinking=False), make_example(2), ["Heat (1995)\nToy Story (1995)</answer>"])
    assert (llm.requests[0].prompt.prefill, llm.requests[0].choices) == ("<answer>", ())
    assert (trace.ranking, trace.turns[0].parsed.status) == (("c2", "c1"), "exact")


# Several exclusions a turn


def drive(ranker: IRanker, example: RankingExample, *answers: tuple[float, ...] | str) -> tuple[Trace, list[Request]]:
    """Answer each turn with its choices' log-probs, or with a text."""
    ranking, requests = ranker.rank(example), []
    request = next(ranking)
    for answer in answers:
        requests.append(request)
        scores = () if isinstance(answer, str) else answer
        try:
            request = ranking.send(Completion(answer if isinstance(answer, str) else "", choice_logprobs=scores))
        except StopIteration as stop:
            return stop.value, requests
    raise AssertionError("the ranking goes on")


def test_two_a_turn_are_the_two_likeliest_exclusions(make_example: ExampleFactory) -> None:
    ranker = IRanker(thinking=False, exclude_per_turn=2)
    trace, requests = drive(ranker, make_example(5), (-3.0, -1.0, -2.0, -0.5, -4.0), (-1.0, -2.0, -0.5))
    assert [t.excluded_ids for t in trace.turns] == [("c4", "c2"), ("c5", "c1")]
    assert [t.parsed for t in trace.turns] == [ParsedAnswer("exact", ("c4", "c2")), ParsedAnswer("exact", ("c5", "c1"))]
    assert [t.remaining for t in trace.turns] == [("c1", "c2", "c3", "c4", "c5"), ("c1", "c3", "c5")]
    assert trace.ranking == ("c3", "c1", "c5", "c2", "c4")
    assert trace.eliminated == ("c4", "c2", "c5", "c1")
    assert [r.scored for r in requests] == [True, True]
    # The wording asks for one: the scores tell the others.
    assert "Which candidate is the user least likely" in requests[0].prompt.user


def test_of_equal_scores_the_last_listed_goes_first(make_example: ExampleFactory) -> None:
    trace, _ = drive(IRanker(thinking=False, exclude_per_turn=3), make_example(4), (-1.0,) * 4)
    assert (trace.eliminated, trace.ranking) == (("c4", "c3", "c2"), ("c1", "c2", "c3", "c4"))


def test_the_last_turn_excludes_no_more_than_there_are(make_example: ExampleFactory) -> None:
    trace, requests = drive(
        IRanker(thinking=False, exclude_per_turn=3), make_example(5), (-5.0, -4.0, -3.0, -2.0, -1.0), "Heat (1995)"
    )
    # Of the two that are left one goes, as by default: the choice that is written.
    assert [t.excluded_ids for t in trace.turns] == [("c5", "c4", "c3"), ("c2",)]
    assert [r.scored for r in requests] == [True, False]


@pytest.mark.parametrize(
    ("share", "n", "counts"),
    [
        (0.5, 8, [4, 2, 1]),
        (0.5, 20, [10, 5, 2, 1, 1]),  # of 5 two, of 3 one, of 2 one
        (0.1, 5, [1, 1, 1, 1]),  # at least one
        (0.29, 100, [29, 20, 14, 10, 7, 5, 4, 3, 2, 1, 1, 1, 1, 1]),
        (0.99, 3, [2]),  # one is left
        (1, 4, [1, 1, 1]),
        (7, 4, [3]),
        (2, 6, [2, 2, 1]),
    ],
)
def test_a_share_takes_few_turns(share: float, n: int, counts: list[int]) -> None:
    candidates = tuple(Candidate(f"c{k}", f"text {k}") for k in range(n))
    ranker = IRanker(thinking=False, answer_form="name", exclude_per_turn=share)
    [trace] = rank_all(ranker, [RankingExample("e", "passage", candidates)], ScriptedLLM(lambda r: r.choices[0]))
    assert [len(t.excluded_ids) for t in trace.turns] == counts
    assert ranker.calls(n) == len(counts)
    assert trace.ranking[1:] == trace.eliminated[::-1]


def test_stop_at_orders_what_is_left_by_one_more_turn(make_example: ExampleFactory) -> None:
    ranker = IRanker(thinking=False, stop_at=3)
    trace, requests = drive(ranker, make_example(5), "Alien (1979)", "Heat (1995)", (-1.0, -3.0, -2.0))
    assert [t.excluded_ids for t in trace.turns] == [("c4",), ("c2",), ("c1", "c5")]
    assert trace.ranking == ("c3", "c5", "c1", "c2", "c4")
    assert [r.scored for r in requests] == [False, False, True]
    assert (ranker.calls(5), ranker.calls(3), ranker.calls(2), ranker.calls(1)) == (3, 1, 1, 0)
    # On the way to it no turn excludes more than lead there.
    assert IRanker(thinking=False, stop_at=3, exclude_per_turn=4).calls(5) == 2


def test_stop_at_no_less_than_the_list_is_the_first_step(make_example: ExampleFactory) -> None:
    example, scores = make_example(4), (-2.0, -0.5, -1.0, -3.0)
    trace, _ = drive(IRanker(thinking=False, stop_at=9), example, scores)
    assert trace.ranking == drive(FirstStep(), example, scores)[0].ranking


def test_with_thinking_several_are_named_one_a_line(make_example: ExampleFactory) -> None:
    ranker = IRanker(exclude_per_turn=2)
    written = "Heat (1995)\nAlien (1979)", "Toy Story (1995)\nheat", "Casablanca (1942)"
    trace, requests = drive(ranker, make_example(5), *map(say, written))
    first, second, third = trace.turns
    assert (first.parsed.status, first.excluded_ids) == ("exact", ("c2", "c4"))
    assert "Which 2 candidates is the user least likely to choose next? Reply with their 2 names only" in (
        requests[0].prompt.user
    )
    assert requests[0].choices == ()
    # "heat" is gone already: one is named, and another turn is needed.
    assert (second.parsed.status, second.excluded_ids) == ("repaired", ("c1",))
    assert (third.parsed.status, third.excluded_ids) == ("exact", ("c3",))
    assert "Which candidate is the user least likely to choose next?" in requests[2].prompt.user


@pytest.mark.parametrize(
    ("answer", "status", "excluded"),
    [
        ("Heat (1995)\nAlien (1979)", "exact", ("c2", "c4")),
        ("Alien (1979)\nHeat (1995)", "exact", ("c4", "c2")),  # as written
        ("1. Heat (1995)\n2. alien", "repaired", ("c2", "c4")),
        ("Heat (1995) > Alien (1979)", "repaired", ("c2", "c4")),
        ("Heat (1995)", "repaired", ("c2",)),  # fewer than asked
        ("Heat (1995)\nHeat (1995)", "repaired", ("c2",)),
        ("Heat (1995)\nAlien (1979)\nCasablanca (1942)", "repaired", ("c2", "c4")),  # more than asked
        ("Heat (1995)\nRocky (1976)", "repaired", ("c2",)),
        ("Rocky (1976)", "defaulted", ("c5",)),  # none: the last one listed
        ("", "failed", ("c5",)),
    ],
)
def test_what_is_named_is_excluded(
    answer: str, status: str, excluded: tuple[str, ...], make_example: ExampleFactory
) -> None:
    trace, _ = drive(IRanker(exclude_per_turn=2), make_example(5), *[say(answer)] + [say("?")] * 4)
    assert (trace.turns[0].parsed.status, trace.turns[0].excluded_ids) == (status, excluded)


@pytest.mark.parametrize("ranker", [IRanker(thinking=False, exclude_per_turn=2), IRanker(thinking=False, stop_at=3)])
def test_several_exclusions_need_log_probs_or_thinking(ranker: IRanker, make_example: ExampleFactory) -> None:
    with pytest.raises(InputError, match=r"example 'e1': the LLM tells 0 of 3 .*set both to 1, or think"):
        drive(ranker, make_example(3), "Heat (1995)")


@pytest.mark.parametrize("several", [0, -1, 1.5, float("nan"), float("inf"), 0.0])
def test_what_cannot_be_excluded_per_turn(several: float) -> None:
    with pytest.raises(ConfigError, match=r"exclude_per_turn is .*: give a whole number from 1, or a share"):
        IRanker(exclude_per_turn=several)
    with pytest.raises(ConfigError, match="stop_at is 0"):
        IRanker(stop_at=0)


def test_narrowing_leaves_the_best_in_the_order_of_the_last_scores(make_example: ExampleFactory) -> None:
    ranking = IRanker(thinking=False).narrow(make_example(4), 3)
    next(ranking)
    with pytest.raises(StopIteration) as stop:
        ranking.send(Completion("Heat (1995)</answer>", choice_logprobs=(-1.0, -0.5, -2.0, -3.0)))
    assert stop.value.value.ranking == ("c4", "c3", "c1", "c2")


def test_the_answer_form_follows_scenario_and_size(make_example: ExampleFactory) -> None:
    passages = make_example(2, scenario="passage")
    assert IRanker().form(passages) == "id"
    assert IRanker(parameters=135_000_000).form(passages) == "quote"
    assert IRanker(parameters=135_000_000, answer_form="id").form(passages) == "id"
    assert DRanker(quote_words=2, answer_form="quote").labels(passages) == {"c1": "Rome was", "c2": "The Tiber"}


def test_make_ranker() -> None:
    assert make_ranker("iterative", thinking=False, layout="append") == IRanker(thinking=False, layout="append")
    assert make_ranker("direct") == DRanker()
    assert make_ranker("first_step", quote_words=3) == FirstStep(quote_words=3)
    assert (IRanker().kind, DRanker().kind, FirstStep().kind) == ("iterative", "direct", "first_step")


@pytest.mark.parametrize("ranker", [IRanker, DRanker, FirstStep])
@pytest.mark.parametrize("kind", ["iterative", "direct", "first_step"])
def test_a_rankers_kind_is_no_setting(ranker: type[IRanker | DRanker | FirstStep], kind: str) -> None:
    with pytest.raises(TypeError, match="kind"):
        ranker(kind=kind)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("ranker", "max_tokens", "budget"),
    [
        # Of 2049 tokens, 256 are for the wording.
        (DRanker(), 512, 1281),
        (DRanker(thinking=False), 512, 1281),  # writes the list, so an answer takes what it may
        (DRanker(layout="append"), 512, 1281),  # one turn: nothing is excluded
        (IRanker(), 512, 1281),
        (IRanker(thinking=False), 512, 1729),  # a label: 64
        (IRanker(thinking=False), 64, 1729),
        (IRanker(thinking=False), 30, 1763),
        (FirstStep(), 512, 1729),
        (FirstStep(), 30, 1763),
        (FirstStep(layout="append"), 512, 1729),  # one turn: nothing is excluded
        (IRanker(layout="append"), 512, 640),  # half, rounded down
        (IRanker(thinking=False, layout="append"), 512, 864),
        (IRanker(), 1793, 0),
        (IRanker(), 1800, -7),
    ],
)
def test_what_the_texts_may_take(ranker: Ranker, max_tokens: int, budget: int) -> None:
    assert (INSTRUCTIONS, LABEL_TOKENS) == (256, 64)
    assert ranker.text_budget(2049, max_tokens) == budget


def test_a_script_that_runs_out_or_names_no_choice_says_so(make_example: ExampleFactory) -> None:
    with pytest.raises(InputError, match="2 answers and was asked for one more"):
        rank_all(IRanker(), [make_example(4)], ScriptedLLM([say("Heat (1995)")] * 2))
    with pytest.raises(InputError, match="none of"):
        rank_all(IRanker(thinking=False), [make_example(2)], ScriptedLLM(["Heat"]))


WRITTEN = st.lists(
    st.sampled_from(
        [
            "Toy Story (1995)",
            "Heat",
            "casablanca",
            "Alien (1979)",
            "</think>",
            "<answer>",
            "</answer>",
            "\n",
            " > ",
            "1. ",
        ]
    )
    | st.text(max_size=4),
    max_size=10,
).map("".join)


@given(
    st.lists(WRITTEN, min_size=5, max_size=5),
    st.integers(1, 6),
    st.sampled_from(["iterative", "direct", "first_step"]),
    st.sampled_from(["rebuild", "append"]),
    st.sampled_from(ANSWER_FORMS),
    st.booleans(),
)
def test_a_ranking_is_a_permutation_whatever_the_llm_writes(
    make_example: ExampleFactory,
    texts: list[str],
    n: int,
    kind: str,
    layout: str,
    form: AnswerForm,
    thinking: bool,
) -> None:
    left = iter(texts)

    def script(request: Request) -> str:
        text = next(left)
        return request.choices[len(text) % len(request.choices)] if request.choices else text

    thinking = thinking and kind != "first_step"
    ranker = make_ranker(kind, layout=layout, answer_form=form, thinking=thinking)  # type: ignore[arg-type]
    example = make_example(n)
    [trace] = rank_all(ranker, [example], ScriptedLLM(script), Sampling())
    assert sorted(trace.ranking) == sorted(example.ids)
    assert len(trace.turns) == (n - 1 if kind == "iterative" else min(n - 1, 1))
    if kind == "iterative":
        assert trace.ranking[1:] == trace.eliminated[::-1]

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import ExampleFactory
from r1ranker.parsing import parse_choice, parse_ranking
from r1ranker.prompts import THINK
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rewards import Reward, exclusion_reward, exclusion_values, listing_values, ndcg, ranking_reward
from r1ranker.types import Completion

LABELS, IDS = ["Heat", "Alien", "Fargo", "Jaws"], ["h", "a", "f", "j"]
POSITIVE = {"a": 1.0}


def exclude(reply: str, remaining: Sequence[str] = IDS, relevance: dict[str, float] = POSITIVE) -> Reward:
    labels = [LABELS[IDS.index(i)] for i in remaining]
    return exclusion_reward(parse_choice(reply, labels, remaining, thinking=True), relevance, remaining)


def listed(reply: str, relevance: dict[str, float] = POSITIVE) -> Reward:
    return ranking_reward(parse_ranking(reply, LABELS, IDS, thinking=True), relevance, IDS)


def good(answer: str) -> str:
    return f"<think>So.</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("reply", "reward", "total"),
    [
        # The paper's table, by hand: answer, coverage, format, tags.
        (good("Heat"), Reward(1.0), 1.0),
        (good("Alien"), Reward(0.0), 0.0),
        (good("Psycho"), Reward(-0.5), -0.5),
        (good(""), Reward(-1.0), -1.0),
        ("<think>So.</think><answer>Heat", Reward(1.0, 0.0, -1.0, -0.25), -0.25),
        ("<think>So.</think> Heat", Reward(1.0, 0.0, -1.0, -0.5), -0.5),
        ("<think>So. Heat", Reward(-1.0, 0.0, -1.0, -0.75), -2.75),
        ("Heat", Reward(-1.0, 0.0, -1.0, -1.0), -3.0),
        (good("Alien") + "<answer>Heat</answer>", Reward(1.0, 0.0, -1.0, -0.5), -0.5),
        (good("Alien") + "<think></think><answer>Heat</answer>", Reward(1.0, 0.0, -1.0, -1.0), -1.0),
        (good("Heat") + " Done.", Reward(1.0, 0.0, -1.0, 0.0), 0.0),
    ],
)
def test_an_exclusions_parts_and_total(reply: str, reward: Reward, total: float) -> None:
    assert exclude(reply) == reward
    assert exclude(reply).total == total


def test_a_candidate_that_is_gone_is_no_candidate(make_example: ExampleFactory) -> None:
    assert exclude(good("Heat"), remaining=["f", "a"]).total == -0.5
    ranker, example, left = IRanker(), make_example(3), ["c1", "c3"]
    totals = []
    for answer in ("Heat (1995)", "heat", "Casablanca (1942)"):
        written = Completion(f"So.</think><answer>{answer}</answer>")
        parsed = ranker.parse(example, left, ranker.request(example, left), written)
        totals.append(exclusion_reward(parsed, example.relevance, left).total)
    assert totals == [-0.5, -0.5, 1.0]


@pytest.mark.parametrize(
    ("relevance", "remaining", "values"),
    [
        ({"a": 1.0}, IDS, (1.0, 0.0, 1.0, 1.0)),
        ({"a": 3.0, "f": 1.0}, IDS, (1.0, 0.0, 1 - 1 / 3, 1.0)),
        ({"a": 1.0, "f": 1.0}, IDS, (1.0, 0.0, 0.0, 1.0)),
        ({"a": 3.0, "f": 1.0}, ["a", "f"], (0.0, 1.0)),  # the lesser positive is the one to exclude
        ({"a": 1.0, "f": 1.0}, ["a", "f"], (1.0, 1.0)),  # no exclusion is wrong
        ({}, IDS, (1.0, 1.0, 1.0, 1.0)),
        ({"a": 1.0}, ["h", "f"], (1.0, 1.0)),  # the positive is gone already
    ],
)
def test_exclusion_values(relevance: dict[str, float], remaining: list[str], values: tuple[float, ...]) -> None:
    assert exclusion_values(relevance, remaining) == pytest.approx(values, abs=1e-12)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_excluding_a_lower_grade_never_earns_less(grades: list[float]) -> None:
    relevance = {str(k): g for k, g in enumerate(grades)}
    values = exclusion_values(relevance, list(relevance))
    assert all(0.0 <= v <= 1.0 for v in values)
    for g, v in zip(grades, values, strict=True):
        assert all(v >= w for h, w in zip(grades, values, strict=True) if g <= h)
    assert max(values) == 1.0


LOG3 = 1 / math.log2(3)


@pytest.mark.parametrize(
    ("answer", "total"),
    [
        ("Alien\nHeat\nFargo\nJaws", 1.0),
        ("Heat\nAlien\nFargo\nJaws", LOG3),
        ("Heat\nFargo\nAlien\nJaws", 0.5),
        ("Heat\nFargo\nJaws\nAlien", 1 / math.log2(5)),
        ("Alien", 1.0 - 0.75),
        ("Heat\nAlien", LOG3 - 0.5),
        ("Heat\nFargo\nJaws", 0.0 - 0.25),  # the positive is left out
        ("Alien\nAlien\nAlien\nAlien", 1.0 - 0.75),
        ("Psycho\nVertigo", 0.0 - 1.0),  # an answer, but of no candidate: what a list of none earns
        ("", -1.0 - 1.0),  # no answer
    ],
)
def test_a_list_earns_its_ndcg_and_loses_what_it_leaves_out(answer: str, total: float) -> None:
    assert listed(good(answer)).total == pytest.approx(total, abs=1e-12)


def test_a_perfect_list_totals_exactly_one_with_grades_too() -> None:
    graded = {"j": 3.0, "f": 2.0, "a": 0.7}
    assert listed(good("Jaws\nFargo\nAlien\nHeat"), graded) == Reward(1.0)
    assert listed(good("Jaws\nFargo\nAlien\nHeat"), graded).total == 1.0


def test_swapping_two_of_a_list_changes_its_reward() -> None:
    graded = {"j": 3.0, "f": 2.0, "a": 1.0}
    best = ["Jaws", "Fargo", "Alien", "Heat"]
    for k in range(3):
        swapped = [*best]
        swapped[k], swapped[k + 1] = swapped[k + 1], swapped[k]
        assert listed(good("\n".join(swapped)), graded).total < 1.0


def test_a_lists_format_and_tags() -> None:
    whole = "\n".join(["Alien", "Heat", "Fargo", "Jaws"])
    assert listed(f"<think>So.</think><answer>{whole}") == Reward(1.0, 0.0, -1.0, -0.25)
    assert listed(f"x<think>So.</think><answer>{whole}</answer>") == Reward(1.0, 0.0, -1.0, 0.0)
    assert listed(whole) == Reward(-1.0, -1.0, -1.0, -1.0)
    # Naming no candidate is an nDCG of 0; only a reply without any answer gets -1 in its place.
    assert listed(good("Psycho")) == Reward(0.0, -1.0, 0.0, 0.0)
    assert listed("<think>So.</think><answer>Psycho") == Reward(0.0, -1.0, -1.0, -0.25)
    assert listed("<think>So.</think> Psycho") == Reward(0.0, -1.0, -1.0, -0.5)
    assert listed("<think>So.</think><answer>") == Reward(-1.0, -1.0, -1.0, -0.25)
    assert listed("") == Reward(-1.0, -1.0, -1.0, -1.0)


def test_a_lines_value_is_its_part_of_the_ndcg() -> None:
    assert listing_values({"a": 1.0}, ["b", "a", "c"], 0) == (0.0, 1.0, 0.0)
    assert listing_values({"a": 1.0}, ["a", "b"], 1) == pytest.approx((LOG3, 0.0))
    assert listing_values({"a": 1.0}, ["a", "b"], 2) == (0.5, 0.0)
    # The last place that counts is the 20th.
    assert listing_values({"a": 1.0}, ["a", "b"], 19)[0] == pytest.approx(1 / math.log2(21))
    assert listing_values({"a": 1.0}, ["a", "b"], 20) == (0.0, 0.0)
    assert listing_values({}, ["a", "b"], 0) == (0.0, 0.0)
    graded = {"a": 1.0, "b": 3.0, "c": 2.0}
    for ranking in (["a", "b", "c", "d"], ["d", "c", "b", "a"]):
        parts = [listing_values(graded, ranking[k:], k)[0] for k in range(4)]
        assert sum(parts) == pytest.approx(ndcg(ranking, graded, 20))


def test_ndcg_by_hand() -> None:
    graded = {"a": 2.0, "b": 1.0}
    ideal = 2.0 + 1.0 * LOG3
    assert ndcg(["b", "x", "a"], graded, 10) == pytest.approx((1.0 + 2.0 * 0.5) / ideal)
    assert ndcg(["b", "x", "a"], graded, 2) == pytest.approx(1.0 / ideal)
    assert ndcg(["x", "y"], graded, 10) == 0.0
    assert ndcg(["a", "b"], {}, 10) == 0.0
    assert ndcg(["a"], {"a": 1.0, "b": 1.0}, 1) == 1.0


def test_only_the_first_twenty_of_a_list_count() -> None:
    relevance = {"20": 1.0}
    ids = [str(k) for k in range(21)]
    assert ndcg(ids, relevance, 20) == 0.0
    assert ndcg(ids[1:], relevance, 20) == pytest.approx(1 / math.log2(21))


def test_tags_in_the_prompt_do_not_touch_the_reward(make_example: ExampleFactory) -> None:
    """The public code scored prompt and completion together: a perfect completion then totalled -0.5."""
    example = make_example(3)
    for ranker in (IRanker(), DRanker()):
        generator = ranker.rank(example)
        request = next(generator)
        assert THINK in request.prompt.system  # the prompt does hold the tags
        assert "<answer>" in request.prompt.system
    state = IRanker()
    request = state.request(example, example.ids)
    parsed = state.parse(example, example.ids, request, Completion("So.</think><answer>Heat (1995)</answer>"))
    assert exclusion_reward(parsed, example.relevance, example.ids) == Reward(1.0)
    direct = DRanker()
    whole = Completion("So.</think><answer>Toy Story (1995)\nHeat (1995)\nCasablanca (1942)</answer>")
    parsed = direct.parse(example, direct.request(example), whole)
    assert ranking_reward(parsed, example.relevance, example.ids) == Reward(1.0)
    silent = state.parse(example, example.ids, request, Completion(""))
    assert exclusion_reward(silent, example.relevance, example.ids) == Reward(-1.0, 0.0, -1.0, -0.75)


def test_a_scored_choice_totals_one_or_zero(make_example: ExampleFactory) -> None:
    ranker, example = IRanker(thinking=False), make_example(3)
    request = ranker.request(example, example.ids)
    totals = []
    for choice in request.choices:
        parsed = ranker.parse(example, example.ids, request, Completion(choice + request.stop))
        totals.append(exclusion_reward(parsed, example.relevance, example.ids).total)
    assert totals == [0.0, 1.0, 1.0]

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from r1ranker.errors import InputError
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rl.states import Draw, State, StateStream, has_signal, request_of, sample_list, sample_state
from r1ranker.types import RankingExample

ExampleFactory = Callable[..., RankingExample]


def draws(example: RankingExample, count: int) -> list[tuple[str, ...]]:
    return [sample_state(example, random.Random(seed)).remaining for seed in range(count)]


@pytest.mark.parametrize("grades", [{"c3": 1.0}, {"c1": 1.0, "c4": 1.0}, {"c2": 3.0, "c5": 2.0, "c6": 1.0}])
def test_every_state_has_a_best_and_a_worse_candidate_in_listed_order(
    make_example: ExampleFactory, grades: dict[str, float]
) -> None:
    example = make_example(6, positives=grades)
    best = max(grades.values())
    for remaining in draws(example, 400):
        left = [example.grade(i) for i in remaining]
        assert max(left) == best
        assert min(left) < best
        assert list(remaining) == [i for i in example.ids if i in set(remaining)]
        assert len(set(remaining)) == len(remaining)


def test_the_number_left_is_uniform_over_2_to_n(make_example: ExampleFactory) -> None:
    sizes = Counter(len(r) for r in draws(make_example(6), 3000))
    # Five sizes, 600 each; sd = sqrt(3000 * 0.2 * 0.8) = 22, so 500 to 700 is more than four of them.
    assert sorted(sizes) == [2, 3, 4, 5, 6]
    assert all(500 < count < 700 for count in sizes.values()), sizes


def test_two_candidates_make_one_state(make_example: ExampleFactory) -> None:
    assert set(draws(make_example(2), 20)) == {("c1", "c2")}


def test_every_negative_is_drawn_alike(make_example: ExampleFactory) -> None:
    # One of 4 negatives is drawn first, then k - 1 more of the other 3, k uniform in 1..4: 2.5 of 4 are left on
    # average, so each is left in 62.5% of the states: 1250 of 2000, sd 22.
    seen = Counter(i for r in draws(make_example(5), 2000) for i in r)
    assert seen["c1"] == 2000
    assert all(1150 < seen[f"c{k}"] < 1350 for k in range(2, 6)), seen


def test_an_example_gives_several_states_before_the_next_one(make_example: ExampleFactory) -> None:
    examples = [make_example(6, id=f"e{k}") for k in range(3)]
    stream = StateStream(examples, per_step=4, draw="subsets", seed=0, per_example=2)
    states = [state for step in range(3) for state in stream.at(step)]
    names = [state.example.id for state in states]
    assert names[0::2] == names[1::2]
    assert sorted(names[0::2]) == sorted(names[6:12:2] + names[0:6:2]) == sorted(["e0", "e1", "e2"] * 2)
    assert len({state.remaining for state in states}) > 6  # each is a draw of its own
    # One state an example is the paper's draw, and stays what it was.
    one = StateStream(examples, per_step=4, draw="subsets", seed=0)
    assert [s.example.id for s in one.at(0)][:3] == names[0:6:2]


def test_one_of_several_best_candidates_is_kept_and_each_has_its_turn(make_example: ExampleFactory) -> None:
    example = make_example(4, positives={"c1": 2.0, "c2": 2.0, "c3": 1.0})
    pairs = Counter(r for r in draws(example, 1000) if len(r) == 2)
    # A pair is a best one (c1 or c2) and a worse one (c3 or c4): a lower grade that is not zero counts as worse.
    assert set(pairs) == {("c1", "c3"), ("c1", "c4"), ("c2", "c3"), ("c2", "c4")}
    assert min(pairs.values()) > 40


def test_signal(make_example: ExampleFactory) -> None:
    assert has_signal(make_example(2))
    assert not has_signal(make_example(1))
    assert not has_signal(make_example(2, positives={"c1": 1.0, "c2": 1.0}))
    assert has_signal(make_example(2, positives={"c1": 1.0, "c2": 2.0}))


def stream(examples: list[RankingExample], per_step: int = 3, draw: Draw = "subsets", seed: int = 0) -> StateStream:
    return StateStream(examples, per_step=per_step, draw=draw, seed=seed)


@pytest.fixture
def seven(make_example: ExampleFactory) -> list[RankingExample]:
    return [make_example(6, id=f"e{k}") for k in range(7)]


def test_the_same_seed_gives_the_same_states(seven: list[RankingExample]) -> None:
    a, b = stream(seven), stream(seven)
    assert [a.at(s) for s in range(8)] == [b.at(s) for s in range(8)]
    assert [a.at(s) for s in range(8)] != [stream(seven, seed=1).at(s) for s in range(8)]


def test_a_step_does_not_depend_on_those_before_it(seven: list[RankingExample]) -> None:
    a = stream(seven)
    straight = [a.at(s) for s in range(8)]
    assert len({str(step) for step in straight}) == 8
    jumping = stream(seven)
    for step in (5, 0, 7, 2, 2, 6):
        assert jumping.at(step) == straight[step], step


@pytest.mark.parametrize("per_step", [1, 3, 7, 10])
def test_every_example_stands_once_in_an_epoch(seven: list[RankingExample], per_step: int) -> None:
    s = stream(seven, per_step)
    flat = [state.example.id for step in range(42 // per_step + 1) for state in s.at(step)]
    epochs = [flat[k : k + 7] for k in range(0, 42, 7)]
    assert all(sorted(epoch) == [f"e{k}" for k in range(7)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # each epoch is shuffled anew


def test_an_example_meets_other_states_in_later_epochs(seven: list[RankingExample]) -> None:
    s = stream(seven[:1], 1)
    assert len({s.at(step)[0].remaining for step in range(10)}) > 3


def test_in_whole_lists_all_candidates_are_left(seven: list[RankingExample]) -> None:
    assert all(state.remaining == state.example.ids for state in stream(seven, draw="whole").at(0))
    assert any(state.remaining != state.example.ids for state in stream(seven).at(0))


def test_examples_without_signal_are_left_out(make_example: ExampleFactory) -> None:
    flat = make_example(3, positives={"c1": 1.0, "c2": 1.0, "c3": 1.0}, id="flat")
    single = make_example(1, id="single")
    good = make_example(3, id="good")
    s = stream([flat, single, good], 2)
    assert [state.example.id for step in range(3) for state in s.at(step)] == ["good"] * 6


def test_nothing_to_learn_from_is_an_error(make_example: ExampleFactory) -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        stream([make_example(1), make_example(2, positives={"c1": 1.0, "c2": 1.0})])
    with pytest.raises(InputError, match="nothing to learn from"):
        stream([])


def test_beginnings_of_lists_leave_a_choice(make_example: ExampleFactory) -> None:
    example = make_example(6, positives={"c2": 2.0, "c4": 1.0, "c5": 2.0})
    lengths, orders = set(), set()
    for k in range(300):
        state = sample_list(example, random.Random(k), random.Random(k + 1000), "films")
        assert state.excluded is not None
        assert state.undecided
        assert state.origin == "films"
        assert {"c2", "c5"} & set(state.remaining)  # a best one is not written yet
        assert sorted((*state.remaining, *state.excluded)) == sorted(example.ids)
        assert list(state.remaining) == [i for i in example.ids if i in state.remaining]
        lengths.add(len(state.excluded))
        orders.add(state.excluded)
    assert lengths == {0, 1, 2, 3, 4}
    assert len(orders) > 50


def test_the_first_line_is_asked_for_most_often(make_example: ExampleFactory) -> None:
    """By hand, with three others: a place of 0 to 3, then 0 to place lines; 0 lines with (1 + 1/2 + 1/3 + 1/4) / 4."""
    counts = Counter(
        len(sample_list(make_example(5), random.Random(0), random.Random(k)).excluded or ()) for k in range(4000)
    )
    for length, share in enumerate((25 / 48, 13 / 48, 7 / 48, 3 / 48)):
        assert counts[length] / 4000 == pytest.approx(share, abs=0.025)


def test_a_list_is_begun_up_to_where_its_reward_ends(make_example: ExampleFactory) -> None:
    long = make_example(40)
    lengths = {len(sample_list(long, random.Random(0), random.Random(k)).excluded or ()) for k in range(400)}
    assert lengths == set(range(20))


def test_states_of_an_example_are_beginnings_of_one_list(make_example: ExampleFactory) -> None:
    examples = [make_example(9, id=f"e{k}") for k in range(4)]
    s = StateStream(examples, per_step=12, draw="lists", seed=0, per_example=3)
    lists = set()
    for step in range(6):
        states = s.at(step)
        for k in range(0, 12, 3):
            own = sorted((state.excluded or () for state in states[k : k + 3]), key=len)
            assert len({state.example.id for state in states[k : k + 3]}) == 1
            assert own[1][: len(own[0])] == own[0]
            assert own[2][: len(own[1])] == own[1]
            lists.add(own[2][:2])
    assert len(lists) > 5  # another list in every epoch


def test_what_a_state_asks(make_example: ExampleFactory) -> None:
    example = make_example(4)
    state = State(example, ("c1", "c3"), excluded=("c4", "c2"))
    listed = request_of(DRanker(thinking=False, constrained=True), state)
    labels = DRanker(thinking=False).labels(example)
    assert listed.answers == (labels["c1"], labels["c3"])
    assert listed.written == (labels["c4"], labels["c2"])
    assert all(label in listed.prompt.user for label in labels.values())  # the prompt is that of the whole list
    excluding = request_of(IRanker(thinking=False), state)
    assert excluding.choices == listed.answers
    assert labels["c4"] not in excluding.prompt.user


# Several data sets


@pytest.fixture
def mixed(make_example: ExampleFactory) -> tuple[list[RankingExample], list[str]]:
    """Data sets of 2, 3 and 7 examples, one after the other, and the data set of each."""
    sizes = {"small": 2, "middle": 3, "large": 7}
    examples = [make_example(6, id=f"{name}{k}") for name, size in sizes.items() for k in range(size)]
    return examples, [name for name, size in sizes.items() for _ in range(size)]


Mixed = tuple[list[RankingExample], list[str]]


def blend(
    mixed: Mixed,
    per_step: int,
    *,
    per_example: int = 1,
    balanced: bool = True,
    seed: int = 0,
    weights: dict[str, int] | None = None,
) -> StateStream:
    return StateStream(
        mixed[0],
        per_step=per_step,
        draw="subsets",
        seed=seed,
        per_example=per_example,
        origins=mixed[1],
        balanced=balanced,
        weights=weights,
    )


def test_in_balance_every_data_set_has_its_turn_in_every_round(mixed: Mixed) -> None:
    states = [state for step in range(14) for state in blend(mixed, 3).at(step)]
    rounds = [[state.origin for state in states[k : k + 3]] for k in range(0, 42, 3)]
    assert all(sorted(names) == ["large", "middle", "small"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 3  # no data set is always the first
    assert all(state.example.id.startswith(state.origin) for state in states)
    for name, size in (("small", 2), ("middle", 3), ("large", 7)):  # each in epochs of its own: 14 examples of each
        ids = [state.example.id for state in states if state.origin == name]
        epochs = [ids[k : k + size] for k in range(0, 14 - size + 1, size)]
        assert all(sorted(epoch) == [f"{name}{k}" for k in range(size)] for epoch in epochs), name


def test_in_balance_an_example_gives_all_its_states_in_its_turn(mixed: Mixed) -> None:
    states = [state for step in range(6) for state in blend(mixed, 6, per_example=2).at(step)]  # a round a step
    ids = [state.example.id for state in states]
    assert ids[0::2] == ids[1::2]
    assert Counter(state.origin for state in states) == {"small": 12, "middle": 12, "large": 12}
    assert ids[0::2] == [state.example.id for step in range(6) for state in blend(mixed, 3).at(step)]


def test_a_data_set_gives_as_many_examples_a_round_as_it_weighs(mixed: Mixed) -> None:
    stream = blend(mixed, 4, weights={"middle": 2})
    rounds = [stream.at(step) for step in range(9)]
    for states in rounds:
        assert Counter(state.origin for state in states) == {"small": 1, "middle": 2, "large": 1}
    ids = [state.example.id for states in rounds for state in states if state.origin == "middle"]
    assert len(ids) == 18
    assert all(sorted(ids[k : k + 3]) == ["middle0", "middle1", "middle2"] for k in range(0, 18, 3))  # whole epochs
    assert stream.at(3) == rounds[3]
    assert blend(mixed, 3, weights={}).at(5) == blend(mixed, 3).at(5)


def test_in_balance_a_step_depends_on_the_seed_and_itself_alone(mixed: Mixed) -> None:
    straight = [blend(mixed, 4).at(step) for step in range(9)]
    jumping = blend(mixed, 4)
    assert all(jumping.at(step) == straight[step] for step in (7, 0, 8, 3, 3, 5))
    assert [blend(mixed, 4, seed=1).at(step) for step in range(9)] != straight


def test_data_sets_of_the_same_size_are_shuffled_apart(make_example: ExampleFactory) -> None:
    examples = [make_example(3, id=f"{name}{k}") for name in "ab" for k in range(20)]
    states = blend((examples, ["a"] * 20 + ["b"] * 20), 40).at(0)
    orders = [[state.example.id[1:] for state in states if state.origin == name] for name in "ab"]
    assert orders[0] != orders[1]


def test_in_proportion_a_data_set_counts_by_its_examples(mixed: Mixed) -> None:
    states = blend(mixed, 12, balanced=False).at(0)
    assert Counter(state.origin for state in states) == {"small": 2, "middle": 3, "large": 7}
    # As the examples are drawn where nothing is known of data sets.
    assert [s.example for s in states] == [s.example for s in stream(mixed[0], 12).at(0)]
    assert {s.origin for s in stream(mixed[0], 12).at(0)} == {""}


def test_in_balance_a_data_set_without_signal_is_named(make_example: ExampleFactory, mixed: Mixed) -> None:
    flat = make_example(2, positives={"c1": 1.0, "c2": 1.0}, id="flat")
    more = ([*mixed[0], flat], [*mixed[1], "flat"])
    with pytest.raises(InputError, match=r"nothing to learn from in 'flat': .* leave it out of data\.names"):
        blend(more, 3)
    assert len(blend(more, 3, balanced=False).at(0)) == 3

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from r1ranker.datasets.aside import set_aside
from r1ranker.errors import InputError
from r1ranker.types import RankingExample

Make = Callable[..., RankingExample]


def users(make: Make, count: int, each: int, prefix: str = "u") -> list[RankingExample]:
    return [
        make(3, id=f"{prefix}{u}:{k}", group=f"{prefix}{u}", history=(f"{prefix} film {u}", f"then {k}"))
        for u in range(count)
        for k in range(each)
    ]


def test_every_list_of_a_user_is_left_out_and_one_of_them_is_kept_to_measure(make_example: Make) -> None:
    train = users(make_example, 6, 3)
    aside = set_aside("films", train, lists=2, seed=0)
    assert aside.origins == ()
    own = aside.lists["films"]
    assert len({e.group for e in own}) == len(own) == 2
    assert len(aside.train) == 12
    assert not {e.group for e in own} & {e.group for e in aside.train}
    assert aside.left_out == 4
    assert list(aside.train) == [e for e in train if e.group not in {o.group for o in own}]  # in their order


def test_the_choice_goes_by_the_seed_and_not_by_the_order_of_the_lists(make_example: Make) -> None:
    train = users(make_example, 8, 2)

    def chosen(lists: list[RankingExample], seed: int) -> list[str]:
        return [e.id for e in set_aside("films", lists, lists=3, seed=seed).lists["films"]]

    assert chosen(train, 0) == chosen(train[::-1], 0)
    assert len({tuple(chosen(train, seed)) for seed in range(4)}) > 1


def test_a_query_is_kept_out_of_all_data_sets_and_so_is_what_is_nearly_the_same(make_example: Make) -> None:
    def asked(of: str, k: int, query: str) -> RankingExample:
        return make_example(3, id=f"{of}:{k}", query=query)

    words = ("apple banana cherry date elder", "fig grape hazel iris jasmine", "kiwi lemon mango nut olive",
             "pear quince rose sage thyme", "umbra vine willow yarrow zinnia")  # fmt: skip
    short = [asked("short", k, text) for k, text in enumerate(words)]
    long = [asked("long", k, f"{text} please") for k, text in enumerate(words)]  # five of six words: near-duplicates
    aside = set_aside("short+long", [*short, *long], ["short"] * 5 + ["long"] * 5, lists=2, seed=1)
    queries = {of: {e.id.split(":")[1] for e in own} for of, own in aside.lists.items()}
    assert queries["short"] == queries["long"]  # a query that one keeps out serves the other too
    assert len(queries["short"]) == 2
    left = {e.id.split(":")[1] for e in aside.train}
    assert left == {str(k) for k in range(5)} - queries["short"]
    assert Counter(aside.origins) == {"short": 3, "long": 3}
    assert aside.left_out == 0


def test_lists_of_which_no_ranking_is_better_are_not_measured_on(make_example: Make) -> None:
    told = users(make_example, 4, 1)
    alike = [make_example(3, positives=("c1", "c2", "c3"), id=f"x{k}", group=f"x{k}", query=f"q{k}") for k in range(9)]
    aside = set_aside("films", [*told, *alike], lists=3, seed=0)
    assert [e.id[0] for e in aside.lists["films"]] == ["u"] * 3
    assert sorted(e.id[0] for e in aside.train) == ["u"] + ["x"] * 9


@pytest.mark.parametrize("lists", [3, 4])
def test_a_data_set_with_too_few_lists_is_named(make_example: Make, lists: int) -> None:
    train = [*users(make_example, 9, 1), *users(make_example, 3, 4, "few")]
    origins = ["many"] * 9 + ["few"] * 12
    with pytest.raises(InputError, match=rf"lists = {lists} of 'few', .* none of its 12 training lists .*: lower it"):
        set_aside("many+few", train, origins, lists=lists, seed=0)

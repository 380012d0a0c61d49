from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import ExampleFactory
from r1ranker.errors import InputError
from r1ranker.fit import ELLIPSIS, LINE_TOKENS, MIN_TOKENS, fit, shorten
from r1ranker.types import Candidate, RankingExample


def words(text: str) -> int:
    return len(text.split())


def letters(text: str) -> int:
    return len(text)


def pieces(text: str) -> int:
    """Like a tokenizer: a word takes a token for each four letters begun."""
    return sum(-(-len(word) // 4) for word in text.split())


def total(example: RankingExample, count: Callable[[str], int]) -> int:
    """What the example takes, a line's share of layout included."""
    texts = [example.query, *example.history]
    for c in example.candidates:
        texts += [c.text, c.name if c.name and c.name != c.text else ""]
    return sum(map(count, texts)) + LINE_TOKENS * (len(example.candidates) + len(example.history))


@pytest.fixture
def no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that take nothing, so that cases can be worked out by hand."""
    monkeypatch.setattr("r1ranker.fit.LINE_TOKENS", 0)


by_hand = pytest.mark.usefixtures("no_lines")


def sized(*sizes: int, query: int = 0, history: tuple[int, ...] = ()) -> RankingExample:
    """An example whose texts have that many words."""
    return RankingExample(
        "e",
        "recommendation",
        tuple(Candidate(f"c{k}", " ".join(f"w{k}.{n}" for n in range(size))) for k, size in enumerate(sizes)),
        query=" ".join(f"q{n}" for n in range(query)),
        history=tuple(" ".join(f"h{k}.{n}" for n in range(size)) for k, size in enumerate(history)),
    )


def sizes(example: RankingExample) -> list[int]:
    return [words(c.text) for c in example.candidates]


@by_hand
def test_what_fits_comes_back_as_it_is() -> None:
    example = sized(10, 20, query=30)
    fitted, cut = fit(example, 60, words)
    assert fitted is example
    assert cut == 0
    assert fit(example, 59, words)[1] > 0


@by_hand
@pytest.mark.parametrize("budget", [None, 1000])
def test_a_document_has_a_limit_of_its_own_however_much_room_there_is(budget: int | None) -> None:
    example = sized(50, 5, 30, 12, query=40, history=(20,))
    fitted, cut = fit(example, budget, words, document_tokens=12)
    assert sizes(fitted) == [12, 5, 12, 12]
    assert cut == 2
    assert (fitted.query, fitted.history) == (example.query, example.history)
    assert fit(example, budget, words, document_tokens=50) == (example, 0)
    assert fit(example, None, words) == (example, 0)


@by_hand
def test_a_documents_limit_leaves_the_query_more_room() -> None:
    example = sized(50, 5, 30, 12, query=100)
    # Without a limit the query takes half of 100, the candidates share the other: 5, 12, and 16 each for two.
    fitted, cut = fit(example, 100, words)
    assert (words(fitted.query), sizes(fitted), cut) == (50, [16, 5, 16, 12], 3)
    # With it the candidates take 5 + 3 x 8, and the query what they leave.
    fitted, cut = fit(example, 100, words, document_tokens=8)
    assert (words(fitted.query), sizes(fitted), cut) == (71, [8, 5, 8, 8], 4)
    # Where even so much is too much, the budget decides: 50 for the query, 5 and three shares of 15 // 3.
    fitted, cut = fit(sized(50, 5, 30, 12, query=20), 40, words, document_tokens=8)
    assert (words(fitted.query), sizes(fitted), cut) == (20, [5, 5, 5, 5], 3)


@by_hand
def test_the_longest_are_cut_to_a_common_cap_and_the_short_stay_whole() -> None:
    example = sized(50, 5, 30, 10, query=5)
    fitted, cut = fit(example, 60, words)
    # 55 for the candidates: 5 and 10 stay, 40 are left for two.
    assert sizes(fitted) == [20, 5, 20, 10]
    assert cut == 2
    assert fitted.candidates[1] is example.candidates[1]
    assert fitted.candidates[0].text == " ".join(f"w0.{n}" for n in range(20)) + "…"
    assert fitted.query == example.query


@by_hand
def test_a_long_query_is_cut_at_its_end_to_half() -> None:
    fitted, cut = fit(sized(30, 30, query=80), 100, words)
    assert fitted.query == " ".join(f"q{n}" for n in range(50)) + "…"
    assert sizes(fitted) == [25, 25]
    assert cut == 3


@by_hand
def test_a_query_may_take_what_the_candidates_leave() -> None:
    example = sized(10, 10, query=90)
    fitted, cut = fit(example, 100, words)
    assert words(fitted.query) == 80
    assert fitted.candidates == example.candidates
    assert cut == 1


@by_hand
def test_a_history_loses_its_oldest_first_and_each_counts() -> None:
    example = sized(30, 30, history=(20, 10, 20, 20))
    fitted, cut = fit(example, 100, words)
    assert fitted.history == example.history[1:]
    assert sizes(fitted) == [25, 25]
    assert cut == 1 + 2
    shorter, cut = fit(sized(40, 40, history=(1, 2, 20, 20)), 60, words)
    assert [words(h) for h in shorter.history] == [20]
    assert sizes(shorter) == [20, 20]
    assert cut == 3 + 2


@by_hand
def test_the_last_entry_of_a_history_is_cut_rather_than_lost() -> None:
    fitted, cut = fit(sized(50, history=(10, 70)), 60, words)
    assert len(fitted.history) == 1
    assert fitted.history[0].startswith("h1.0 h1.1 ")
    assert words(fitted.history[0]) == 30
    assert cut == 3


@by_hand
def test_beside_a_query_the_history_goes_before_the_query_is_cut() -> None:
    fitted, cut = fit(sized(60, query=40, history=(10, 10)), 60, words)
    assert fitted.history == ()
    assert words(fitted.query) == 30
    assert cut == 2 + 1 + 1


@by_hand
def test_names_stay_whole_and_are_paid_for() -> None:
    candidates = (Candidate("a", "one two three four five six seven eight", "A name"), Candidate("b", "x y", "B"))
    fitted, cut = fit(RankingExample("e", "routing", candidates, query="q"), 11, words)
    assert [c.name for c in fitted.candidates] == ["A name", "B"]
    assert fitted.candidates[0].text == "one two three four five…"
    assert cut == 1


@by_hand
def test_a_name_that_is_the_text_is_cut_with_it() -> None:
    text = "one two three four five six"
    fitted, _ = fit(RankingExample("e", "recommendation", (Candidate("a", text, text),)), 4, words)
    assert fitted.candidates[0] == Candidate("a", "one two three four…", "one two three four…")


def test_lines_take_their_share() -> None:
    fitted, cut = fit(sized(50, 50, query=5), 5 + 2 * LINE_TOKENS + 40, words)
    assert sizes(fitted) == [20, 20]
    assert cut == 2


@by_hand
def test_everything_else_of_the_example_is_kept(make_example: ExampleFactory) -> None:
    example = make_example(3, scenario="passage", positives={"c2": 2.0}, group="g")
    fitted, cut = fit(example, 25, words)
    assert cut > 0
    assert replace(fitted, candidates=example.candidates) == example
    assert fitted.ids == example.ids


@by_hand
def test_too_many_candidates_are_refused_with_how_many_would_fit() -> None:
    with pytest.raises(InputError, match=r"example 'e': its 10 candidates .* 35 tokens.*at most 7 at once"):
        fit(sized(*[9] * 10, query=5), 35, words)
    # Exactly four tokens each are enough; a text that has fewer needs no more than it has.
    assert sizes(fit(sized(*[9] * 10, query=5), 45, words)[0]) == [4] * 10
    assert sizes(fit(sized(9, 1, 1, 1), 7, words)[0]) == [4, 1, 1, 1]
    with pytest.raises(InputError, match="rank at most 3 at once"):
        fit(sized(9, 1, 1, 1), 6, words)
    named = RankingExample("e", "routing", (Candidate("a", "some text", "a very long name indeed"),))
    with pytest.raises(InputError, match="rank at most 1 at once, or shorten their names"):
        fit(named, 6, words)


def test_an_endless_word_is_cut_by_characters() -> None:
    assert shorten("x" * 100, 10, letters) == "x" * 9 + "…"
    assert shorten("電影" * 50, 6, letters) == "電影電影電…"
    assert shorten("x" * 100 + " and more", 10, letters) == "x" * 9 + "…"


def test_a_very_long_word_is_cut_by_characters_wherever_it_stands() -> None:
    assert shorten("東京 " + "漢" * 300, 100, letters) == "東京 " + "漢" * 96 + "…"
    assert shorten(f"See https://{'x' * 500} for more", 30, letters) == f"See https://{'x' * 17}…"
    assert shorten("See internationalization", 12, letters) == "See…"


def test_a_line_has_room_for_its_label(tiny_llm_count: Callable[[str], int]) -> None:
    assert tiny_llm_count("passage 123: ") < LINE_TOKENS


def test_cuts_fall_between_words() -> None:
    assert shorten("Rome was not built in a day", 14, letters) == "Rome was not…"
    assert shorten("Rome was not built in a day", 13, letters) == "Rome was not…"
    assert shorten("Rome was not built in a day", 12, letters) == "Rome was…"
    assert shorten("Rome was", 5, letters) == "Rome…"
    assert shorten("Rome was", 4, letters) == "Rom…"
    assert shorten("Rome was", 1, letters) == "…"
    assert shorten("Rome was", 0, letters) == ""


TEXT = st.lists(st.sampled_from(["a", "bb", "word", "longer-word", "x" * 40, "電影"]), min_size=0, max_size=30).map(
    " ".join
)


@given(
    st.lists(st.tuples(TEXT, st.none() | TEXT), min_size=1, max_size=8),
    TEXT,
    st.lists(TEXT, max_size=5),
    st.integers(0, 300),
    st.sampled_from([words, letters, pieces]),
)
def test_the_result_always_fits(
    pairs: list[tuple[str, str | None]],
    query: str,
    history: list[str],
    budget: int,
    count: Callable[[str], int],
) -> None:
    candidates = tuple(Candidate(f"c{k}", text, name) for k, (text, name) in enumerate(pairs))
    example = RankingExample("e", "recommendation", candidates, query=query, history=tuple(history))
    before = total(example, count)
    try:
        fitted, cut = fit(example, budget, count)
    except InputError:
        names = sum(count(c.name) for c in candidates if c.name and c.name != c.text)
        least = names + sum(min(count(c.text), MIN_TOKENS) + LINE_TOKENS for c in candidates)
        assert least > budget - budget // 2
        return
    assert total(fitted, count) <= budget
    assert (cut == 0) == (fitted is example) == (before <= budget)
    assert fitted.ids == example.ids
    assert fitted.history[1:] == example.history[len(example.history) - len(fitted.history) :][1:]
    shown = [(c.text, f.text) for c, f in zip(candidates, fitted.candidates, strict=True)]
    for was, now in shown:
        assert now == was or now.endswith(ELLIPSIS)
        assert now == was or was.startswith(now.removesuffix(ELLIPSIS))
    changed = sum(was != now for was, now in shown) + (fitted.query != query) + len(history) - len(fitted.history)
    changed += len(fitted.history) > 0 and fitted.history[0] != example.history[-len(fitted.history)]
    assert cut == changed


def test_it_fits_by_a_real_tokenizer(tiny_llm_count: Callable[[str], int], make_example: ExampleFactory) -> None:
    example = make_example(6, scenario="passage")
    least = min(b for b in range(60, 500) if _fits(example, b, tiny_llm_count))
    for budget in (least, least + 7, 180, 220):
        fitted, cut = fit(example, budget, tiny_llm_count)
        assert total(fitted, tiny_llm_count) <= budget
        assert cut > 0


def _fits(example: RankingExample, budget: int, count: Callable[[str], int]) -> bool:
    try:
        fit(example, budget, count)
    except InputError:
        return False
    return True


@pytest.fixture(scope="module")
def tiny_llm_count(tiny_tokenizer: object) -> Callable[[str], int]:
    from r1ranker.llm.chat import ChatEncoder

    chat = ChatEncoder(tiny_tokenizer)
    return lambda text: len(chat.encode_text(text))


@by_hand
def test_a_goal_stays_whole_and_is_paid_for() -> None:
    example = replace(sized(6, 6, query=4), scenario="routing")
    assert fit(example, 16, words) == (example, 0)
    told = replace(example, goal="well and cheaply")
    assert fit(told, 19, words) == (told, 0)
    cut, count = fit(told, 17, words)
    assert (sizes(cut), cut.goal, cut.query, count) == ([5, 5], told.goal, told.query, 2)


@by_hand
def test_only_the_candidates_of_one_prompt_must_fit() -> None:
    example = sized(10, 3, 8, 1, query=5)
    # Two at a time: the longest, 10 and 8, and the query take 23.
    assert fit(example, 23, words, shown=2) == (example, 0)
    cut, count = fit(example, 19, words, shown=2)
    assert (sizes(cut), count) == ([7, 3, 7, 1], 2)
    # Four tokens each for two, beside half of the room for the query: 8 of 16.
    with pytest.raises(InputError, match=r"2 of its 4 candidates do not fit into 9 tokens"):
        fit(sized(10, 9, 8, 7, query=5), 9, words, shown=2)

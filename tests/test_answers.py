from __future__ import annotations

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.answers import (
    ANSWER_FORMS,
    LONG_WORD,
    MOST_WORDS,
    QUOTE_WORDS,
    AnswerForm,
    answer_labels,
    beginning,
    continues,
    default_answer_form,
    item_type,
    normalise,
    one_line,
)
from r1ranker.types import Candidate, RankingExample, Scenario

TAGS = ("<think>", "</think>", "<answer>", "</answer>", "</Answer>", "<THINK>")
# A small alphabet meets itself often: texts repeat, differ in case or punctuation only, or begin alike.
WORDS = st.sampled_from([*TAGS, "a", "A", "b", "a.", "...", "(2)", "2", "ﬁ", "fi", "é", "电影", "\n", "\u2028", ""])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=12)


def listed(texts: list[str], names: list[str | None] | None = None, scenario: Scenario = "passage") -> RankingExample:
    names = names or [None] * len(texts)
    pairs = zip(texts, names, strict=True)
    return RankingExample("e", scenario, tuple(Candidate(f"id{k}", t, n) for k, (t, n) in enumerate(pairs)))


@given(
    st.lists(st.tuples(TEXTS, st.none() | TEXTS), min_size=1, max_size=8),
    st.sampled_from(ANSWER_FORMS),
    st.integers(1, 3),
)
@case([("same", None)] * 3 + [("same (2)", None), ("same 3", None)], "name", 8)
@case([("...", None), ("!!!", None), ("", None), ("<think>", None)], "name", 8)
@case([("a b c d", None), ("a b c d", None), ("a b c", None), ("A B", None)], "quote", 1)
def test_labels_are_unique_single_lines_without_tags(
    pairs: list[tuple[str, str | None]], form: AnswerForm, words: int
) -> None:
    labels = answer_labels(listed([t for t, _ in pairs], [n for _, n in pairs]), form, words)
    assert len(labels) == len(pairs)
    assert len({normalise(label) for label in labels}) == len(pairs)
    for label in labels:
        assert label == one_line(label) != ""
        assert not any(tag.lower() in label.lower() for tag in TAGS)


@pytest.mark.parametrize("form", ANSWER_FORMS)
def test_ids_that_hold_tags_or_nothing_make_clean_labels_too(form: AnswerForm) -> None:
    candidates = (Candidate("", ""), Candidate("</answer>", "<think>"), Candidate("x\ny", "\n"))
    labels = answer_labels(RankingExample("e", "passage", candidates), form)
    assert len({normalise(label) for label in labels}) == 3
    assert all(label == one_line(label) != "" for label in labels)


def test_the_form_id_counts_from_one() -> None:
    assert answer_labels(listed(["x", "y", "x"]), "id") == ("passage 1", "passage 2", "passage 3")


def test_the_form_name_takes_the_name_then_the_text_then_the_id() -> None:
    example = listed(["a long description", "Toy  Story\n(1995)", ""], ["GPT", None, None], "routing")
    assert answer_labels(example, "name") == ("GPT", "Toy Story (1995)", "id2")


def test_alike_names_are_numbered_and_a_number_that_is_taken_is_passed_over() -> None:
    assert answer_labels(listed(["Heat", "heat!", "Heat (2)", "Alien"]), "name") == (
        "Heat",
        "heat! (3)",
        "Heat (2)",
        "Alien",
    )


def test_quotes_are_the_first_words() -> None:
    example = listed(["one two three four five six seven eight nine ten", "short text", "other words here"])
    assert answer_labels(example, "quote") == (
        "one two three four five six seven eight",
        "short text",
        "other words here",
    )
    assert answer_labels(example, "quote", 2) == ("one two", "short text", "other words")


def test_quotes_that_begin_alike_grow_until_they_differ_and_the_others_stay_short() -> None:
    texts = ["the cat sat on a mat today", "The cat, sat on a chair today", "the dog barked at night"]
    assert answer_labels(listed(texts), "quote", 2) == ("the cat sat on a mat", "The cat, sat on a chair", "the dog")


def test_a_quote_that_is_another_texts_beginning_stays_and_equal_texts_are_numbered() -> None:
    texts = ["a b", "a b c d e", "same text here", "same text here"]
    assert answer_labels(listed(texts), "quote", 2) == ("a b", "a b c d", "same text here", "same text here (2)")


def test_labels_grow_no_longer_than_they_can_be_scored() -> None:
    words = [f"w{k}" for k in range(100)]
    same, other = " ".join(words), " ".join([*words, "end"])
    first = " ".join(words[:MOST_WORDS])
    assert answer_labels(listed([same, other]), "quote") == (" ".join(words[:8]), f"{' '.join(words[:8])} (2)")
    assert answer_labels(listed([same, " ".join([*words[:63], "end"])]), "quote")[0] == first
    # A name of more words is quoted as well, by as few words as tell it from the others.
    long, short = " ".join(words[: MOST_WORDS + 1]), " ".join(words[:MOST_WORDS])
    assert answer_labels(listed([long, "a b c d"]), "name", 3) == ("w0 w1 w2", "a b c d")
    assert answer_labels(listed([short]), "name", 3) == (short,)
    assert answer_labels(listed(["x", "y"], [long, f"{long} z"]), "name", 3) == ("w0 w1 w2", "w0 w1 w2 (2)")


def test_where_no_spaces_stand_two_characters_are_a_word() -> None:
    assert beginning("今天天气很好，我们去公园。", 3) == "今天天气很好"
    assert beginning("GPT模型 is fine", 2) == "GPT模型"
    assert beginning("สวัสดีชาวโลก", 2) == "สวัส"
    assert answer_labels(listed(["今天天气很好，我们去公园。", "昨天下雨"]), "quote", 2) == ("今天天气", "昨天下雨")


def test_of_a_word_without_an_end_so_many_characters_are_a_word() -> None:
    data = "data:image/png;base64," + "iVBORw0KGgo" * 900
    for form in ("quote", "name"):
        label, other = answer_labels(listed([f"{data} and so on", "a town"]), form)  # type: ignore[arg-type]
        assert (len(label), other) == (QUOTE_WORDS * LONG_WORD, "a town")
        assert data.startswith(label)
        assert continues(data, label)
    assert not continues("a town of old", "a town")
    assert not continues("x" * 40 + " y", "x" * 40)
    longest = "Donaudampfschifffahrtsgesellschaft"[:LONG_WORD]
    assert beginning(f"{longest} fährt {'weiter ' * 9}", 2) == f"{longest} fährt"


def test_normalise_keeps_the_marks_that_are_part_of_a_word() -> None:
    assert normalise("दिन") != normalise("दान")
    assert normalise("दिन, दान!") == "दिन दान"
    assert normalise("İstanbul") == "i̇stanbul"
    assert normalise("e\u0301t\u00e9") == "été"
    assert normalise("Toy Story 2\ufe0f\u20e3") == "toy story 2"
    assert normalise("Love \u2764\ufe0f!") == "love"


def test_normalise_takes_case_punctuation_spacing_and_compatibility_forms_away() -> None:
    assert normalise("  The “Matrix”,  (1999)! ") == "the matrix 1999"
    assert normalise("ﬁve ＡＢＣ Straße") == "five abc strasse"
    assert normalise("?!…") == ""


def test_one_line_removes_tags_without_making_new_ones() -> None:
    assert one_line("a\n b</answer>c <THINK>\u2028d") == "a b c d"
    assert one_line("<ans<answer>wer>") == "<ans wer>"


def test_the_default_form_follows_scenario_and_size() -> None:
    assert default_answer_form("recommendation") == default_answer_form("routing", 10**6) == "name"
    assert default_answer_form("passage") == default_answer_form("passage", 10**9) == "id"
    assert default_answer_form("passage", 135_000_000) == "quote"


def test_item_type_is_the_examples_own_or_the_scenarios() -> None:
    assert item_type(listed(["x"])) == "passage"
    own = RankingExample("e", "recommendation", (Candidate("a", "A"),), item_type="movie")
    assert item_type(own) == "movie"
    assert answer_labels(own, "id") == ("movie 1",)

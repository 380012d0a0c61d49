from __future__ import annotations

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.answers import answer_labels
from r1ranker.parsing import find_label, parse_choice, parse_ranking
from r1ranker.types import Candidate, ParsedAnswer, RankingExample

MOVIES = ["Toy Story", "Toy Story 2", "The Godfather: Part II", "Heat (1995)", "Se7en"]
IDS = ["a", "b", "c", "d", "e"]
PASSAGES = [f"passage {k}" for k in range(1, 13)]
PASSAGE_IDS = [f"p{k}" for k in range(1, 13)]


def reply(answer: str) -> str:
    return f"<think>Because.</think><answer>{answer}</answer>"


def choose(text: str, labels: list[str] = MOVIES, *, thinking: bool = True) -> ParsedAnswer:
    ids = IDS if labels is MOVIES else [f"p{k}" for k in range(1, len(labels) + 1)]
    return parse_choice(text, labels, ids, thinking=thinking)


@pytest.mark.parametrize(("label", "id_"), list(zip(MOVIES, IDS, strict=True)))
def test_the_label_itself_is_exact(label: str, id_: str) -> None:
    assert choose(reply(label)) == ParsedAnswer("exact", (id_,), "Because.", 0, True)
    assert choose(reply(f"\n {label}  ")).status == "exact"


@pytest.mark.parametrize(
    ("answer", "id_"),
    [
        ("toy story", "a"),
        ("TOY  STORY 2.", "b"),
        ('"Heat (1995)"', "d"),
        ("heat 1995", "d"),
        ("The Godfather - Part II", "c"),
        ("I would exclude Se7en here", "e"),
        ("Toy Story 2, as it is a sequel", "b"),
        ("The Godfather", "c"),
        ("Heat", "d"),
        ("ＳＥ７ＥＮ", "e"),
    ],
)
def test_case_punctuation_parts_and_words_around_are_repaired(answer: str, id_: str) -> None:
    assert choose(reply(answer)) == ParsedAnswer("repaired", (id_,), "Because.", 0, True)


@pytest.mark.parametrize(
    "answer",
    [
        "Alien",
        "Story",  # a part of two
        "Toy",  # too short, and a part of two
        "1995x",
        "Toy Story 3 or so, or Heat (1995) or Se7en",  # several
        "Toy Story 2 rather than Toy Story",  # both, though the one contains the other
        "none of them",
        "II",  # a part of one alone, but too short to say so
        "???",
        "7",
    ],
)
def test_what_names_none_or_several_is_defaulted(answer: str) -> None:
    assert choose(reply(answer)) == ParsedAnswer("defaulted", (), "Because.", 0, True)


def test_a_number_is_never_mistaken_for_a_longer_one() -> None:
    assert choose(reply("passage 1"), PASSAGES).ids == ("p1",)
    assert choose(reply("passage 12"), PASSAGES).ids == ("p12",)
    assert choose(reply("Passage 12."), PASSAGES) == ParsedAnswer("repaired", ("p12",), "Because.", 0, True)
    assert choose(reply("it is passage 1"), PASSAGES).ids == ("p1",)
    assert choose(reply("passage 13"), PASSAGES).status == "defaulted"
    assert choose(reply("passage"), PASSAGES).status == "defaulted"
    assert choose(reply("passage 1 or passage 12"), PASSAGES).status == "defaulted"
    # Only 12 is left: an answer "passage 1" is no candidate of this turn.
    left = parse_choice(reply("passage 1"), ["passage 12", "passage 3"], ["p12", "p3"], thinking=True)
    assert (left.status, left.ids) == ("defaulted", ())


def test_labels_that_overlap_in_part_are_several() -> None:
    assert find_label("red green blue", ["red green", "green blue"]) is None
    assert find_label("a red green one", ["red green", "green blue"]) == (0, False)


def test_a_label_is_found_without_the_number_that_tells_it_from_another() -> None:
    candidates = tuple(Candidate(name, name) for name in ("C", "C++", "C#"))
    labels = answer_labels(RankingExample("e", "recommendation", candidates), "name")
    assert labels == ("C", "C++ (2)", "C# (3)")
    assert [find_label(text, labels) for text in ("C", "C++", "C#", "c")] == [
        (0, True),
        (1, False),
        (2, False),
        (0, False),
    ]
    assert find_label("दान", ["दिन", "दान"]) == (1, True)
    assert find_label("दान।", ["दिन", "दान"]) == (1, False)
    # A number of the name's own tells nothing.
    assert find_label("Heat", ["Heat (1995)", "Heat (1986)"]) is None
    assert find_label("Heat!", ["Heat", "Heat! (2)", "Heat! (3)"]) == (0, False)


def test_without_spaces_a_label_may_end_anywhere() -> None:
    text = "今天天气很好我们一起去公园散步吧顺便买点东西回家"
    candidates = (Candidate("a", text), Candidate("b", "昨天下雨了所以我们在家里看了一整天的电影"))
    labels = answer_labels(RankingExample("e", "passage", candidates, query="q"), "quote")
    assert labels[0] == text[:16]
    for reply, exact in ((text, False), (text[:17], False), (text[:10], False), (text[:16], True)):
        assert find_label(reply, labels) == (0, exact)
    assert find_label("今天", labels) is None  # too short to stand for it
    assert find_label("passage 12", ["passage 1"]) is None


def test_labels_of_punctuation_alone_are_found_letter_for_letter_only() -> None:
    assert find_label("!!!", ["!!!", "??? (2)"]) == (0, True)
    assert find_label("...", ["!!!", "??? (2)"]) is None
    assert find_label("some words", ["!!!", "Heat"]) is None


@pytest.mark.parametrize(
    ("text", "status", "ids", "wrong_tags", "well_formed"),
    [
        ("<think>x</think>\n<answer>Se7en</answer>\n", "exact", ("e",), 0, True),
        # A tag is missing.
        ("<think>x</think><answer>Se7en", "repaired", ("e",), 1, False),
        ("<think>x</think> Se7en", "repaired", ("e",), 2, False),
        ("<think>x</think> Se7en</answer>", "repaired", ("e",), 1, False),
        ("<think>x<answer>Se7en</answer>", "exact", ("e",), 1, False),
        ("<answer>Se7en</answer>", "exact", ("e",), 2, False),
        # No answer.
        ("<think>x", "failed", (), 3, False),
        ("Se7en", "failed", (), 4, False),
        ("", "failed", (), 4, False),
        ("<think>Se7en</think>", "failed", (), 2, False),
        ("<think>Se7en</think><answer></answer>", "failed", (), 0, True),
        ("<think>Se7en</think><answer> \n </answer>", "failed", (), 0, True),
        # Repeated tags: the last answer counts.
        ("<think>x</think><answer>Heat (1995)</answer><answer>Se7en</answer>", "exact", ("e",), 2, False),
        ("<think>x</think><think>y</think><answer>Se7en</answer>", "exact", ("e",), 2, False),
        # Text around.
        ("Sure: <think>x</think><answer>Se7en</answer>", "exact", ("e",), 0, False),
        ("<think>x</think>So:<answer>Se7en</answer>", "exact", ("e",), 0, False),
        ("<think>x</think><answer>Se7en</answer> Enjoy!", "exact", ("e",), 0, False),
        # All four tags, in a wrong order.
        ("<answer>Se7en</answer><think>x</think>", "exact", ("e",), 0, False),
    ],
)
def test_layouts(text: str, status: str, ids: tuple[str, ...], wrong_tags: int, well_formed: bool) -> None:
    parsed = choose(text)
    assert (parsed.status, parsed.ids, parsed.wrong_tags, parsed.well_formed) == (status, ids, wrong_tags, well_formed)


def test_without_thinking_only_the_answers_tags_are_asked_for() -> None:
    assert choose("<answer>Se7en</answer>", thinking=False) == ParsedAnswer("exact", ("e",), "", 0, True)
    assert choose("<answer>Se7en", thinking=False) == ParsedAnswer("repaired", ("e",), "", 1, False)
    assert choose("Se7en", thinking=False) == ParsedAnswer("failed", (), "", 2, False)


def test_the_thought_is_what_stands_between_its_tags() -> None:
    assert choose("<think>\n one\ntwo </think><answer>Se7en</answer>").thought == "one\ntwo"
    assert choose("<think>open end <answer>Se7en</answer>").thought == "open end"
    assert choose("<think>never closed").thought == "never closed"
    assert choose("<answer>Se7en</answer>").thought == ""


def rank(answer: str, labels: list[str] = MOVIES) -> ParsedAnswer:
    return parse_ranking(reply(answer), labels, IDS[: len(labels)], thinking=True)


@pytest.mark.parametrize(
    ("answer", "status"),
    [("Se7en\nToy Story", "exact"), ("Se7en", "repaired"), ("Se7en\nToy Story\nHeat (1995)", "repaired")],
)
def test_so_many_as_are_asked_for_are_exact(answer: str, status: str) -> None:
    assert parse_ranking(reply(answer), MOVIES, IDS[: len(MOVIES)], thinking=True, count=2).status == status


def test_every_label_once_a_line_is_exact() -> None:
    assert rank("\n".join(reversed(MOVIES))) == ParsedAnswer("exact", tuple(reversed(IDS)), "Because.", 0, True)
    assert rank("\n  Se7en\n\nToy Story 2 \nToy Story\nHeat (1995)\nThe Godfather: Part II\n").status == "exact"


@pytest.mark.parametrize(
    ("answer", "ids"),
    [
        ("1. Se7en\n2. Toy Story 2\n3. Toy Story\n4. Heat (1995)\n5. The Godfather: Part II", "ebadc"),
        ("- Se7en\n* Toy Story 2\n• Toy Story\n(4) Heat (1995)\n[5] The Godfather: Part II", "ebadc"),
        ("Se7en > Heat (1995) > Toy Story", "eda"),
        ("Toy Story 2 > Toy Story > Se7en", "bae"),
        ("Toy Story > Toy Story 2 > Se7en", "abe"),
        ("Toy Story 2 > Toy Story", "ba"),
        ("Toy Story > Toy Story 2", "ab"),
        ("Toy Story 2 > Se7en > Toy Story 2", "be"),  # named twice is not two movies
        ("Se7en, Heat (1995), Toy Story 2, The Godfather: Part II, Toy Story", "edbca"),
        ("se7en\nheat 1995", "ed"),
        ("1. The Godfather\n2. Heat", "cd"),  # parts of labels behind a mark
        ("Se7en\nHeat (1995)\nSe7en\nToy Story", "eda"),  # a duplicate counts where it first stands
        ("Alien\nSe7en\nAliens 3\nHeat (1995)", "ed"),  # lines that name no candidate
        ("Se7en", "e"),
        ("Here is my ranking:\nSe7en\nToy Story 2\nToy Story\nHeat (1995)\nThe Godfather: Part II", "ebadc"),
    ],
)
def test_lists_that_had_to_be_completed_are_repaired(answer: str, ids: str) -> None:
    assert rank(answer) == ParsedAnswer("repaired", tuple(ids), "Because.", 0, True)


def test_a_list_without_its_closing_tag_is_repaired() -> None:
    text = "<think>x</think><answer>" + "\n".join(MOVIES)
    parsed = parse_ranking(text, MOVIES, IDS, thinking=True)
    assert (parsed.status, parsed.ids, parsed.wrong_tags) == ("repaired", tuple(IDS), 1)


def test_as_many_lines_as_labels_but_one_twice_is_no_exact_list() -> None:
    parsed = rank("Toy Story\nToy Story\nHeat (1995)\nSe7en\nToy Story 2")
    assert (parsed.status, parsed.ids) == ("repaired", ("a", "d", "e", "b"))


def test_lists_that_name_nothing() -> None:
    assert rank("Alien\nFargo") == ParsedAnswer("defaulted", (), "Because.", 0, True)
    assert rank("  \n") == ParsedAnswer("failed", (), "Because.", 0, True)
    assert parse_ranking("Toy Story", MOVIES, IDS, thinking=True).status == "failed"


def test_numbers_of_passages_in_a_row() -> None:
    parsed = parse_ranking(reply("passage 12 > passage 1 > passage 2"), PASSAGES, PASSAGE_IDS, thinking=True)
    assert parsed.ids == ("p12", "p1", "p2")


FRAGMENTS = st.sampled_from(
    [
        *MOVIES,
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "\n",
        " > ",
        ", ",
        "1. ",
        "toy",
        "story 2",
        "x",
        "(",
        "\0",
    ]
)
REPLIES = st.lists(FRAGMENTS | st.text(max_size=5), max_size=15).map("".join) | st.text(max_size=60)


@given(REPLIES, st.booleans())
def test_any_text_parses_to_distinct_candidates(text: str, thinking: bool) -> None:
    for parse, most in ((parse_choice, 1), (parse_ranking, len(IDS))):
        parsed = parse(text, MOVIES, IDS, thinking=thinking)
        assert len(set(parsed.ids)) == len(parsed.ids) <= most
        assert set(parsed.ids) <= set(IDS)
        assert bool(parsed.ids) == (parsed.status in ("exact", "repaired"))
        assert 0 <= parsed.wrong_tags <= (4 if thinking else 2)
        assert not (parsed.well_formed and parsed.wrong_tags)


LABEL_TEXTS = st.text(max_size=10) | st.sampled_from(["<answer", "</answer", "answer>", "a", "a.", "A", "<", "...", ""])


@given(
    st.lists(LABEL_TEXTS, min_size=1, max_size=5),
    st.sampled_from(["id", "name", "quote"]),
    st.text(max_size=20).filter(lambda t: "<" not in t),
    st.randoms(use_true_random=False),
    st.booleans(),
)
@case(["</answer", "<answer"], "name", "", None, True)
def test_a_well_formed_answer_with_any_label_is_exact(
    texts: list[str], form: str, thought: str, random: object, thinking: bool
) -> None:
    example = RankingExample("e", "passage", tuple(Candidate(f"c{k}", t) for k, t in enumerate(texts)))
    labels = answer_labels(example, form)  # type: ignore[arg-type]
    before = f"<think>{thought}</think>\n" if thinking else ""
    for label, id_ in zip(labels, example.ids, strict=True):
        parsed = parse_choice(f"{before}<answer>{label}</answer>", labels, example.ids, thinking=thinking)
        assert parsed == ParsedAnswer("exact", (id_,), thought.strip() if thinking else "", 0, True)
    order = list(range(len(texts)))
    if random is not None:
        random.shuffle(order)  # type: ignore[attr-defined]
    answer = "\n".join(labels[k] for k in order)
    ranked = parse_ranking(f"{before}<answer>{answer}</answer>", labels, example.ids, thinking=thinking)
    assert (ranked.status, ranked.ids) == ("exact", tuple(example.ids[k] for k in order))


def test_a_long_label_covers_the_short_one_wherever_it_stands() -> None:
    parsed = parse_choice(reply("a " * 5000), ["a", "a a", "b"], ["1", "2", "3"], thinking=True)
    assert (parsed.status, parsed.ids) == ("repaired", ("2",))

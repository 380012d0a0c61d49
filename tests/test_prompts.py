from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factories import ExampleFactory
from r1ranker.answers import ANSWER_FORMS, AnswerForm, answer_labels
from r1ranker.errors import ConfigError
from r1ranker.prompts import PromptTemplates, build_prompt
from r1ranker.types import Candidate, Prompt, RankingExample, Scenario, Thought


def build(example: RankingExample, remaining: tuple[str, ...] | None = None, **options: Any) -> Prompt:
    settings = {"ranker": "iterative", "thinking": True, "form": "name", **options}
    labels = answer_labels(example, settings["form"])
    templates = settings.pop("templates", PromptTemplates.default())
    return build_prompt(templates, example, labels, remaining or example.ids, **settings)


def listing(prompt: Prompt) -> list[str]:
    """The lines under "Candidates:", up to a blank line or the end."""
    return prompt.user.split("Candidates:\n")[1].split("\n\n")[0].split("\n")


def test_recommendation_by_hand(make_example: ExampleFactory) -> None:
    assert build(make_example(3)).user == (
        "A user chose these movies, in order:\n"
        "Rocky (1976)\n"
        "Big (1988)\n"
        "\n"
        "Which candidate is the user least likely to choose next? Reply with its name only.\n"
        "\n"
        "Candidates:\n"
        "Toy Story (1995)\n"
        "Heat (1995)\n"
        "Casablanca (1942)"
    )


def test_a_history_and_a_query_are_both_asked_for(tmp_path: Path, make_example: ExampleFactory) -> None:
    example, wanted = make_example(2), "a film\nfor children"
    plain, both = build(example).user, build(replace(example, query=wanted)).user
    assert both == plain.replace("Big (1988)\n", "Big (1988)\n\nThe user now asks for: a film for children\n") != plain
    alone = build(replace(example, query=wanted, history=())).user
    assert alone.startswith("A user asks for: a film for children\n\nWhich candidate is the user least likely to")
    # A user's wording that names the query itself needs no other place for it.
    templates = PromptTemplates.load(write(tmp_path, '[recommendation]\ncontext = "$history, then $query"\n'))
    text = build(replace(example, query=wanted), templates=templates).user
    assert text.startswith("Rocky (1976)\nBig (1988), then a film for children\n\nWhich")
    text = build(replace(example, query=wanted, history=()), templates=templates).user
    assert text.startswith(", then a film for children\n\nWhich")


def test_an_earlier_rankings_order_is_told_after_the_question(make_example: ExampleFactory) -> None:
    told = "An earlier ranking lists the most promising first."
    asked = "Which candidate is the user least likely to choose next?"
    given, sorted_before = build(make_example(3)).user, build(make_example(3, presorted=True)).user
    assert sorted_before == given.replace(asked, f"{asked} {told}") != given
    assert build(make_example(3, presorted=True), ranker="direct").user.count(told) == 1


@pytest.mark.parametrize(
    ("scenario", "form", "asked"),
    [
        (
            "recommendation",
            "name",
            "Which 3 candidates is the user least likely to choose next? "
            "Reply with their 3 names only, one a line, the worst first.",
        ),
        (
            "routing",
            "quote",
            "Which 3 candidates are the least suitable? "
            "Reply with the first words of each of the 3, one a line, the worst first.",
        ),
        (
            "passage",
            "id",
            "Which 3 passages are the least helpful to answer the query? "
            'Reply with their 3 labels only, such as "passage 2", one a line, the worst first.',
        ),
    ],
)
def test_several_are_asked_for(scenario: Scenario, form: AnswerForm, asked: str, make_example: ExampleFactory) -> None:
    example = make_example(5, scenario=scenario)
    prompt = build(example, form=form, count=3)
    assert f"\n\n{asked}\n\nCandidates:\n" in prompt.user
    assert listing(prompt) == listing(build(example, form=form))


def test_routing_lists_name_and_description(make_example: ExampleFactory) -> None:
    prompt = build(make_example(2, scenario="routing"))
    assert listing(prompt) == [
        "Qwen2 7B: Qwen2 7B costs 1 cents a call.",
        "Mistral 7B: Mistral 7B costs 2 cents a call.",
    ]
    assert "Query: What is the capital of Italy?" in prompt.user


def test_routing_says_how_the_query_is_to_be_answered(tmp_path: Path, make_example: ExampleFactory) -> None:
    plain, told = (build(make_example(2, scenario="routing", goal=goal)).user for goal in ("", "well,\nat any $cost"))
    assert plain.startswith("One LLM is to answer this query, well and at a low cost.\nQuery: What is the capital")
    assert told == plain.replace("well and at a low cost", "well, at any $cost") != plain
    mine = PromptTemplates.load(write(tmp_path, '[routing]\ncontext = "Be quick: $query"\ngoal = "fast"\n'))
    assert build(make_example(2, scenario="routing"), templates=mine).user.startswith("Be quick: What is the capital")
    with pytest.raises(ConfigError, match=r"example 'e1' has a goal, and the wording \[routing\] context no place for"):
        build(make_example(2, scenario="routing", goal="well"), templates=mine)
    mine = PromptTemplates.load(write(tmp_path, '[routing]\ncontext = "Be ${goal}: $query"\ngoal = "fast"\n'))
    for goal, said in (("", "Be fast: What"), (" \n", "Be fast: What"), ("cheap", "Be cheap: What")):
        assert build(make_example(2, scenario="routing", goal=goal), templates=mine).user.startswith(said)


def test_passages_by_id_and_by_quote(make_example: ExampleFactory) -> None:
    example = make_example(3, scenario="passage")
    by_id, by_quote = build(example, form="id"), build(example, form="quote")
    assert listing(by_id)[2] == "passage 3: A whale is a mammal and breathes air."
    assert '? Reply with its label only, such as "passage 2".\n\nCandidates:\n' in by_id.user
    assert listing(by_quote) == [c.text for c in example.candidates]
    assert "? Reply with its first words only.\n\nCandidates:\n" in by_quote.user


def test_a_long_text_that_is_its_own_name_stands_once() -> None:
    text = " ".join(f"w{k}" for k in range(100))
    other = f"{text} end"
    candidates = (Candidate("a", text), Candidate("b", text, "B"), Candidate("c", "C", "C"), Candidate("d", "D"))
    example = RankingExample("e", "recommendation", candidates, history=("x",))
    assert listing(build(example)) == [text, f"B: {text}", "C", "D"]
    alike = (Candidate("a", other, other), Candidate("b", text), Candidate("c", text))
    lines = listing(build(replace(example, candidates=alike)))
    rest = text.removeprefix("w0 w1 w2 w3 w4 w5 w6 w7 ")
    # What they begin with, the label, stands once in each.
    assert lines == [other, f"w0 w1 w2 w3 w4 w5 w6 w7 (2): {rest}", f"w0 w1 w2 w3 w4 w5 w6 w7 (3): {rest}"]


def test_a_quote_that_had_to_be_numbered_stands_before_its_text() -> None:
    example = RankingExample("e", "passage", (Candidate("a", "same words"), Candidate("b", "same words")), "q")
    assert listing(build(example, form="quote")) == ["same words", "same words (2): same words"]


def test_by_id_a_text_that_is_also_the_name_is_still_shown() -> None:
    example = RankingExample("e", "recommendation", (Candidate("a", "Heat", "Heat"), Candidate("b", "Jaws", "Jaws")))
    assert listing(build(example, form="id")) == ["item 1: Heat", "item 2: Jaws"]
    assert listing(build(example, form="name")) == ["Heat", "Jaws"]


@pytest.mark.parametrize("scenario", ["recommendation", "routing", "passage"])
@pytest.mark.parametrize("form", ANSWER_FORMS)
@pytest.mark.parametrize("ranker", ["iterative", "direct"])
@pytest.mark.parametrize("thinking", [True, False])
def test_every_wording_is_whole(
    make_example: ExampleFactory, scenario: Scenario, form: AnswerForm, ranker: str, thinking: bool
) -> None:
    example = make_example(4, scenario=scenario)
    prompt = build(example, form=form, ranker=ranker, thinking=thinking)
    assert "$" not in prompt.system + prompt.user
    assert "\n\n\n" not in prompt.user
    assert prompt.user == prompt.user.strip()
    assert len(listing(prompt)) == 4
    for label in answer_labels(example, form):
        assert label in prompt.user
    assert prompt.prefill == ("<think>" if thinking else "<answer>")
    assert ("<think>" in prompt.system) == thinking
    assert ("Rank all" in prompt.user or "Which candidate will" in prompt.user) == (ranker == "direct")
    if ranker == "direct":
        assert " 4" in prompt.user.split("\n\nCandidates:")[0].rsplit("Reply", 1)[1]


def test_rebuild_lists_only_what_is_left_in_the_examples_order(make_example: ExampleFactory) -> None:
    example = make_example(4, scenario="passage")
    prompt = build(example, ("c4", "c2"), form="id")
    # Labels are those of the whole example: passage 2 stays passage 2.
    assert [line.split(":")[0] for line in listing(prompt)] == ["passage 2", "passage 4"]
    assert "xcluded" not in prompt.user


def test_append_keeps_the_list_whole_and_names_what_is_excluded(make_example: ExampleFactory) -> None:
    example = make_example(4)
    prompts = [
        build(example, left, layout="append") for left in (("c1", "c2", "c3", "c4"), ("c1", "c2", "c4"), ("c1", "c4"))
    ]
    whole = prompts[0].user
    assert whole.endswith("\n\nCandidates:\nToy Story (1995)\nHeat (1995)\nCasablanca (1942)\nAlien (1979)")
    assert "xcluded" not in whole
    assert prompts[1].user == whole + "\n\nAlready excluded:\nCasablanca (1942)\n"
    assert prompts[2].user == whole + "\n\nAlready excluded:\nHeat (1995)\nCasablanca (1942)\n"
    assert len({p.system for p in prompts}) == 1


def test_append_names_them_in_the_order_of_exclusion_so_that_a_prompt_only_grows(make_example: ExampleFactory) -> None:
    example = make_example(4)
    turns = [("c3",), ("c3", "c1"), ("c3", "c1", "c4")]
    texts = [
        build(example, tuple(i for i in example.ids if i not in gone), layout="append", excluded=gone).user
        for gone in turns
    ]
    assert texts[2].endswith("\n\nAlready excluded:\nCasablanca (1942)\nToy Story (1995)\nAlien (1979)\n")
    assert texts[1].startswith(texts[0])
    assert texts[2].startswith(texts[1])
    # What is not in the prompt at all does not matter.
    one, other = (build(example, ("c1", "c2"), excluded=gone) for gone in (("c3", "c4"), ("c4", "c3")))
    assert one == other


@pytest.mark.parametrize("form", ANSWER_FORMS)
@pytest.mark.parametrize("scenario", ["recommendation", "routing", "passage"])
def test_rebuild_changes_nothing_before_the_first_candidate_that_is_gone(
    make_example: ExampleFactory, scenario: Scenario, form: AnswerForm
) -> None:
    example = make_example(4, scenario=scenario)
    before, after = (build(example, left, form=form).user for left in (example.ids, ("c1", "c2", "c4")))
    lines, fewer = before.split("\n"), after.split("\n")
    gone = lines.pop(-2)
    assert example.candidates[2].text in gone
    assert fewer == lines


def test_layouts_agree_while_nothing_is_excluded(make_example: ExampleFactory) -> None:
    assert build(make_example(3), layout="append") == build(make_example(3), layout="rebuild")


NASTY = "costs $5 ${query} $$ {item} %s $candidates"


@pytest.mark.parametrize("form", ANSWER_FORMS)
def test_users_texts_are_never_expanded(form: AnswerForm) -> None:
    candidates = (Candidate("a", f"{NASTY} A"), Candidate("b", f"{NASTY} B", f"{NASTY} name"))
    for scenario in ("recommendation", "passage", "routing"):
        history = (f"{NASTY} H",) if scenario == "recommendation" else ()
        example = RankingExample("e", scenario, candidates, query=f"{NASTY} Q", history=history, item_type=NASTY)
        text = build(example, ("a",), form=form, layout="append").user
        assert f"{NASTY} A" in text
        assert f"{NASTY} B" in text
        assert f"{NASTY} Q" in text
        assert all(f"{item}\n" in text for item in history)


def test_tags_and_line_breaks_in_texts_do_not_reach_the_prompt() -> None:
    candidates = (Candidate("a", "one</answer>\n\nCandidates:\ntwo"), Candidate("b", "<think>three"))
    example = RankingExample("e", "passage", candidates, query="why\n<answer>?", item_type="")
    prompt = build(example, form="id")
    assert listing(prompt) == ["passage 1: one Candidates: two", "passage 2: three"]
    assert "Query: why ?" in prompt.user
    assert not any(tag in prompt.user for tag in ("<think>", "</think>", "<answer>", "</answer>"))


def write(path: Path, text: str) -> Path:
    file = path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_users_wording_replaces_only_its_keys(tmp_path: Path, make_example: ExampleFactory) -> None:
    templates = PromptTemplates.load(
        write(tmp_path, '[recommendation]\niterative = "Drop one $item for \\u20ac/$$3."\n')
    )
    changed, default = build(make_example(2), templates=templates), build(make_example(2))
    question = "Which candidate is the user least likely to choose next?"
    assert default.user.count(question) == 1
    assert changed.user == default.user.replace(question, "Drop one movie for €/$3.")
    assert build(make_example(2), templates=templates, ranker="direct") == build(make_example(2), ranker="direct")
    # The default is not changed by what a user loads.
    assert build(make_example(2)) == default


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[recommendations]\nx = 1\n", r"mine\.toml: there is no section \[recommendations\]; there are system, turn"),
        ("turn = 3\n", r"no section \[turn\]"),
        ('[turn]\nusers = "x"\n', r"\[turn\] has no key 'users'; it has user, excluded"),
        ("[turn\n", "cannot be read as TOML"),
    ],
)
def test_a_wrong_wording_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PromptTemplates.load(write(tmp_path, text))


def test_a_wording_file_that_is_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        PromptTemplates.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes\.toml"):
        PromptTemplates.load(tmp_path / "bytes.toml")


@pytest.mark.parametrize("text", ["Drop $itme now", "Drop 5$ now", "Drop ${item now"])
def test_a_placeholder_that_does_not_exist_is_a_config_error(
    tmp_path: Path, make_example: ExampleFactory, text: str
) -> None:
    templates = PromptTemplates.load(write(tmp_path, f'[recommendation]\niterative = "{text}"\n'))
    with pytest.raises(ConfigError, match=r"\[recommendation\] iterative"):
        build(make_example(2), templates=templates)


def a_thought(context: str = "c", text: str = "t", excluded: str = "x") -> Thought:
    return Thought("other", "passage", context, text, excluded, 1.0, "m")


def test_thoughts_are_cut_at_a_words_end(make_example: ExampleFactory) -> None:
    words = " ".join(["four"] * 400)  # five bytes a word
    text = build(make_example(2), thoughts=[a_thought(words, words, words)]).user
    lengths = {name: len(text.split(f"{name}: ")[1].split("\n")[0]) for name in ("Case", "Thought", "Excluded")}
    # With "…", which takes three bytes: 59, 119 and 19 words.
    assert lengths == {"Case": 59 * 5, "Thought": 119 * 5, "Excluded": 19 * 5}
    fits = "x" * 600
    assert f"Thought: {fits}\n" in build(make_example(2), thoughts=[a_thought(text=fits)]).user


def test_tags_and_placeholders_in_thoughts_do_not_reach_the_prompt(make_example: ExampleFactory) -> None:
    nasty = f"{NASTY}</think>\n<answer>"
    text = build(make_example(2), thoughts=[a_thought(nasty, nasty, nasty)]).user
    assert text.count(f": {NASTY}\n") == 3
    assert not any(tag in text for tag in ("</think>", "<answer>"))


def test_the_wording_around_thoughts_is_a_users_too(tmp_path: Path, make_example: ExampleFactory) -> None:
    wording = '[turn]\nthoughts = "Of ${item}s: $thoughts."\nthought = "$thought!"\n'
    templates = PromptTemplates.load(write(tmp_path, wording))
    prompt = build(make_example(2), templates=templates, thoughts=[a_thought(text="a"), a_thought(text="b")])
    assert prompt.user == "Of movies: b!\n\na!.\n\n" + build(make_example(2)).user

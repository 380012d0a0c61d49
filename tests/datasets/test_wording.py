"""The wording that prompts share, learned and read back. (None of it is the released one.)"""

from __future__ import annotations

import pytest

from r1ranker.datasets.wording import Problem, Wording, learn_wording

TITLES = ("It's a Dog's Life", "M", "'71", "Who's 7. Next?", "A, 'B', C")


def rec(history: list[str], numbered: dict[int, str], *, start: str = "Seen so far:\n") -> tuple[str, list[str]]:
    seen = ", ".join(f"'{n}. {title}'" for n, title in enumerate(history))
    open_ = ", ".join(f"'{n}. {title}'" for n, title in numbered.items())
    return f"{start}[{seen}]\nLeft are:\n[{open_}]\nDrop one of ['them'].", list(numbered.values())


def passage(query: str, passages: dict[int, str]) -> tuple[str, list[str]]:
    lines = "\n".join(f"passage {n}: {text}" for n, text in passages.items())
    return f"Asked: {query} / found:\n{lines}\n\nName one, such as passage 3: no more.", list(passages.values())


def router(query: str, llms: list[str]) -> tuple[str, list[str]]:
    return f"# a 1: small\n# b's: large\nTask: {query} Choose from {llms}. One name.", llms


def read_back(wording: Wording | None, prompt: tuple[str, list[str]]) -> Problem:
    assert wording is not None
    problem = wording.parse(*prompt)
    assert problem is not None
    assert wording.render(problem) == prompt[0]
    return problem


def test_titles_with_quotes_and_numbers_are_read_back() -> None:
    whole = rec(list(TITLES), {4: "Don't", 0: "7. Heaven", 19: "B', '3. C"})
    wording = learn_wording("recommendation", [whole])  # a history is told from the wording by its numbers
    assert wording == Wording("recommendation", "Seen so far:\n", "\nLeft are:\n", "\nDrop one of ['them'].")
    problem = read_back(wording, whole)
    assert problem.history == TITLES
    assert (problem.labels, problem.texts) == (("4", "0", "19"), ("Don't", "7. Heaven", "B', '3. C"))


def test_a_history_that_holds_the_same_list_is_not_taken_for_the_candidates() -> None:
    prompt = rec(["a", "b"], {0: "a", 1: "b"})
    problem = read_back(learn_wording("recommendation", [prompt]), prompt)
    assert (problem.history, problem.labels) == (("a", "b"), ("0", "1"))


def test_a_query_is_what_differs() -> None:
    prompts = [
        passage(query, {3: "one: two", 0: "passage 9: a text that looks like a label", 1: ""})
        for query in ("what is / found?", "what was that?", "which one?")
    ]
    wording = learn_wording("passage", prompts)
    # All begin with "wh" and end in "?": that is the queries' own.
    assert wording == Wording("passage", "Asked: ", " / found:\n", "\n\nName one, such as passage 3: no more.")
    problem = read_back(wording, prompts[0])
    assert (problem.query, problem.labels) == ("what is / found?", ("passage 3", "passage 0", "passage 1"))
    assert problem.texts == ("one: two", "passage 9: a text that looks like a label", "")


def test_llms_are_a_python_list() -> None:
    prompts = [router(q, ["b's", "a 1"]) for q in ("Sum [1, 2]", "Translate", "Choose from ['b']")]
    wording = learn_wording("routing", prompts)
    assert wording == Wording("routing", "# a 1: small\n# b's: large\nTask: ", " Choose from ", ". One name.")
    assert read_back(wording, prompts[2]) == Problem(("b's", "a 1"), ("b's", "a 1"), query="Choose from ['b']")


def test_a_few_odd_prompts_do_not_spoil_the_wording() -> None:
    good = [passage(f"{word} {n}", {0: "a", 1: "b"}) for n, word in enumerate("kbfghjlmn")]
    odd = ("Else: x / found:\npassage 0: a\npassage 1: b\n\nName two.", ["a", "b"])
    missing = ("Asked: y / found:\npassage 0: a", ["a", "b"])
    wording = learn_wording("passage", [*good, good[0], odd, missing])
    assert wording == learn_wording("passage", good)
    assert wording is not None
    assert [wording.parse(*p) is None for p in (good[8], odd, missing)] == [False, True, True]


@pytest.mark.parametrize("scenario", ["passage", "routing", "recommendation"])
def test_wording_cannot_be_told_from_a_single_query(scenario: str) -> None:
    one = passage("a", {0: "x"}) if scenario == "passage" else router("a", ["x"])
    assert learn_wording(scenario, [one, one]) is None  # type: ignore[arg-type]
    assert learn_wording(scenario, [("nothing here", ["x"])]) is None  # type: ignore[arg-type]
    assert learn_wording(scenario, []) is None  # type: ignore[arg-type]


def test_what_does_not_render_to_itself_is_not_read() -> None:
    wording = learn_wording("recommendation", [rec(["a"], {0: "b"})])
    assert wording is not None
    text, titles = rec(["a"], {0: "b"})
    assert wording.parse(text.replace("'0. a'", "'1. a'"), titles) is None
    assert wording.parse(text + " ", titles) is None
    assert wording.parse("Seen so far:\n\nLeft are:\n['0. b']\nDrop one of ['them'].", titles) is None

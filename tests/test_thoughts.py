from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from factories import ExampleFactory, example
from r1ranker.errors import InputError, MissingExtraError
from r1ranker.llm.base import ScriptedLLM
from r1ranker.prompted import INSTRUCTIONS
from r1ranker.prompts import THOUGHT_TOKENS
from r1ranker.rankers import FirstStep, IRanker
from r1ranker.rollout import rank_all
from r1ranker.thoughts import Recorded, ThoughtBank, context_of, record
from r1ranker.types import RankingExample, Thought


def reply(thought: str, title: str) -> str:
    return f"{thought}</think><answer>{title}</answer>"


def recorded(examples: Sequence[RankingExample], script: Sequence[str], **options: Any) -> Recorded:
    ranker = IRanker(answer_form="name")
    traces = [rank_all(ranker, [one], ScriptedLLM(script))[0] for one in examples]
    return record(zip(examples, traces, strict=True), "tiny", **options)


def kept(of: Recorded) -> list[str]:
    return [thought.thought for thought in of.bank.thoughts]


# Four films, of which Toy Story is the one chosen next.
RIGHT = [reply("no thriller", "Heat (1995)"), reply("too old", "Casablanca (1942)"), reply("no horror", "Alien (1979)")]


def test_a_right_exclusion_is_kept_with_all_that_is_known_of_it() -> None:
    made = recorded([example(2)], RIGHT[:1])
    assert made.bank.thoughts == (
        Thought("e1", "recommendation", "Rocky (1976); Big (1988)", "no thriller", "Heat (1995)", 1.0, "tiny"),
    )
    assert (made.turns, made.left_out) == (1, {})


def test_of_a_query_those_with_the_fewest_candidates_left_are_kept() -> None:
    made = recorded([example(4)], RIGHT)
    assert kept(made) == ["no horror", "too old"]
    assert (made.turns, made.left_out) == (3, {"beyond 2 of a query": 1})
    assert kept(recorded([example(4)], RIGHT, per_query=1)) == ["no horror"]
    assert kept(recorded([example(4)], RIGHT, per_query=3)) == ["no horror", "too old", "no thriller"]


def test_the_cap_is_for_a_query_whatever_its_example_is_called() -> None:
    script = [reply("a", "Heat (1995)"), reply("b", "Casablanca (1942)")]
    others = [reply("c", "Heat (1995)"), reply("d", "Casablanca (1942)")]
    same, other = example(3, id="e2"), example(3, id="e3", history=("Heat (1995)",))
    ranker = IRanker(answer_form="name")
    for second, expected in ((same, ["b", "a"]), (other, ["b", "a", "d", "c"])):
        traces = [rank_all(ranker, [e], ScriptedLLM(s))[0] for e, s in ((example(3), script), (second, others))]
        assert kept(record(zip((example(3), second), traces, strict=True), "tiny")) == expected


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([reply("he likes it", "Toy Story (1995)")], "wrong exclusion"),
        ([reply("a", "Psycho (1960)")], "not well formed, or without a thought"),  # names no candidate
        ([reply(" ... ", "Heat (1995)")], "not well formed, or without a thought"),
        (["a</think><answer>Heat (1995)"], "not well formed, or without a thought"),
        (["a</think> so <answer>Heat (1995)</answer>"], "not well formed, or without a thought"),
    ],
)
def test_what_is_not_kept_is_counted_by_the_reason(script: list[str], reason: str) -> None:
    made = recorded([example(2)], script)
    assert kept(made) == []
    assert made.left_out == {reason: 1}


def test_where_every_exclusion_is_right_nothing_was_shown_by_it() -> None:
    # The chosen film is excluded first: what is left are three that were not chosen.
    script = [reply("oops", "Toy Story (1995)"), reply("x", "Heat (1995)"), reply("y", "Alien (1979)")]
    assert recorded([example(4)], script).left_out == {"no exclusion could be wrong": 2, "wrong exclusion": 1}
    assert recorded([replace(example(2), relevance={})], RIGHT).left_out == {"no exclusion could be wrong": 1}


def test_with_grades_only_the_lowest_is_a_right_exclusion() -> None:
    graded = example(3, positives={"c1": 3.0, "c2": 1.0})
    script = [reply("a", "Heat (1995)"), reply("b", "Toy Story (1995)")]
    assert recorded([graded], script).left_out == {"wrong exclusion": 2}
    script = [reply("a", "Casablanca (1942)"), reply("b", "Heat (1995)")]
    assert kept(recorded([graded], script)) == ["b", "a"]


def test_of_several_exclusions_in_a_turn_all_must_be_right() -> None:
    ranker = IRanker(answer_form="name", exclude_per_turn=2)
    for first, second, count in (("Heat", "Alien", 1), ("Heat", "Toy Story", 0)):
        titles = {"Heat": "Heat (1995)", "Alien": "Alien (1979)", "Toy Story": "Toy Story (1995)"}
        script = [reply("both", f"{titles[first]}\n{titles[second]}"), reply("", "Casablanca (1942)")]
        (trace,) = rank_all(ranker, [example(4)], ScriptedLLM(script))
        bank = record([(example(4), trace)], "tiny").bank
        assert [t.excluded for t in bank.thoughts] == ["Heat (1995); Alien (1979)"] * count


def test_a_thought_stands_once_in_a_scenario() -> None:
    # Both times the same but for case and punctuation.
    script = [reply("Too old!", "Heat (1995)"), reply("too old", "Casablanca (1942)")]
    made = recorded([example(3)], script)
    assert (kept(made), made.left_out) == (["too old"], {"repeated": 1})
    query = example(2, scenario="passage")
    (trace,) = rank_all(IRanker(answer_form="id"), [query], ScriptedLLM([reply("too old", "passage 2")]))
    (film,) = rank_all(IRanker(answer_form="name"), [example(2)], ScriptedLLM([reply("too old", "Heat (1995)")]))
    assert len(record([(query, trace), (example(2), film)], "tiny").bank.thoughts) == 2


def test_without_thinking_there_are_no_thoughts() -> None:
    (trace,) = rank_all(IRanker(thinking=False, answer_form="name"), [example(2)], ScriptedLLM(["Heat (1995)"]))
    assert record([(example(2), trace)], "tiny").left_out == {"not well formed, or without a thought": 1}


def test_the_context_is_the_query_the_history_or_both() -> None:
    assert context_of(example(2, scenario="passage")) == "What is the capital of Italy?"
    assert context_of(example(2, query="a film\nto laugh", history=("Big", " "))) == "a film to laugh; Big"


def thought(context: str, id: str = "other", thought: str = "t", **fields: Any) -> Thought:
    return replace(Thought(id, "passage", context, thought, "x", 1.0, "m"), **fields)


def asks(query: str, id: str = "asked") -> RankingExample:
    return example(2, scenario="passage", query=query, id=id)


def near(bank: Sequence[Thought], query: str, k: int = 5) -> list[str]:
    return [t.context for t in ThoughtBank(tuple(bank)).nearest(asks(query), k)]


CONTEXTS = ("how do whales breathe", "the capital of France", "the capital of Italy", "why is bread salty")


def test_the_nearest_share_the_rarest_words() -> None:
    bank = [thought(c) for c in CONTEXTS]
    # "the capital of" stands in two contexts, Italy in one; the other two share no word with the query.
    assert near(bank, "What is the capital of ITALY, exactly?") == [
        "the capital of Italy", "the capital of France", "why is bread salty",
    ]  # fmt: skip
    assert near(bank, "capital of italy") == ["the capital of Italy", "the capital of France"]
    assert near(bank, "capital of italy", k=1) == ["the capital of Italy"]
    assert near(bank, "zebra") == near(bank, "?!") == []


def test_equally_near_ones_keep_the_banks_order() -> None:
    bank = [thought("red cat", thought=text) for text in ("1", "2", "3")]
    assert [t.thought for t in ThoughtBank(tuple(bank)).nearest(asks("red dog"), 2)] == ["1", "2"]


def test_an_examples_own_thoughts_are_never_returned() -> None:
    bank = [thought("capital of Italy", id="asked"), thought("capital of France", id="other")]
    assert near(bank, "the capital of Italy") == ["capital of France"]


def test_nor_those_of_the_same_query_in_another_data_set() -> None:
    bank = [thought("Capital of Italy?", id="passage-5:7"), thought("capital of France")]
    assert near(bank, "capital of Italy") == ["capital of France"]


def test_only_thoughts_of_the_same_scenario_are_near() -> None:
    bank = [thought("capital of Italy today", scenario="routing"), thought("bread")]
    assert near(bank, "capital of Italy") == []
    assert near([thought("?"), thought("!")], "capital of Italy") == []


def test_without_bm25s_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"A bank of thoughts needs the package 'bm25s'.*r1ranker\[eval\]"):
        near([thought("red cat")], "red dog")


def test_a_bank_is_read_as_it_was_saved(tmp_path: Path) -> None:
    bank = ThoughtBank((thought('où \u2028 "x"', thought="$a ${b}\n\\"), thought("b", reward=0.5)))
    bank.save(tmp_path / "one.jsonl")
    assert ThoughtBank.read(tmp_path / "one.jsonl").thoughts == bank.thoughts
    text = (tmp_path / "one.jsonl").read_text(encoding="utf-8")
    (tmp_path / "both.jsonl").write_text(f"{text}\n{text}", encoding="utf-8")
    assert ThoughtBank.read(tmp_path / "both.jsonl").thoughts == bank.thoughts * 2


ROW = asdict(thought("capital of Italy"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "a thought is an object with the keys example_id, scenario"),
        (json.dumps({**ROW, "more": 1}), "a thought is an object with the keys"),
        (json.dumps({k: v for k, v in ROW.items() if k != "model"}), "a thought is an object with the keys"),
        (json.dumps({**ROW, "context": None}), "'context' must be a text"),
        (json.dumps({**ROW, "reward": "1"}), "'reward' must be a number"),
        (json.dumps({**ROW, "reward": True}), "'reward' must be a number"),
        (json.dumps({**ROW, "scenario": "films"}), "scenario is 'films'; it must be one of recommendation, routing"),
    ],
)
def test_a_line_that_is_no_thought_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "bank.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        ThoughtBank.read(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert said in str(caught.value)


def test_a_bank_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        ThoughtBank.read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"empty\.jsonl holds no thoughts"):
        ThoughtBank.read(tmp_path / "empty.jsonl")


FILMS = (
    Thought("e8", "recommendation", "Rocky (1976); Jaws (1975)", "a boxer", "Heat (1995)", 1.0, "m"),
    Thought("e9", "recommendation", "Big (1988); Rocky (1976); Fargo (1996)", "a toy", "Alien (1979)", 1.0, "m"),
)
BLOCK = (
    "Here is how other cases were reasoned about. Their candidates are not yours.\n\n"
    "Case: Big (1988); Rocky (1976); Fargo (1996)\n"
    "Thought: a toy\n"
    "Excluded: Alien (1979)\n\n"
    "Your own case:\n\n"
)


@pytest.mark.parametrize("layout", ["rebuild", "append"])
@pytest.mark.parametrize("thinking", [True, False])
def test_each_turns_prompt_is_the_thought_and_then_what_it_is_without(
    layout: Any, thinking: bool, make_example: ExampleFactory
) -> None:
    def script(request: Any) -> str:
        return request.choices[-1] if request.choices else "no</think><answer>x</answer>"

    prompts = []
    for bank in (None, ThoughtBank(FILMS)):
        llm = ScriptedLLM(script)
        rank_all(IRanker(thinking=thinking, answer_form="name", layout=layout, thoughts=bank), [make_example(4)], llm)
        prompts.append([request.prompt for request in llm.requests])
    without, with_one = prompts
    assert len(with_one) == 3
    assert [replace(p, user=BLOCK + p.user) for p in without] == with_one


def test_first_step_shows_them_too_and_the_nearest_stands_last(make_example: ExampleFactory) -> None:
    ranker = FirstStep(answer_form="name", thoughts=ThoughtBank(FILMS), thoughts_shown=2)
    text = ranker.request(make_example(2)).prompt.user
    assert text.index("a boxer") < text.index("a toy") < text.index("Your own case:") < text.index("A user chose")
    assert text.count("Case: ") == 2


def test_with_no_thought_that_is_near_the_prompt_says_nothing_of_them(make_example: ExampleFactory) -> None:
    with_bank = IRanker(answer_form="name", thoughts=ThoughtBank((thought("bread"),)))
    one = make_example(3)
    assert with_bank.request(one, one.ids) == IRanker(answer_form="name").request(one, one.ids)


def test_thoughts_take_room_from_the_texts() -> None:
    bank = ThoughtBank(FILMS)
    for ranker in (IRanker(thoughts=bank, thoughts_shown=2), FirstStep(thoughts=bank, thoughts_shown=2)):
        plain = replace(ranker, thoughts=None)
        assert plain.text_budget(4096, 60) == 4096 - 60 - INSTRUCTIONS
        assert ranker.text_budget(4096, 60) == 4096 - 60 - INSTRUCTIONS - 2 * THOUGHT_TOKENS

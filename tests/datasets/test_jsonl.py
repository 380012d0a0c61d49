from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.datasets import example_from_dict, example_to_dict, read_examples, write_examples
from r1ranker.errors import InputError
from r1ranker.types import Candidate, RankingExample

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def examples(draw: st.DrawFn) -> RankingExample:
    ids = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True))
    names = st.none() | TEXT.filter(bool)
    history = tuple(draw(st.lists(TEXT, max_size=2)))
    scenario = "recommendation" if history else draw(st.sampled_from(["recommendation", "routing", "passage"]))
    return RankingExample(
        id=draw(TEXT),
        scenario=scenario,
        candidates=tuple(Candidate(i, draw(TEXT), draw(names)) for i in ids),
        query=draw(TEXT.filter(str.strip)),
        history=history,
        relevance=draw(st.dictionaries(st.sampled_from(ids), st.floats(0, 10))),
        group=draw(TEXT),
        item_type=draw(TEXT),
        presorted=draw(st.booleans()),
        goal=draw(TEXT) if scenario == "routing" else "",
    )


@given(examples())
def test_an_example_survives_json(example: RankingExample) -> None:
    assert example_from_dict(json.loads(json.dumps(example_to_dict(example)))) == example


def test_examples_survive_a_file(tmp_path: Path) -> None:
    some = [
        RankingExample("ü", "passage", (Candidate("1", "a\u2028b"), Candidate("2", "a\u2028b")), query="q\n"),
        RankingExample("2", "recommendation", (Candidate("x", "y", "z"),), history=("h",), relevance={"x": 0.5}),
        RankingExample("3", "passage", (Candidate("x", "y"),), query="q", unlisted={"w": 2.0}),
    ]
    write_examples(tmp_path / "a.jsonl", some)
    assert read_examples(tmp_path / "a.jsonl") == (some, [])


def test_what_is_missing_is_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows: list[dict[str, Any]] = [
        {"query": "q", "candidates": ["a", {"text": "b", "name": "B"}, {"id": 7, "text": "a"}], "relevance": {"7": 2}},
        {"history": ["x", "y"], "candidates": ["a"]},
        {"context": ["x"], "candidates": ["a"], "my own key": 1},
        {"context": "q", "candidates": ["a"], "scenario": "routing", "id": 9},
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    found, bad = read_examples(path)
    assert bad == []
    assert found[0] == RankingExample(
        "1",
        "passage",
        (Candidate("1", "a"), Candidate("2", "b", "B"), Candidate("7", "a")),
        query="q",
        relevance={"7": 2.0},
    )
    assert [e.id for e in found] == ["1", "3", "5", "9"]  # an example without an id is called by its line
    assert (found[1].scenario, found[1].history) == ("recommendation", ("x", "y"))
    assert (found[2].scenario, found[2].history) == ("recommendation", ("x",))
    assert (found[3].scenario, found[3].query) == ("routing", "q")


def test_the_words_of_beir_and_of_the_api_are_known() -> None:
    row = {
        "query": "q",
        "documents": [{"_id": 7, "title": "Emma", "text": "by Austen"}, {"id": "x", "_id": "y", "text": "b"}],
    }
    assert example_from_dict(row).candidates == (Candidate("7", "Emma by Austen"), Candidate("x", "b"))
    assert example_from_dict({**row, "candidates": ["a"]}).ids == ("1",)  # the first word counts
    extra = {"query": "q", "candidates": [{"id": "a", "doc_id": 7, "text": "b", "score": 2.5}]}
    assert example_from_dict(extra).candidates == (Candidate("a", "b"),)  # whatever else is the user's own


@pytest.mark.parametrize(
    ("candidates", "relevance", "expected"),
    [
        ([{"name": "small", "text": "cheap"}, {"name": "large", "text": "dear"}], {"2": 1}, {"large": 1.0}),
        ([{"name": "small", "text": "cheap"}, {"id": "L", "text": "dear"}], {"small": 1, "L": 2}, {"small": 1, "L": 2}),
        (["gpt", "llama"], {"1": 1}, {"gpt": 1.0}),
        (["2", "llama"], {"2": 1}, {"2": 1.0}),  # a name before a place
        ([{"name": "x", "text": "a"}, {"name": "x", "text": "b"}], {"2": 1}, {"2": 1.0}),  # names that tell nothing
        ([{"text": "cheap"}, {"text": "dear"}], {"2": 1}, {"2": 1.0}),
    ],
)
def test_llms_without_an_id_are_called_by_name(
    candidates: list[Any], relevance: dict[str, float], expected: dict[str, float]
) -> None:
    row = {"query": "q", "scenario": "routing", "candidates": candidates, "relevance": relevance}
    made = example_from_dict(row)
    assert made.relevance == expected
    assert set(expected) <= set(made.ids)
    del row["scenario"]
    assert "1" in example_from_dict({**row, "relevance": {}}).ids  # elsewhere by its place


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"query": "\\ud800", "candidates": ["a"]}', "not valid JSON"),
        ("[1]", "an example is an object with 'candidates', not a list"),
        ('{"candidates": ["a"]}', "there is no context"),
        ('{"query": " ", "candidates": ["a"]}', "there is no context"),
        ('{"query": "q", "context": "c", "candidates": ["a"]}', "give only one"),
        ('{"query": 3, "candidates": ["a"]}', "the query must be a text, not a number"),
        ('{"history": "h", "candidates": ["a"]}', "history must be a list of texts"),
        ('{"query": "q"}', "'candidates' must be a list, not nothing"),
        ('{"query": "q", "candidates": []}', "no candidates"),
        ('{"query": "q", "candidates": ["a", 2]}', "candidate 2 must be a text or an object"),
        ('{"query": "q", "candidates": [{"text": "a", "doc_id": 7}]}', "has 'doc_id' and no 'id': call it 'id'"),
        ('{"query": "q", "candidates": [{"text": "a", "title": [1]}]}', "'title' must be a text, not a list"),
        ('{"query": "q", "candidates": ["a", {"id": "1", "text": "b"}]}', "'1' stands twice"),
        ('{"query": "q", "candidates": ["a"], "relevence": {}}', "did you mean 'relevance'"),
        ('{"query": "q", "candidates": ["a"], "relevance": {"2": 1}}', "'2', which is not a candidate"),
        ('{"query": "q", "candidates": ["a"], "relevance": {"1": true}}', "must be a number, not true or false"),
        ('{"query": "q", "candidates": ["a"], "relevance": {"1": NaN}}', "must be a finite number"),
        ('{"query": "q", "candidates": ["a"], "relevance": {"1": 1%s}}' % ("0" * 400), "too large"),
        ('{"query": "q", "candidates": ["a"], "scenario": "music"}', "scenario is 'music'"),
        ('{"query": "q", "history": ["h"], "candidates": ["a"], "scenario": "passage"}', "leave the history out"),
        ('{"query": "q", "candidates": ["a"], "id": [1]}', "'id' must be a text, not a list"),
        ('{"query": "q", "candidates": ["a"], "presorted": "yes"}', "must be true or false, not a text"),
        ('{"query": "q", "candidates": ["a"], "presortd": true}', "did you mean 'presorted'"),
        ('{"query": "q", "candidates": ["a"], "id": "1"}', "also that of line 1"),
    ],
)
def test_a_bad_line_is_told_and_the_good_ones_are_kept(tmp_path: Path, line: str, reason: str) -> None:
    good = '{"query": "q", "candidates": ["a"]}'
    path = tmp_path / "a.jsonl"
    path.write_text(f"{good}\n{line}\n{good}\n")
    found, bad = read_examples(path)
    assert [e.id for e in found] == ["1", "3"]
    assert [(b.file, b.line) for b in bad] == [(str(path), 2)]
    assert reason in bad[0].reason
    assert str(bad[0]).startswith(f"{path}:2: ")


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_examples(tmp_path / "no.jsonl")


def test_null_is_as_good_as_nothing() -> None:
    row = {"query": "q", "candidates": ["a"]}
    nulls = dict.fromkeys(("history", "relevance", "context", "scenario", "presorted", "group", "item_type", "goal"))
    assert example_from_dict({**row, **nulls}) == example_from_dict(row)
    past = {"history": ["x"], "candidates": ["a"]}
    assert example_from_dict({**past, "query": None}) == example_from_dict(past)
    with pytest.raises(InputError, match="there is no context"):
        example_from_dict({**row, "query": None})


def test_a_line_that_is_no_utf8_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "latin1.jsonl"
    good = '{"query": "caf\u00e9", "candidates": ["a"]}\n'
    path.write_bytes(good.encode("latin-1") + good.encode("utf-8"))
    found, bad = read_examples(path)
    assert [e.query for e in found] == ["caf\u00e9"]
    assert [str(line) for line in bad] == [f"{path}:1: not UTF-8 text: save it as UTF-8"]

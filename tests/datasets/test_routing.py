from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ranker.datasets import Dataset, build_routing, example_to_dict, load_dataset
from r1ranker.errors import InputError

HEADER = "q_id,task_id,query,llm,effect,cost,response\n"
# Costs run from 0 to 100 over the whole table, so a cost of 50 is 0.5 when scaled.
TABLE = HEADER + (
    '0,nq,who?,org/small,0.5,0,"two\nlines, ""quoted"""\n'
    "0,nq,who?,org/large,1.0,100,x\n"
    "0,nq,who?,org/mid,1.0,50,x\n"
    "1,nq,where?,org/small,0.0,10,x\n"
    "1,nq,where?,org/large,0.0,100,x\n"
    "2,nq, WHO?  ,org/small,1.0,20,x\n"
    "2,nq, WHO?  ,org/large,0.5,80,x\n"
    "2,nq, WHO?  ,org/mid,0.5,60,x\n"
    "3,nq,lonely,org/small,1,1,x\n"
)


def build(folder: Path, text: str = TABLE, **options: Any) -> Dataset:
    path = folder / "router.csv"
    path.write_text(text)
    return build_routing(path, **{"name": "router", "test_fraction": 0.0, **options})


def best(data: Dataset) -> dict[str, set[str]]:
    return {e.id.split(":")[-1]: {i.split("/")[1] for i in e.relevance} for e in data.train + data.test}


@pytest.mark.parametrize(
    ("effect", "cost", "ties", "expected"),
    [
        (1.0, 0.0, "set", {"0": {"large", "mid"}, "1": {"small", "large"}, "2": {"small"}}),
        (1.0, 0.0, "first", {"0": {"large"}, "1": {"small"}, "2": {"small"}}),
        # query 0: small .25 - 0, large .5 - .5, mid .5 - .25: a tie of small and mid.
        (0.5, 0.5, "set", {"0": {"small", "mid"}, "1": {"small"}, "2": {"small"}}),
        (0.2, 0.8, "set", {"0": {"small"}, "1": {"small"}, "2": {"small"}}),
    ],
)
def test_the_best_by_effect_and_scaled_cost(
    tmp_path: Path, effect: float, cost: float, ties: str, expected: dict[str, set[str]]
) -> None:
    data = build(tmp_path, effect_weight=effect, cost_weight=cost, ties=ties)
    assert best(data) == expected
    assert all(grade == 1.0 for e in data.train for grade in e.relevance.values())
    listed = {"small": 3, "large": 3, "mid": 2}
    prior = {
        f"org/{llm}": sum(llm in s for s in expected.values()) * 3 / listed[llm] for s in expected.values() for llm in s
    }
    assert data.popularity == prior


def test_the_sources_own_split_is_taken_where_asked(tmp_path: Path) -> None:
    rows = [
        ("one two three", "train"),
        ("four five six", "train"),
        ("four  five SIX", "test"),
        ("seven", "test"),
        ("x", "dev"),
    ]
    table = "query,llm,effect,split\n" + "".join(f"{q},{llm},1,{side}\n" for q, side in rows for llm in "ab")
    data = build(tmp_path, table, split="given")
    assert [e.query for e in data.train] == ["one two three"]
    assert sorted(e.query for e in data.test) == ["four  five SIX", "seven"]
    assert {
        "1 train queries dropped: they are (nearly) those of test queries",
        "1 queries left out: the source has them neither in train nor in test",
    } <= set(data.notes)
    lines = [{"query": q, "split": side, "scores": {"a": 1, "b": 0}} for q, side in rows]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = build_routing(tmp_path / "scores.jsonl", name="r", split="given")
    assert [len(scores.train), len(scores.test)] == [1, 2]
    with pytest.raises(InputError, match=r"has no split 'test' of its own \(it has none\): leave out split=given"):
        build(tmp_path, split="given")
    with pytest.raises(InputError, match="split is 'official'; it must be own or given"):
        build(tmp_path, split="official")


def test_a_table_without_costs_is_routed_by_effect_alone(tmp_path: Path) -> None:
    bare = "query,llm,effect\nq,a,1\nq,b,0.5\n"
    data = build(tmp_path, bare)
    assert best_of(data) == [{"a"}]
    assert {c.text for c in data.train[0].candidates} == {"a", "b"}
    with pytest.raises(InputError, match="has no column 'cost': add it, or set cost_weight to 0"):
        build(tmp_path, bare, effect_weight=0.5, cost_weight=0.5)


def best_of(data: Dataset) -> list[set[str]]:
    return [set(e.relevance) for e in data.train]


def test_the_prior_is_of_the_queries_that_list_an_llm(tmp_path: Path) -> None:
    """mid has outcomes of two of three queries and is best on one: 1 x 3 / 2."""
    data = build(tmp_path, ties="first", effect_weight=0.5, cost_weight=0.1)
    # query 0: small .25, large .4, mid .45; 1: small -.01, large -.1; 2: small .48, large .17, mid .19
    assert best(data) == {"0": {"mid"}, "1": {"small"}, "2": {"small"}}
    assert data.popularity == {"org/mid": 1.5, "org/small": 2}


def test_scales_that_upset_the_weights_are_told(tmp_path: Path) -> None:
    told = [text for text in build(tmp_path, effect_weight=0.5, cost_weight=0.5).notes if "scaled" in text]
    assert told == []
    percent = TABLE.replace("org/small,0.5,", "org/small,50,")
    (text,) = [t for t in build(tmp_path, percent, effect_weight=0.5, cost_weight=0.5).notes if "scaled" in t]
    assert text.startswith("effects run from 0 to 50, and costs are scaled to 0..1")
    assert not any("scaled" in text for text in build(tmp_path, percent).notes)  # costs weigh nothing
    one = TABLE.replace("org/large,1.0,100,", "org/large,1.0,100000,")
    (text,) = [t for t in build(tmp_path, one, effect_weight=0.5, cost_weight=0.5).notes if "scaled" in t]
    assert text.startswith("the largest cost is 100000, and 99% are at most 100")


@pytest.mark.parametrize(
    ("descriptions", "said"),
    [
        ({"smal": "x"}, "descriptions has 'smal', and there is no such LLM: did you mean 'small'"),
        ({"small": 3}, "the description of 'small' is 3; it must be a text"),
    ],
)
def test_descriptions_of_no_llm_or_that_are_no_text_are_refused(
    tmp_path: Path, descriptions: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        build(tmp_path, descriptions=descriptions)


def test_what_is_odd_is_counted(tmp_path: Path) -> None:
    data = build(tmp_path, TABLE + "3,nq,lonely,org/small,0,9,x\n")
    assert data.notes == (
        "1 rows dropped whose query and LLM stand further up",
        "1 queries with outcomes of fewer than 2 LLMs dropped",
        "1 queries lack outcomes of some of the 3 LLMs",
        "1 queries repeat another one's text and were split together with it",
        "1 queries kept on which all LLMs tie as best",
    )
    assert {e.id: len(e.candidates) for e in data.train} == {
        "router:query:nq:0": 3,
        "router:query:nq:1": 2,
        "router:query:nq:2": 3,
    }


def test_equal_queries_stay_together(tmp_path: Path) -> None:
    for seed in range(8):
        data = build(tmp_path, test_fraction=0.5, seed=seed)
        sides = [{e.id[-1] for e in side} for side in (data.train, data.test)]
        assert sorted(sides, key=len) == [{"1"}, {"0", "2"}]


def test_llms_are_described_by_their_cost_on_train_queries_or_as_given(tmp_path: Path) -> None:
    (example, *_) = build(tmp_path).train
    texts = {c.id: (c.name, c.text) for c in example.candidates}
    assert texts["org/small"] == ("small", "small, about 10 cost units a query")  # (0 + 10 + 20) / 3
    seed = next(s for s in range(9) if len(build(tmp_path, test_fraction=0.5, seed=s).train) == 1)
    (only,) = build(tmp_path, test_fraction=0.5, seed=seed).train
    assert {c.text for c in only.candidates} == {
        "small, about 10 cost units a query",
        "large, about 100 cost units a query",
    }
    given = {"org/small": "tiny but quick", "mid": "middling", "another": "is not in the table"}
    (example, *_) = (described := build(tmp_path, descriptions=given)).train
    assert "1 descriptions of LLMs that are not in the table" in described.notes
    texts = {c.id: (c.name, c.text) for c in example.candidates}
    assert texts["org/small"] == ("small", "tiny but quick")
    file = tmp_path / "llms.json"
    file.write_text(json.dumps({"small": {"feature": "tiny but quick", "size": "1B"}, "mid": "middling"}))
    assert build(tmp_path, descriptions=file).fingerprint() == build(tmp_path, descriptions=given).fingerprint()
    file.rename(tmp_path / "llm_candidates.json")  # one beside the table is found
    (example, *_) = load_dataset("router-cost", source=tmp_path, test_fraction=0.0).train
    assert {c.id: c.text for c in example.candidates}["org/mid"] == "middling"


def test_names_that_would_clash_are_kept_whole(tmp_path: Path) -> None:
    data = build(tmp_path, HEADER + "0,t,q,a/x,1,1,\n0,t,q,b/x,0,2,\n0,t,q,b/y,0,2,\n")
    assert {c.name for c in data.train[0].candidates} == {"a/x", "b/x", "y"}


def test_gzip_long_responses_and_tables_without_task_id_are_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    text = f"llm,query,q_id,cost,effect,response\na,q,0,1,1,{'x' * 200_000}\nb,q,0,2,0,\n"
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    data = build_routing(path, name="r", test_fraction=1.0)
    assert [e.id for e in data.test] == ["r:query:0"]
    assert dict(data.test[0].relevance) == {"a": 1.0}
    assert data.popularity == {}  # nothing is known of train queries
    assert {c.text for c in data.test[0].candidates} == {
        f"{llm}, about {cost} cost units a query" for llm, cost in (("a", 1), ("b", 2))
    }
    assert csv.field_size_limit() == limit


def test_graded_relevance_is_the_score_from_worst_to_best(tmp_path: Path) -> None:
    # Scores at 0.5/0.5. Query 0: .25, 0, .25. Query 1: -.05, -.5. Query 2: .4, -.15, -.05 (in the table's order).
    data = build(tmp_path, effect_weight=0.5, cost_weight=0.5, ties="graded")
    grades = {e.id[-1]: {i.split("/")[1]: g for i, g in e.relevance.items()} for e in data.train}
    assert grades == {
        "0": {"small": 1.0, "mid": 1.0},
        "1": {"small": 1.0},
        "2": {"small": 1.0, "mid": 0.182},  # 0.1 / 0.55
    }
    assert data.popularity == {"org/small": 3, "org/mid": 1.5}  # the best only; two of three queries list mid
    same = build(tmp_path, HEADER + "0,nq,q,a,0.5,1,\n0,nq,q,b,0.5,2,\n", ties="graded")
    assert dict(same.train[0].relevance) == {"a": 1.0, "b": 1.0}


def test_only_the_chosen_llms_are_ranked(tmp_path: Path) -> None:
    data = build(tmp_path, llms=["mid", "org/small"], effect_weight=0.5, cost_weight=0.5)
    assert {e.id[-1]: set(e.ids) for e in data.train} == {k: {"org/small", "org/mid"} for k in "02"}
    # Costs now run from 0 to 60. Query 0: small .25, mid .5 - 25/60 = .083; query 2: small .5 - 10/60, mid .25 - .5.
    assert best(data) == {"0": {"small"}, "2": {"small"}}
    assert "2 queries with outcomes of fewer than 2 LLMs dropped" in data.notes
    clash = HEADER + "0,t,q,a/x,1,1,\n0,t,q,b/x,0,2,\n0,t,q,b/y,0,2,\n"
    assert set(build(tmp_path, clash, llms=["a/x", "y"]).train[0].ids) == {"a/x", "b/y"}
    with pytest.raises(InputError, match="has no LLM 'x'"):
        build(tmp_path, clash, llms=["x", "y"])  # which of the two?


def test_near_duplicate_queries_stay_together(tmp_path: Path) -> None:
    texts = ["who wrote the old book", "who wrote that old book", "where is it now", "who wrote the very old book"]
    rows = "".join(f"{n},nq,{text},{llm},1,1,\n" for n, text in enumerate(texts) for llm in "ab")
    for seed in range(8):
        data = build(tmp_path, HEADER + rows, test_fraction=0.5, seed=seed)
        # 4 of 6 words: 0 and 1 are apart; 5 of 6: 0 and 3 are together.
        sides = [{e.id[-1] for e in side} for side in (data.train, data.test)]
        assert not any(len(side & {"0", "3"}) == 1 for side in sides)
        assert {e.group for e in data.train + data.test if e.id[-1] in "03"} == {"who wrote the old book"}
        assert data.notes[0] == "2 queries have a near-duplicate with other words and were split together with it"
    apart = [build(tmp_path, HEADER + rows, test_fraction=0.5, seed=s, near_duplicates=None) for s in range(8)]
    assert any(len({e.id[-1] for e in d.test} & {"0", "3"}) == 1 for d in apart)


SCORES = [
    {"split": "train", "task": "qa", "metric": "f1", "query": "one two three", "scores": {"a": 0.5, "b": 0.75}},
    {"split": "test", "task": "qa", "query": "One two three", "scores": {"a": 1, "b": 1}},
    {"query": "word " * 300, "scores": {"b": 0.0, "a": 0.0}},
]
LLMS = {
    "a": {"feature": "LLM a", "input_price": 0.0, "output_price": 1.0, "size": "7B"},
    "b": {"feature": "LLM b", "input_price": 3, "output_price": 2},
    "another": {"feature": "is not in the table"},
}


def scores_folder(folder: Path, llms: dict[str, Any] = LLMS) -> Path:
    (folder / "scores.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, SCORES)).encode()))
    (folder / "llm_candidates.json").write_text(json.dumps(llms))
    return folder


def test_llmrouters_scores_are_read_with_estimated_costs(tmp_path: Path) -> None:
    # Dollars per million queries: a 256 always; b 512 + 3 x 4 = 524 for three words, 512 + 3 x 400 = 1712 for 300.
    # Scaled by 256 and 1712: a 0; b 268 / 1456 = 0.184, and 1.
    folder = scores_folder(tmp_path)
    data = {n: load_dataset(f"router-{n}", source=folder, test_fraction=0) for n in ("performance", "balance", "cost")}
    relevant = {
        n: {e.id.removeprefix(f"router-{n}:query:"): "".join(sorted(e.relevance)) for e in d.train}
        for n, d in data.items()
    }
    assert relevant == {
        "performance": {"qa:1": "b", "qa:2": "ab", "3": "ab"},
        "balance": {"qa:1": "b", "qa:2": "a", "3": "a"},  # qa:1: a .25, b .375 - .092
        "cost": {"qa:1": "a", "qa:2": "a", "3": "a"},  # qa:1: a .1, b .15 - .147
    }
    assert data["cost"].notes == (
        "1 queries stand in several of the source's own splits",
        "3 queries with estimated costs: price x (4/3 tokens a word of the query + 256 of the reply)",
        "1 queries repeat another one's text and were split together with it",
    )
    assert {(c.id, c.text) for c in data["cost"].train[0].candidates} == {("a", "LLM a"), ("b", "LLM b")}
    own = load_dataset("router-cost", source=folder, descriptions={"a": "mine"}, test_fraction=0)
    assert {(c.id, c.text) for c in own.train[0].candidates} == {("a", "mine"), ("b", "LLM b")}
    by_file = load_dataset("router-cost", source=folder / "scores.jsonl.gz", test_fraction=0)
    assert by_file.fingerprint() == data["cost"].fingerprint()


def test_prices_are_needed_where_costs_count_and_only_there(tmp_path: Path) -> None:
    scores_folder(tmp_path, {"a": LLMS["a"], "b": "a description alone"})
    assert len(load_dataset("router-performance", source=tmp_path, test_fraction=0).train) == 3
    with pytest.raises(
        InputError, match=r"the LLM 'b' has no cost, and .*llm_candidates\.json gives no price for it: "
    ):
        load_dataset("router-balance", source=tmp_path)
    (tmp_path / "llm_candidates.json").unlink()
    data = load_dataset("router-performance", source=tmp_path, test_fraction=0)
    assert {c.text for c in data.train[0].candidates} == {"a", "b"}
    with pytest.raises(InputError, match=r"the LLM 'a' has no cost, and no file of prices is given: add its input_pr"):
        load_dataset("router-cost", source=tmp_path)


def test_lists_say_the_goal_that_is_given_and_else_are_what_they_were(tmp_path: Path) -> None:
    plain, told = build(tmp_path, test_fraction=0.5), build(tmp_path, test_fraction=0.5, goal="well, whatever it costs")
    examples = told.train + told.test
    assert examples
    assert {e.goal for e in examples} == {"well, whatever it costs"}
    assert [replace(e, goal="") for e in examples] == list(plain.train + plain.test)
    assert "goal" not in example_to_dict(plain.train[0])  # nor in what is hashed of it
    assert plain.fingerprint() != told.fingerprint()


def test_the_seed_decides(tmp_path: Path) -> None:
    prints = [build(tmp_path, seed=s, test_fraction=0.5).fingerprint() for s in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, r"router\.csv is empty"),
        ("q_id,query,model,effect,cost\n", {}, r"no column llm in the header \(q_id, query, model"),
        (HEADER, {}, r"router\.csv has a header but no rows"),
        (TABLE + "4,nq,q,a,nan,1,x\n", {}, r"router\.csv:12: effect of 'a' is 'nan'"),
        (TABLE + "4,nq,q,a,1,,x\n", {}, r"router\.csv:12: cost of 'a' is ''"),
        (TABLE + "4,nq,q,a\n", {}, r"router\.csv:12: 4 cells where the header has 7"),
        (TABLE + '4,nq,q,a,1,1,"open\n', {}, r"router\.csv:12: not valid CSV"),
        (TABLE + "0,nq,other?,a,1,1,x\n", {}, "q_id '0' is also that of another query"),
        (HEADER + "0,nq,q,a,1,1,x\n", {}, "no query has outcomes of two LLMs"),
        (TABLE, {"llms": ["small"]}, "no query has outcomes of two LLMs"),
        (TABLE, {"llms": ["small", "org/smal"]}, "has no LLM 'org/smal': did you mean 'org/small'"),
        (TABLE, {"llms": ["zzz"]}, "has no LLM 'zzz': it has org/small, org/large, org/mid"),
        (TABLE, {"llms": "small"}, "llms is 'small'; it must be a list of names"),
        (TABLE, {"near_duplicates": 2.0}, "near-duplicates is 2.0"),
        (TABLE, {"ties": "all"}, "ties is 'all'"),
        (TABLE, {"effect_weight": 0.0}, "not both 0"),
        (TABLE, {"goal": 3}, "goal is 3; it must be a text"),
        (TABLE, {"cost_weight": -1.0}, "numbers >= 0"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(tmp_path, text, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"llms\.json:1: not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"a": {}}', "of 'a' is not a text"),
        ('{"a": {"feature": "x", "input_price": 1}}', "output_price of 'a' are 1 and None: give both"),
        ('{"a": {"feature": "x", "input_price": 1, "output_price": -1}}', "'a' are 1 and -1: give both"),
        ('{"a": {"feature": "x", "input_price": NaN, "output_price": 1}}', "'a' are nan and 1: give both"),
    ],
)
def test_broken_descriptions_are_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "llms.json").write_text(content)
    with pytest.raises(InputError, match=message):
        build(tmp_path, descriptions=tmp_path / "llms.json")

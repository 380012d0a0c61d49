"""Every kind of bad input: one line that names the file, the row where there is one, and what to do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ranker.datasets import load_dataset
from r1ranker.errors import InputError

INTER = "item_id:token\ttimestamp:float\tuser_id:token\n" + "".join(f"{i}\t{i}\tu\n" for i in range(5))
ITEM = "item_id:token\ttitle:token_seq\n" + "".join(f"{i}\tTitle {i}\n" for i in range(9))
TABLE = "q_id,query,llm,effect,cost\n0,q,org/a,1,1\n0,q,org/b,0.5,0\n"
SCORE = json.dumps({"task": "t", "query": "q", "scores": {"a": 1.0, "b": 0.5}}) + "\n"
LLMS = json.dumps({"a": {"feature": "A", "input_price": 1, "output_price": 1}})
LIST = json.dumps({"query": "q", "passages": {"passage_text": list("abcd"), "is_selected": [1, 0, 0, 0]}}) + "\n"

Content = str | bytes
Files = dict[str, Content]

REC: Files = {"x.inter": INTER, "x.item": ITEM}
REC_OPTIONS = {"history": 3, "candidates": 3}


def cut(text: str) -> bytes:
    """A gzip file without its end."""
    return gzip.compress(text.encode())[:-12]


def parquet(**columns: list[Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), path)

    return write


LISTS = {"passage_text": ["a", "b"], "is_selected": [1, 0]}

# name of the data set, its files, options; then the file (and row) that must be named, and words of the remedy
CASES: dict[str, tuple[str, dict[str, Content | Callable[[Path], None]], dict[str, Any], str, str]] = {
    "wrong column in interactions": (
        "rec-music", {**REC, "x.inter": INTER.replace("user_id", "user")}, REC_OPTIONS,
        "x.inter:1: no column user_id", "starts with name:type",
    ),
    "wrong column in items": (
        "rec-music", {**REC, "x.item": ITEM.replace("title", "label")}, REC_OPTIONS,
        "x.item:1: no column title", "starts with name:type",
    ),
    "wrong column in a table": (
        "router-cost", {"t.csv": TABLE.replace("llm", "model")}, {}, "t.csv:1: no column llm", "give GraphRouter's",
    ),
    "wrong key in scores": (
        "router-cost", {"s.jsonl": SCORE.replace("scores", "score")}, {}, "s.jsonl:1: no 'query'", "repair or remove",
    ),
    "wrong key in passages": (
        "passage-5", {"p.jsonl": LIST + LIST.replace("passage_text", "text")}, {}, "p.jsonl:2: ", "repair or remove",
    ),
    "wrong column in parquet": (
        "passage-5", {"p.parquet": parquet(query=["q"], passage=["a"])}, {},
        "p.parquet: no column passages", "give the file",
    ),
    "wrong layout in parquet": (
        "passage-5", {"p.parquet": parquet(query=["q", "q"], passages=[LISTS, {**LISTS, "is_selected": [1]}])}, {},
        "p.parquet:2: ", "repair or remove",
    ),
    "empty interactions": ("rec-game", {**REC, "x.inter": ""}, REC_OPTIONS, "x.inter is empty", "download"),
    "empty items": ("rec-game", {**REC, "x.item": ""}, REC_OPTIONS, "x.item is empty", "download"),
    "empty table": ("router-balance", {"t.csv": ""}, {}, "t.csv is empty", "download"),
    "empty scores": ("router-balance", {"s.jsonl": ""}, {}, "s.jsonl is empty", "download"),
    "empty file of LLMs": (
        "router-cost", {"s.jsonl": SCORE, "llm_candidates.json": ""}, {}, "llm_candidates.json:1: not valid", "repair",
    ),
    "empty passages": ("passage-7", {"p.jsonl": ""}, {}, "p.jsonl is empty", "download"),
    "empty parquet": ("passage-7", {"p.parquet": b""}, {}, "p.parquet is not a whole parquet file", "fetch it again"),
    "parquet without rows": (
        "passage-7", {"p.parquet": parquet(query=[], passages=[])}, {}, "p.parquet holds no rows", "download",
    ),
    "interactions with a header alone": (
        "rec-game", {**REC, "x.inter": INTER.splitlines()[0]}, REC_OPTIONS, "x.inter has a header but no", "download",
    ),
    "items with a header alone": (
        "rec-game", {**REC, "x.item": ITEM.splitlines()[0]}, REC_OPTIONS, "x.item has a header but no", "download",
    ),
    "table with a header alone": (
        "router-balance", {"t.csv": TABLE.splitlines()[0]}, {}, "t.csv has a header but no rows", "download",
    ),
    "NaN effect": (
        "router-cost", {"t.csv": TABLE + "1,q,a,nan,1\n"}, {}, "t.csv:4: effect of 'a' is 'nan'", "fill it in or drop",
    ),
    "a negative cost": (
        "router-cost", {"t.csv": TABLE + "1,q,a,1,-2\n"}, {}, "t.csv:4: the cost of 'a' is -2", "must be >= 0",
    ),
    "an LLM without a name": (
        "router-cost", {"t.csv": TABLE + "1,q, ,1,1\n"}, {}, "t.csv:4: the LLM has no name", "fill it in or drop",
    ),
    "a cost over two lines": (
        "router-cost", {"t.csv": TABLE + '1,q,a,1,"1\n2"\n'}, {}, "t.csv:5: cost of 'a' is '1\\n2'", "fill it in or",
    ),
    "NaN score": (
        "router-cost", {"s.jsonl": SCORE + SCORE.replace("0.5", "NaN")}, {},
        "s.jsonl:2: the score of 'b' is nan", "repair or remove",
    ),
    "NaN timestamp": (
        "rec-music", {**REC, "x.inter": INTER + "5\tnan\tu\n"}, REC_OPTIONS,
        "x.inter:7: the timestamp is 'nan'", "fill it in or drop",
    ),
    "history shorter than asked": (
        "rec-music", REC, {"history": 5, "candidates": 3},
        "x.inter: no user has 6 titled items (history 5 and the next), the longest sequence has 5",
        "set history to at most 4",
    ),
    "fewer items than candidates": (
        "rec-music", REC, {"history": 3, "candidates": 6},
        "x.item: 5 negatives are asked for, but of its 9 titles at most 4", "set candidates to at most 5",
    ),
    "lists shorter than candidates": (
        "passage-5", {"p.jsonl": LIST}, {}, "p.jsonl: no list has 5 passages, the longest has 4", "lower candidates",
    ),
    "a table of one LLM": (
        "router-cost", {"t.csv": TABLE.replace("org/b", "org/a")}, {}, "t.csv: no query has outcomes of", "give more",
    ),
    "broken gzip of interactions": (
        "rec-game", {"x.inter.gz": cut(INTER), "x.item": ITEM}, REC_OPTIONS,
        "x.inter.gz is not a whole gzip file", "fetch it again",
    ),
    "broken gzip of a table": (
        "router-cost", {"t.csv.gz": cut(TABLE)}, {}, "t.csv.gz is not a whole gzip file", "fetch it again",
    ),
    "broken gzip of scores": (
        "router-cost", {"s.jsonl.gz": b"\x1f\x8b no"}, {}, "s.jsonl.gz is not a whole gzip file", "fetch it again",
    ),
    "broken gzip of passages": (
        "passage-5", {"p.jsonl.gz": b"plain text"}, {}, "p.jsonl.gz is not a whole gzip file", "fetch it again",
    ),
    "broken parquet": (
        "passage-9", {"p.parquet": b"PAR1 this is none PAR1"}, {}, "p.parquet is not a whole parquet", "fetch it again",
    ),
    "unknown LLM": (
        "router-cost", {"t.csv": TABLE}, {"llms": ["a", "org/bb"]},
        "t.csv has no LLM 'org/bb'", "did you mean 'org/b'?",
    ),
    "LLM without a price": (
        "router-cost", {"s.jsonl": SCORE, "llm_candidates.json": LLMS}, {},
        "s.jsonl: the LLM 'b' has no cost", "add its input_price",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    name, files, options, where, remedy = CASES[case]
    for file, content in files.items():
        if file.endswith(".parquet"):
            pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        if callable(content):
            content(tmp_path / file)
        else:
            (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as error:
        load_dataset(name, source=tmp_path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert f"{tmp_path}/{where}" in message
    assert remedy in message.partition(where)[2]


def test_the_good_files_of_these_cases_are_good(tmp_path: Path) -> None:
    files = {**REC, "t.csv": TABLE, "p.jsonl": LIST}
    for file, content in files.items():
        (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    assert len(load_dataset("rec-music", source=tmp_path, **REC_OPTIONS).train) == 1
    assert len(load_dataset("router-cost", source=tmp_path).train) == 1
    assert len(load_dataset("passage-5", source=tmp_path, candidates=4).train) == 1

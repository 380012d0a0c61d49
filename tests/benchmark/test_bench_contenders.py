"""A benchmark's rows: which there are, what they are called, and what tells their results apart."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchruns import SCORING, Lists, bench_of, row
from r1ranker import fingerprints
from r1ranker.baselines import BASELINES, BM25
from r1ranker.benchmark import contenders as module
from r1ranker.benchmark.contenders import BaselineRow, contenders
from r1ranker.datasets import Dataset, load_dataset
from r1ranker.errors import AssetError, ConfigError, InputError
from r1ranker.evaluation.harness import run_ranker
from r1ranker.fingerprints import code_fingerprint, digest, model_fingerprint
from r1ranker.thoughts import ThoughtBank
from r1ranker.types import RankingExample, Thought

ANY = Path("lists.jsonl")


def names(**settings: Any) -> list[str]:
    return [row.name for row in contenders(bench_of(ANY, **settings))]


def test_all_means_those_that_need_no_model_and_no_long_training() -> None:
    every = set(BASELINES) - {"cross-encoder", "trained-cross-encoder"}
    assert set(names(baselines=["all"])) == every
    rows = contenders(bench_of(ANY, baselines=["all", "bm25"]))
    assert sorted(row.name for row in rows) == sorted(every)
    assert {row.name: row.optional for row in rows}["bm25"] is False
    assert {row.name: row.optional for row in rows}["bpr"] is True


def test_a_model_is_called_by_its_folder_and_how_it_is_asked(tiny_folder: Path) -> None:
    rows = [{"model": str(tiny_folder)}, {"model": str(tiny_folder), "ranker": {"kind": "direct"}}]
    assert names(rows=rows, baselines=["bm25"]) == ["bm25", "tiny iterative", "tiny direct"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baselines": ["bm52"]}, r"unknown baseline 'bm52' \(did you mean 'bm25'\?\)"),
        ({"baselines": ["bm25", "bm25"]}, "two rows are called 'bm25'"),
        ({"baselines": ["all"], "rows": [{"baseline": "bm25", "options": {"b": 0.5}}]}, "two rows are called 'bm25'"),
        ({"rows": [{"baseline": "bm25", "name": "random"}]}, "two rows are called 'random'"),
        ({"rows": [{"baseline": "bm25", "options": {"k": 1}}]}, "'bm25' has no option 'k': it has k1, b"),
        ({"rows": [{"baseline": "popularity", "options": {"k": 1}}]}, "'popularity' has no option 'k': it has none"),
        ({"baselines": ["cross-encoder"]}, "'cross-encoder' has no model of its own"),
    ],
)
def test_rows_that_mean_nothing_are_told_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        names(**settings)


def test_models_that_are_not_there_are_told_at_once(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(AssetError, match="no model is called 'smolm2-135m-instruct'"):
        names(rows=[{"model": "smolm2-135m-instruct"}])
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        names(rows=[{"model": str(tiny_folder), "ranker": {"templates": str(tmp_path / "missing.toml")}}])


def test_seeds_are_for_what_is_random(tiny_folder: Path) -> None:
    rows = [{"model": str(tiny_folder), "name": "greedy"}, {"model": str(tiny_folder), "name": "s", "temperature": 1}]
    made = contenders(bench_of(ANY, baselines=["bm25", "bpr", "sasrec"], rows=rows, seeds=[5, 6]))
    assert {row.name: row.seeds() for row in made} == {
        "bm25": (5,), "bpr": (5, 6), "sasrec": (5, 6), "greedy": (5,), "s": (5, 6),
    }  # fmt: skip


def test_steps_are_calls_for_models_and_lists_for_baselines(lists: Lists, tiny_folder: Path) -> None:
    rows = [{"model": str(tiny_folder), "ranker": {"kind": kind}} for kind in ("iterative", "direct", "first_step")]
    examples = load_dataset(str(lists(5, candidates=4))).test
    made = contenders(bench_of(ANY, baselines=["bm25"], rows=rows))
    assert [row.steps(examples) for row in made] == [5, 15, 5, 5]


def baseline(**row: Any) -> BaselineRow:
    (made,) = contenders(bench_of(ANY, rows=[{"baseline": "bm25", **row}]))
    assert isinstance(made, BaselineRow)
    return made


def test_a_baseline_is_told_by_its_options_and_what_it_learns_from(lists: Lists) -> None:
    one = load_dataset(str(lists(6)), test_fraction=0.5)
    same = baseline().identity(one)
    assert baseline(name="another").identity(one) == same
    assert baseline(options={"b": 0.5}).identity(one) != same
    assert baseline().identity(Dataset("other", (), one.test)) != same
    assert baseline().identity(Dataset("other", one.train, ())) == same
    assert baseline().identity(Dataset("other", one.train, (), popularity={"d0": 1})) != same
    assert baseline().identity(Dataset("other", one.train, (), sequences=(("a", "b"),))) != same
    assert digest(same)  # plain JSON values


def test_other_versions_of_the_libraries_tell_results_apart(
    lists: Lists, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset(str(lists(6)), test_fraction=0.5)
    made = contenders(bench_of(ANY, rows=[row(tiny_folder), {"baseline": "bm25"}, {"baseline": "popularity"}]))
    before = [m.identity(data) for m in made]
    known = fingerprints.version
    monkeypatch.setattr(fingerprints, "version", lambda name: "9.9" if name in ("torch", "bm25s") else known(name))
    after = [m.identity(data) for m in made]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]
    assert after[0]["libraries"]["torch"] == "9.9"
    assert set(module._LIBRARIES) == {info.needs for info in BASELINES.values()}
    assert fingerprints.library_versions("no-such-package") == {}


def test_baselines_suit_scenarios(lists: Lists) -> None:
    passages = load_dataset(str(lists(2)))
    films = load_dataset(str(lists(2, name="films.jsonl", history=True)))
    made = {row.name: row for row in contenders(bench_of(ANY, baselines=["bm25", "popularity", "label-prior"]))}
    assert [made[name].applies(films) for name in ("bm25", "popularity", "label-prior")] == [True, True, False]
    assert [made[name].applies(passages) for name in ("bm25", "popularity", "label-prior")] == [True, False, False]


def test_two_rows_do_not_share_a_run_file(tiny_folder: Path) -> None:
    rows = [row(tiny_folder, name="IRanker (base)"), row(tiny_folder, name="IRanker base")]
    with pytest.raises(
        ConfigError, match=r"the rows 'IRanker \(base\)' and 'IRanker base' would share their run files"
    ):
        contenders(bench_of(ANY, rows=rows))


def test_a_row_is_told_by_its_first_stage_and_leaves_out_data_sets_without_one(lists: Lists, tiny_folder: Path) -> None:
    queries, users = lists(2), lists(2, name="users.jsonl", history=True)
    tables = [
        {},
        {"*": "bm25"},
        {"*": "popularity"},
        {"*users.jsonl": "bm25"},
        {"*": "bm25", "*users.jsonl": "popularity"},
    ]
    rows = [row(tiny_folder, name=str(k), first_stage=table) for k, table in enumerate(tables)]
    made = contenders(bench_of(queries, users, rows=rows))
    passages, films = load_dataset(str(queries)), load_dataset(str(users))
    assert [m.applies(passages) for m in made] == [True, True, False, False, True]  # popularity suits no passages
    assert [m.applies(films) for m in made] == [True, True, True, True, True]
    told = [digest(m.identity(films)) for m in made]
    assert len(set(told)) == 3
    assert told[1] == told[3] != told[2] == told[4]  # the last pattern that matches counts
    assert digest(made[0].identity(films)) == digest(made[0].identity(passages))


def test_a_rows_goals_reach_its_lists_and_tell_its_results_apart(
    lists: Lists, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lists(2, name="routing.jsonl")
    rows = [{**json.loads(line), "scenario": "routing"} for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    data, passages = load_dataset(str(path)), load_dataset(str(lists(2)))
    tables = [{}, {"*": "cheaply"}, {"*": "well", "*routing.jsonl": "cheaply"}, {"*": "well"}]
    rows = [row(tiny_folder, name=str(k), goals=table) for k, table in enumerate(tables)]
    made = contenders(bench_of(path, Path("lists.jsonl"), rows=rows))
    told = [digest(m.identity(data)) for m in made]
    assert len(set(told)) == 3
    assert told[1] == told[2]  # the last pattern that matches counts
    ranked: list[tuple[str, list[str]]] = []

    def watched(name: str, ranker: Any, examples: Sequence[RankingExample], *rest: Any, **more: Any) -> Any:
        ranked.append((name, [example.goal for example in examples]))
        return run_ranker(name, ranker, examples, *rest, **more)

    monkeypatch.setattr(module, "run_ranker", watched)
    for m in made:
        m.rank(data, data.test, 0, lambda _: None)
    goals = ["", "cheaply", "cheaply", "well"]
    assert ranked == [(str(k), [goal, goal]) for k, goal in enumerate(goals)]
    assert made[0].applies(passages)
    with pytest.raises(ConfigError, match=r"the row '1' has a goal for .*, which is no routing: leave it out"):
        made[1].applies(passages)


@pytest.mark.parametrize("baseline", ["bm25", "bpr"])
def test_a_first_stage_is_fitted_once_to_all_lists_as_the_baselines_own_row_is(
    baseline: str, lists: Lists, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []

    def fit(name: str, _data: Dataset, examples: Sequence[RankingExample], **_: object) -> BM25:
        fitted.append((name, len(examples)))
        return BM25()

    monkeypatch.setattr(module, "fit_baseline", fit)
    users = load_dataset(str(lists(6, name="users.jsonl", history=True)), test_fraction=0.5)
    (made,) = contenders(bench_of(ANY, rows=[row(tiny_folder, first_stage={"*": baseline})]))
    for k in range(3):
        made.rank(users, users.test[k : k + 1], 0, lambda _: None)
    assert fitted == [(baseline, 3)]
    made.rank(users, users.test[:1], 1, lambda _: None)  # another seed
    assert len(fitted) == 2
    made.close()
    made.rank(users, users.test[:1], 1, lambda _: None)
    assert len(fitted) == 3


def test_what_a_first_stage_reads_tells_results_apart(lists: Lists, tiny_folder: Path) -> None:
    users = load_dataset(str(lists(6, name="users.jsonl", history=True)), test_fraction=0.5)
    told = {}
    for baseline in ("bm25", "bpr"):
        for limit in (2, 3):
            bench = bench_of(ANY, rows=[row(tiny_folder, first_stage={"*": baseline})], limit=limit)
            (made,) = contenders(bench)
            told[baseline, limit] = digest(made.identity(users))
    assert told["bm25", 2] == told["bm25", 3]
    assert told["bpr", 2] != told["bpr", 3]


def test_the_share_of_fitting_that_is_done_is_told_as_lists(lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object, on_share: Callable[[float], None], **__: object) -> BM25:
        on_share(0.25)
        on_share(1.0)
        return BM25()

    monkeypatch.setattr(module, "fit_baseline", fit)
    passages = load_dataset(str(lists(8)), test_fraction=0.5)
    (made,) = contenders(bench_of(ANY, baselines=["trained-cross-encoder"]))
    told: list[int] = []
    assert len(made.rank(passages, passages.test[:4], 0, told.append).outcomes) == 4
    assert told == [1, 4]


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Any:
    """A copy of the tiny model whose fingerprint is not remembered."""
    shutil.copytree(tiny_folder, tmp_path / "copy")
    yield tmp_path / "copy"
    model_fingerprint.cache_clear()


def test_the_encoder_that_a_baselines_options_name_tells_results_apart(model: Path, lists: Lists) -> None:
    passages = load_dataset(str(lists(2)))
    rows = [{"baseline": "embeddings", "options": options} for options in ({}, {"model": str(model)})]
    plain, named = (
        contender.identity(passages)
        for contender in contenders(bench_of(ANY, rows=[rows[0]])) + contenders(bench_of(ANY, rows=[rows[1]]))
    )
    assert (plain["encoder"], named["encoder"]) == ("", model_fingerprint(model))
    missing = contenders(bench_of(ANY, rows=[{"baseline": "embeddings", "options": {"model": "no/such-encoder"}}]))
    assert missing[0].identity(passages)["encoder"] == ""


def test_a_row_is_told_by_what_its_bank_of_thoughts_holds(lists: Lists, tiny_folder: Path, tmp_path: Path) -> None:
    data = load_dataset(str(lists(2)))

    def identity(name: str, *thoughts: str, **ranker: Any) -> dict[str, Any]:
        path = tmp_path / name
        ThoughtBank(tuple(Thought("e", "passage", "question", t, "x", 1.0, "m") for t in thoughts)).save(path)
        (made,) = contenders(
            bench_of(ANY, rows=[row(tiny_folder, ranker={**SCORING, "thoughts": str(path), **ranker})])
        )
        return made.identity(data)

    (without,) = contenders(bench_of(ANY, rows=[row(tiny_folder)]))
    first = identity("a.jsonl", "one")
    assert first != without.identity(data)
    assert identity("a.jsonl", "two") != first
    assert identity("b.jsonl", "one") == first
    assert identity("a.jsonl", "one", thoughts_shown=2) != first
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
        contenders(bench_of(ANY, rows=[row(tiny_folder, ranker={**SCORING, "thoughts": str(tmp_path / "none.jsonl")})]))


def test_code_is_told_by_every_file() -> None:
    assert code_fingerprint("rankers.py") != code_fingerprint("prompts.py")
    assert code_fingerprint("rankers.py", "prompts.py") == code_fingerprint("prompts.py", "rankers.py")
    assert code_fingerprint("baselines/*.py") != code_fingerprint("baselines/b*.py")


@pytest.mark.parametrize(
    ("entry", "files"),
    [
        ("llm/transformers.py", module._LOCAL),
        ("llm/llamacpp.py", module._GGUF),
        ("llm/vllm.py", module._VLLM),
        ("llm/openai.py", module._SERVER),
    ],
)
def test_code_is_told_by_all_that_a_model_is_asked_through(entry: str, files: tuple[str, ...]) -> None:
    """A module that an LLM comes to use decides its results too: whoever imports one finds it missing here."""
    package = Path(fingerprints.__file__).parent
    found, waiting = set[str](), [entry]
    while waiting:
        name = waiting.pop()
        found.add(name)
        lines = ast.walk(ast.parse((package / name).read_text(encoding="utf-8")))
        modules = [node.module for node in lines if isinstance(node, ast.ImportFrom) and node.module]
        imported = {f"{m.removeprefix('r1ranker.').replace('.', '/')}.py" for m in modules if "r1ranker.llm." in m}
        waiting += sorted(imported - found)
    # base.py says what an LLM is, servers.py where one is
    assert found - {"llm/base.py", "llm/servers.py"} == set(files)


def test_other_code_tells_results_apart(lists: Lists, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset(str(lists(2)))
    rows = [{"model": str(tiny_folder)}, {"model": "openai:m@http://me:secret@localhost:1/v1"}]
    made = contenders(bench_of(ANY, baselines=["bm25"], rows=rows))
    before = [row.identity(data) for row in made]
    assert "secret" not in str(before)
    monkeypatch.setattr(module, "code_fingerprint", lambda *_: "other code")
    assert all(row.identity(data) != identity for row, identity in zip(made, before, strict=True))

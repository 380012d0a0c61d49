"""`r1ranker model pack`, and a packed adapter as one that ships with the package."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

from factories import ExampleFactory
from r1ranker import Reranker
from r1ranker.assets import fetch_model, shipped
from r1ranker.cli import doctor, options, pack
from r1ranker.config import ModelConfig, RankerConfig
from r1ranker.errors import AssetError
from r1ranker.evaluation import Report, make_row
from r1ranker.modelfolder import save_ranker

Invoke = Callable[..., Result]
BASE = "smollm2-135m-instruct"
RANKER = RankerConfig(thinking=False, answer_form="quote", layout="append")
FILES = ["README.md", "SHA256SUMS", "adapter_config.json", "adapter_model.safetensors", "ranker.json"]


@pytest.fixture
def trained(tiny_model: Any, tiny_tokenizer: Any, tiny_folder: Path, tmp_path: Path) -> Path:
    """RUN/model as training leaves it; its base is in a folder of that name, where the tests run."""
    pytest.importorskip("peft")
    from r1ranker.rl.policy import Policy

    shutil.copytree(tiny_folder, tmp_path / BASE)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        policy = Policy(
            copy.deepcopy(tiny_model), tiny_tokenizer, ModelConfig(precision="fp32", lora_rank=2, frozen_layers=1)
        )
        for parameter in policy.parameters:
            parameter.normal_(std=0.1)
    facts = {
        "recipe": "unified",
        "data": "rec-movie+passage-5+lists/own.jsonl",
        "algorithm": "all_actions",
        "steps": 7,
        "seed": 3,
        "seconds": 200.4,
        "fingerprint": "abc123",
        "versions": {"python": "3.11", "torch": "2.13"},
        "last_reward": 0.8,
    }
    folder = tmp_path / "run" / "model"
    save_ranker(folder, policy.model, tiny_tokenizer, RANKER, base=BASE, facts=facts)
    return folder


@pytest.fixture
def ships(cli: Invoke, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an adapter called iranker-135m that ships with the package."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "package")
    assert cli("model", "pack", trained, "--out", tmp_path / "package" / "iranker-135m").exit_code == 0
    return tmp_path / "package" / "iranker-135m"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_packed_folder_holds_the_adapter_and_what_must_be_known(cli: Invoke, trained: Path, tmp_path: Path) -> None:
    result = cli("model", "pack", trained, "--out", "given/away")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "given/away\n"
    folder = tmp_path / "given" / "away"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["away"]  # nothing is left beside it
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    before = load_file(str(trained / "adapter_model.safetensors"))
    after = load_file(str(folder / "adapter_model.safetensors"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], tensor.half()) for key, tensor in before.items())
    assert json.loads((folder / "ranker.json").read_text()) == json.loads((trained / "ranker.json").read_text())
    config, own = (json.loads((f / "adapter_config.json").read_text()) for f in (folder, trained))
    assert config == {**own, "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # peft knows no other
    assert own["base_model_name_or_path"] == BASE == shipped.base_name(folder / "adapter_config.json")
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder).returncode == 0
    listed = [line.partition("  ")[2] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert listed == FILES[2:]  # all but the card, which its owner may rewrite


@pytest.mark.parametrize(
    ("algorithm", "learned"), [("all_actions", "reinforcement learning"), ("listwise", "supervision")]
)
def test_the_card_tells_how_it_was_learned(cli: Invoke, trained: Path, algorithm: str, learned: str) -> None:
    told = json.loads((trained / "ranker.json").read_text())
    key = next(name for name, value in told.items() if isinstance(value, dict) and "algorithm" in value)
    edit(trained / "ranker.json", **{key: {**told[key], "algorithm": algorithm}})
    assert cli("model", "pack", trained, "--out", "mine").exit_code == 0
    assert f"a ranker, trained by {learned} with r1ranker" in Path("mine/README.md").read_text(encoding="utf-8")


def test_the_card_tells_the_runs_facts_and_the_licences(cli: Invoke, trained: Path) -> None:
    recipe = {"data": {"sources": {"passage-5": "/home/me/data/selqa/"}}}
    (trained.parent / "config.json").write_text(json.dumps(recipe))
    cli("model", "pack", trained, "--out", "mine")
    card = Path("mine/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n")
    tensors = load_file(str(trained / "adapter_model.safetensors"))
    for line in (
        "# mine",
        f"| base model | `{BASE}` (HuggingFaceTB/SmolLM2-135M-Instruct) |",
        "| licence | Apache-2.0, as the base model |",
        "| ranks | iteratively, one exclusion a turn, without thinking; ranker.json says all of it |",
        "| recipe | unified |",
        "| steps | 7 |",
        "| seed | 3 |",
        "| training time | 3 min 20 s |",
        "| software | python 3.11, torch 2.13 |",
        f"| weights | {sum(tensor.numel() for tensor in tensors.values()):,} in float16 |",
        "| training data, SHA-256 | abc123 |",
        "| `rec-movie` | MovieLens: the next movie of a user | MovieLens-100K, fetched from the recbole wheel on PyPI "
        "| MovieLens terms of use: may not be redistributed |",
        "| `passage-5` | a question and 5 passages, one of which answers it | MS MARCO v1.1, or any file in its "
        "layout, such as SelQA; read from selqa | MS MARCO: non-commercial research; SelQA: Apache-2.0 |",
        "| `own.jsonl` | not known to r1ranker | own lists | say it here before you give this away |",
    ):
        assert line in card.splitlines(), line
    assert "## Figures" not in card


def test_the_card_tells_what_an_adapter_began_at(cli: Invoke, trained: Path) -> None:
    file = trained / "ranker.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    first = {"recipe": "someone/adapter"}
    second = {"recipe": "first", "algorithm": "grpo", "steps": 9, "seed": 0, "data": "rec-movie", "began_at": first}
    written["facts"]["began_at"] = second
    file.write_text(json.dumps(written), encoding="utf-8")
    cli("model", "pack", trained, "--out", "mine")
    card = Path("mine/README.md").read_text(encoding="utf-8")
    line = "| began at | first, grpo, 9 steps, seed 0, on rec-movie; before that someone/adapter |"
    assert line in card.splitlines()


def report(name: str, dataset: str, place: int, make_example: ExampleFactory) -> Report:
    """One ranker on one list of three, which puts the positive in this place."""
    from r1ranker.types import Trace

    example = make_example(3, id="q")
    ranking = ["c2", "c3"]
    ranking.insert(place - 1, "c1")
    row = make_row(name, dataset, [example], [Trace("q", tuple(ranking))])
    return Report((row,), name)


def test_the_card_shows_the_figures_of_reports(
    cli: Invoke, trained: Path, make_example: ExampleFactory, tmp_path: Path
) -> None:
    for name, dataset, place in (("new", "d1", 1), ("old", "d2", 2), ("new", "d2", 3)):
        folder = tmp_path / f"{name}-{dataset}"
        folder.mkdir()
        content = report(name, dataset, place, make_example).to_dict()
        if dataset == "d2":  # as `bench` writes it
            content = {"cells": content["rows"], "scenarios": {}}
        (folder / "report.json").write_text(json.dumps(content))
    reports = ("--report", "new-d1/report.json", "--report", "old-d2", "--report", "new-d2")
    assert cli("model", "pack", trained, "--out", "mine", *reports).exit_code == 0
    lines = Path("mine/README.md").read_text(encoding="utf-8").splitlines()
    at = lines.index("| ranker | d1 | d2 |")
    assert lines[at - 2] == "MRR with 95% intervals, on held-out queries (d1 1, d2 1)."
    assert lines[at + 2 : at + 4] == [
        "| new | 1.000 [1.000, 1.000] | 0.333 [0.333, 0.333] |",
        "| old | - | 0.500 [0.500, 0.500] |",
    ]
    twice = cli("model", "pack", trained, "--out", "again", "--report", "new-d2", "--report", "new-d2")
    assert (twice.exit_code, "'new' on d2 stands in two of the reports" in twice.stderr) == (1, True)
    none = cli("model", "pack", trained, "--out", "again", "--report", "run/model/ranker.json")
    assert (none.exit_code, "is no report that can be read" in none.stderr) == (1, True)
    assert not Path("again").exists()


def test_what_cannot_be_given_away_is_refused(
    cli: Invoke, trained: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*said: str, folder: Path = trained, out: str = "mine") -> None:
        result = cli("model", "pack", folder, "--out", out)
        assert result.exit_code == 1
        assert all(text in result.stderr for text in said), result.stderr
        assert result.stderr.count("\n") == 1
        assert out == "run" or not Path(out).exists()

    refused("holds no LoRA adapter: train with model.lora_rank > 0", folder=tiny_folder)
    refused("run is there already: choose a new folder", out="run")
    monkeypatch.setattr(pack, "LIMIT", 10_000)
    refused("MB packed, and 0 MB are allowed: train with a lower model.lora_rank")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)

    config, ranker = trained / "adapter_config.json", trained / "ranker.json"
    edit(config, base_model_name_or_path=str(tmp_path / BASE))
    refused(f"names the base {tmp_path / BASE}, which lies on this machine")
    edit(config, base_model_name_or_path="org/some-model")
    assert cli("model", "pack", trained, "--out", "hub").exit_code == 0
    card = Path("hub/README.md").read_text()
    assert card.startswith("---\nbase_model: org/some-model\n")
    assert "see the base model" in card
    assert json.loads(Path("hub/ranker.json").read_text())["base"] == "org/some-model"

    edit(ranker, ranker={**RANKER.model_dump(mode="json"), "templates": "/home/me/own.toml"})
    refused("takes its wording from /home/me/own.toml")
    kept = ranker.read_text()
    ranker.unlink()
    refused("has no ranker.json: give the model's folder of a run of r1ranker train")
    ranker.write_text(kept)
    weights = load_file(str(trained / "adapter_model.safetensors"))
    first = next(iter(weights))
    save_file({**weights, first: weights[first] * 1e9}, str(trained / "adapter_model.safetensors"))
    refused(f"{first} holds values that float16 cannot")


def test_a_shipped_adapter_is_a_model_by_name(ships: Path, trained: Path) -> None:
    assert fetch_model("iranker-135m") == ships
    reranker = Reranker.load("iranker-135m", device="cpu", dtype="float32")
    assert reranker.llm.name == "iranker-135m"
    assert reranker.config == RANKER
    documents = ["Rome was not built in a day.", "Bread is made of flour.", "A whale is a mammal."]
    result = reranker.rank("What is bread?", documents)
    same = Reranker.load(trained, device="cpu", dtype="float32").rank("What is bread?", documents)
    assert [d.id for d in result] == [d.id for d in same]
    for ours, theirs in zip(result.trace.turns, same.trace.turns, strict=True):  # half precision is all that differs
        assert ours.completion.choice_logprobs == pytest.approx(theirs.completion.choice_logprobs, abs=0.01)


def test_close_names_and_sources_of_a_shipped_adapter(ships: Path) -> None:
    with pytest.raises(AssetError, match="no model is called 'iranker-153m': did you mean 'iranker-135m'"):
        fetch_model("iranker-153m")
    with pytest.raises(AssetError, match="no model is called 'q': there is iranker-135m, smollm2-135m-instruct, "):
        fetch_model("q")
    with pytest.raises(AssetError, match="iranker-135m comes with the package: leave out the source"):
        fetch_model("iranker-135m", source="hub")
    assert ships.is_dir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "ranker.json").write_text("{}"), "ranker.json has another SHA-256 than SHA256SUMS says"),
        (lambda f: (f / "ranker.json").unlink(), "ranker.json is missing"),
        (lambda f: (f / "more.json").write_text("{}"), "more.json is not in SHA256SUMS"),
        (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS cannot be read"),
    ],
)
def test_a_damaged_adapter_is_not_loaded(ships: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(ships)
    with pytest.raises(AssetError) as caught:
        fetch_model("iranker-135m")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{ships} is damaged: ")
    assert str(caught.value).endswith("Install r1ranker again")


def test_a_shipped_adapter_is_listed_fetched_and_the_default(
    cli: Invoke, ships: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = cli("model", "list").stdout
    assert "iranker-135m" in listed
    assert "in the package" in listed
    fetched: list[str] = []

    def fetch(name: str, **_: Any) -> Path:
        fetched.append(name)
        return ships if name == "iranker-135m" else tmp_path / BASE

    with monkeypatch.context() as patch:
        patch.setattr("r1ranker.assets.fetch_model", fetch)
        assert cli("model", "fetch", "iranker-135m").stdout.strip() == str(ships)
    assert fetched == ["iranker-135m", BASE]
    assert shipped.default_model() == "iranker-135m"
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nothing")
    assert shipped.default_model() == BASE


def test_rank_says_which_model_it_takes(ships: Path, cli: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = ("rank", "-q", "bread", "-d", "flour", "-d", "a whale")
    said = "ranking with {}: --model takes another"
    for name, shown in (("iranker-135m", "iranker-135m"), (BASE, f"{BASE}, which was not trained to rank")):
        monkeypatch.setattr(options, "DEFAULT_MODEL", name)
        result = cli(*lists, "--model", name)
        assert result.exit_code == 0, result.stderr
        assert said.format(shown) in result.stderr.splitlines()
    assert "ranking with" not in cli(*lists, "--model", ships).stderr


def test_doctor_checks_the_default_adapter_and_its_base(
    ships: Path, cli: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "DEFAULT_MODEL", "iranker-135m")
    found = {finding.what: finding for finding in doctor._models(reachable=True)}
    assert found["ranker"].found == "iranker-135m, every checksum holds"
    assert (found["model"].state, found["model"].remedy) == ("note", f"r1ranker model fetch {BASE} (about a minute)")
    (ships / "ranker.json").unlink()
    (finding,) = doctor._models(reachable=True)
    assert (finding.state, "ranker.json is missing" in finding.found) == ("fail", True)
    assert cli("model", "list").exit_code == 0


@pytest.mark.parametrize("name", sorted(shipped.shipped_adapters()))
def test_what_ships_is_whole_small_and_over_a_known_base(name: str) -> None:
    from r1ranker.assets import ASSETS
    from r1ranker.llm.lora import read_lora

    folder = fetch_model(name)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) <= pack.LIMIT
    assert shipped.base_name(folder / "adapter_config.json") in ASSETS
    assert name not in ASSETS
    assert {tensor.dtype for tensor in read_lora(folder)[1].values()} == {torch.float16}

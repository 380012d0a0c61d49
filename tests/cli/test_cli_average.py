"""`r1ranker model average`: several adapters made into one that is asked as they are."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

from r1ranker.cli.average import facts_of_mean
from r1ranker.config import ModelConfig, RankerConfig
from r1ranker.llm.load import load_model
from r1ranker.modelfolder import read_facts, read_ranker, save_ranker

pytest.importorskip("peft")

Invoke = Callable[..., Result]
Make = Callable[..., Path]
RANKER = RankerConfig(thinking=False, answer_form="quote", layout="append")
BEGAN = {"recipe": "unified", "algorithm": "all_actions", "steps": 160, "seed": 0}


@pytest.fixture
def make(tiny_model: Any, tiny_tokenizer: Any, tiny_folder: Path, tmp_path: Path) -> Make:
    """make(name, seed): NAME/model as training leaves it; all began at the same weights, and each changed them."""
    from r1ranker.rl.policy import Policy

    def one(name: str, seed: int, *, ranker: RankerConfig = RANKER, base: str | None = None, **model: Any) -> Path:
        config = ModelConfig(precision="fp32", lora_rank=2, **{"frozen_layers": 1, **model})
        policy = Policy(copy.deepcopy(tiny_model), tiny_tokenizer, config)
        start, draw = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in policy.parameters:
                parameter.copy_(torch.randn(parameter.shape, generator=start) * 0.1)
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.02)
        facts = {
            "recipe": name,
            "began_at": BEGAN,
            "data": "rec-movie",
            "algorithm": "all_actions",
            "steps": 80,
            "seconds": 100.0 + seed,
            "last_reward": seed / 10,
        }
        folder = tmp_path / name / "model"
        save_ranker(folder, policy.model, tiny_tokenizer, ranker, base=base or str(tiny_folder), facts=facts)
        return folder

    return one


def layers(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a base and its adapter."""
    return dict(load_model(folder, device="cpu", dtype="float32")[0].state_dict())


def test_the_mean_adds_the_mean_of_what_they_add(cli: Invoke, make: Make, tiny_folder: Path, tmp_path: Path) -> None:
    one, two = make("one", 1), make("two", 2, lora_alpha=64)
    result = cli("model", "average", one, two, "--out", "the/mean")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "the/mean\n"
    lost = float(result.stderr.split("%")[0]) / 100
    assert 0 < lost < 0.3
    out = tmp_path / "the" / "mean"
    assert [path.name for path in out.parent.iterdir()] == ["mean"]  # nothing is left beside it
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1
    base, first, second, mean = map(layers, (tiny_folder, one, two, out))
    changed = [name for name in base if not torch.equal(base[name], first[name])]
    assert changed
    whole = off = 0.0
    for name in base:
        expected = (first[name] + second[name]) / 2
        whole += float((expected - base[name]).square().sum())
        off += float((mean[name] - expected).square().sum())
        assert name in changed or torch.equal(mean[name], base[name])
    assert (off / whole) ** 0.5 == pytest.approx(lost, abs=6e-4)  # shown to a tenth of a per cent


def test_the_mean_of_one_training_and_its_copy_is_the_training(cli: Invoke, make: Make, tmp_path: Path) -> None:
    one = make("one", 1)
    shutil.copytree(one, tmp_path / "copy")
    result = cli("model", "average", one, "copy", "--out", "mean")
    assert result.stderr.startswith("0.0% of what the mean adds")
    first, mean = layers(one), layers(tmp_path / "mean")
    for name, weight in first.items():
        torch.testing.assert_close(mean[name], weight, atol=1e-5, rtol=1e-5)


def test_the_mean_is_asked_as_they_are_and_says_whose_it_is(cli: Invoke, make: Make, tmp_path: Path) -> None:
    cli("model", "average", make("one", 1), make("two", 2), "--out", "mean")
    out = tmp_path / "mean"
    assert read_ranker(out) == RANKER
    facts = read_facts(out)
    assert facts == {
        "began_at": BEGAN,
        "data": "rec-movie",
        "algorithm": "all_actions",
        "steps": 80,
        "mean_of": [
            {"recipe": "one", "seconds": 101.0, "last_reward": 0.1},
            {"recipe": "two", "seconds": 102.0, "last_reward": 0.2},
        ],
        "seconds": 203.0,
    }


def test_a_mean_is_packed_and_its_card_tells_of_all_trainings(cli: Invoke, make: Make, tmp_path: Path) -> None:
    cli("model", "average", make("one", 1, base="org/base"), make("two", 2, base="org/base"), "--out", "mean")
    assert cli("model", "pack", "mean", "--out", "given").exit_code == 0
    lines = (tmp_path / "given" / "README.md").read_text(encoding="utf-8").splitlines()
    assert "| began at | unified, all_actions, 160 steps, seed 0 |" in lines
    assert "| mean of | one; two |" in lines
    assert "| training time | 3 min 23 s |" in lines


def test_facts_that_differ_are_of_each() -> None:
    assert facts_of_mean([{"seed": 0, "steps": 5}, {"seed": 1, "steps": 5}]) == {
        "steps": 5,
        "mean_of": [{"seed": 0}, {"seed": 1}],
    }
    one = {"steps": 5, "data": "a", "options": {"a": {}}, "fingerprint": "x"}
    assert facts_of_mean([one, {**one, "fingerprint": "y"}]) == {  # what each learned from is told as a whole
        "steps": 5,
        "mean_of": [
            {"data": "a", "options": {"a": {}}, "fingerprint": "x"},
            {"data": "a", "options": {"a": {}}, "fingerprint": "y"},
        ],
    }
    nested = facts_of_mean([{"mean_of": [{"seed": 0}, {"seed": 1}]}, {"seed": 2}])  # a mean of a mean
    assert nested == {"mean_of": [{"mean_of": [{"seed": 0}, {"seed": 1}]}, {"seed": 2}]}


def test_what_has_no_mean_is_refused(cli: Invoke, make: Make, tiny_folder: Path) -> None:
    one, two = make("one", 1), make("two", 2)

    def refuse(said: str, *folders: Path, out: str = "mean") -> None:
        result = cli("model", "average", *folders, "--out", out)
        assert result.exit_code == 1
        assert said in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1
        assert not Path("mean").exists()

    refuse("a mean is of two adapters or more", one)
    refuse(f"{one} is given twice", one, two, one)
    refuse(f"{tiny_folder} holds no LoRA adapter", one, tiny_folder)
    refuse("one is there already: choose a new folder", one, two, out="one")
    refuse("was trained on org/base, and", one, make("other-base", 3, base="org/base"))
    asked = make("asked", 3, ranker=RANKER.model_copy(update={"layout": "rebuild"}))
    refuse("ranker.json has layout = 'rebuild', and", one, asked)
    higher = make("higher", 3, frozen_layers=2)
    refuse("a mean is of adapters that were trained with the same model.frozen_layers", one, higher)
    weights = load_file(str(two / "adapter_model.safetensors"))
    save_file(dict(list(weights.items())[1:]), str(two / "adapter_model.safetensors"))
    refuse("do not fit together: save the adapter again", one, two)
    (two / "ranker.json").unlink()
    refuse(f"{two} has no ranker.json", one, two)

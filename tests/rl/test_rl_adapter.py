"""An adapter that goes on: what it begins at, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from r1ranker.config import ModelConfig, RankerConfig, RunConfig, parse_config
from r1ranker.errors import AssetError, ConfigError
from r1ranker.llm.packing import Pack, decoder_blocks
from r1ranker.modelfolder import save_ranker
from r1ranker.rl.policy import Policy
from r1ranker.rl.trainer import Trainer
from r1ranker.types import RankingExample

pytest.importorskip("peft")

PACKS = [Pack(list(range(40, 60)), [[100, 101, 102], [110]]), Pack([70, 71], [[130, 131]])]
LORA = {"lora_rank": 2, "lora_alpha": 8, "frozen_layers": 1}


def logprobs(policy: Policy) -> Tensor:
    with torch.no_grad():
        return policy.packed(PACKS)[2]


@pytest.fixture
def trained(make_policy: Callable[..., Policy], tiny_folder: Path, tmp_path: Path) -> tuple[Policy, Path]:
    """A policy whose adapter differs from nothing, and the folder it was saved in."""
    policy = make_policy(**LORA)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_ranker(
        tmp_path / "model",
        policy.model,
        policy.tokenizer,
        RankerConfig(thinking=False),
        base=str(tiny_folder),
        facts={},
    )
    return policy, tmp_path / "model"


def load(base: Path, adapter: Path | None, **settings: Any) -> Policy:
    adapters = {} if adapter is None else {"adapter": str(adapter)}
    return Policy.load(
        ModelConfig(**{"path": str(base), "device": "cpu", "precision": "fp32", **LORA, **adapters, **settings})
    )


def test_a_new_adapter_is_drawn_by_the_seed_alone(tiny_folder: Path, tiny_model: Any, tiny_tokenizer: Any) -> None:
    config = ModelConfig(path=str(tiny_folder), device="cpu", precision="fp32", **LORA)
    drawn = []
    for generator, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(generator)
        after = torch.get_rng_state()
        drawn.append(Policy.load(config, seed).parameters)
        assert torch.equal(torch.get_rng_state(), after)
    own = Policy(copy.deepcopy(tiny_model), tiny_tokenizer, config, seed=0).parameters
    assert len(own) == len(drawn[0]) > 0
    for one, again, other, mine in zip(*drawn, own, strict=True):
        assert torch.equal(one, again)
        assert torch.equal(one, mine)
        assert torch.equal(one, other) is not bool(one.any())  # B is 0 with every seed
    assert sum(bool(one.any()) for one in drawn[0]) == len(drawn[0]) // 2


def test_an_adapter_makes_no_larger_model(make_policy: Callable[..., Policy]) -> None:
    plain, adapted = make_policy(), make_policy(**LORA)
    assert sum(p.numel() for p in adapted.model.parameters()) > sum(p.numel() for p in plain.model.parameters())
    assert adapted.llm.parameters == plain.llm.parameters


def test_it_begins_where_the_adapter_ended(trained: tuple[Policy, Path], tiny_folder: Path) -> None:
    first, folder = trained
    again, new = load(tiny_folder, folder), load(tiny_folder, None)
    torch.testing.assert_close(logprobs(again), logprobs(first), atol=1e-5, rtol=0)
    assert (logprobs(new) - logprobs(first)).abs().max() > 0.01


def test_it_draws_other_states_than_the_run_before_it(
    trained: tuple[Policy, Path],
    tiny_folder: Path,
    recipe: Callable[..., RunConfig],
    make_example: Callable[..., RankingExample],
    tmp_path: Path,
) -> None:
    examples = [make_example(3, id=f"e{k}") for k in range(40)]
    drawn = []
    for adapter in (None, trained[1]):
        settings = {"path": str(tiny_folder), **LORA, **({"adapter": str(adapter)} if adapter else {})}
        config = recipe(model=settings, states_per_step=8)
        for _ in range(2):
            trainer = Trainer(config, load(tiny_folder, adapter), examples, tmp_path)
            drawn.append([s.example.id for s in trainer.training.stream.at(0)])
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]
    assert drawn[0] != drawn[2]


def test_its_weights_train_and_no_others(trained: tuple[Policy, Path], tiny_folder: Path) -> None:
    first, folder = trained
    again = load(tiny_folder, folder)
    assert sorted(p.shape for p in again.parameters) == sorted(p.shape for p in first.parameters)
    again.packed(PACKS)[2].sum().backward()
    assert again.parameters
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in again.parameters)


def test_the_adapter_it_saves_is_one_of_the_base(
    trained: tuple[Policy, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    first, folder = trained
    again = load(tiny_folder, folder)
    asked = RankerConfig(thinking=False)
    save_ranker(tmp_path / "on", again.model, again.tokenizer, asked, base=again.config.path, facts={})
    assert json.loads((tmp_path / "on" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_folder
    )
    torch.testing.assert_close(logprobs(load(tiny_folder, tmp_path / "on")), logprobs(first), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_alpha": 4}, "has lora_alpha = 8, and model.lora_alpha is 4"),
        ({"lora_rank": 4}, "layers.1.mlp.down_proj.lora_A.weight: give model.lora_rank and model.frozen_layers"),
        ({"frozen_layers": 2}, "layers.1.mlp.down_proj.lora_A.weight: give model.lora_rank and model.frozen_layers"),
        ({"frozen_layers": 0}, "layers.0.mlp.down_proj.lora_A.weight: give model.lora_rank and model.frozen_layers"),
    ],
    ids=str,
)
def test_an_adapter_of_other_settings_is_refused(
    trained: tuple[Policy, Path], tiny_folder: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tiny_folder, trained[1], **settings)
    assert said in str(error.value)


def test_an_adapter_scaled_as_rslora_is_refused(trained: tuple[Policy, Path], tiny_folder: Path) -> None:
    file = trained[1] / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "use_rslora": True}))
    with pytest.raises(ConfigError, match="lora_alpha = 8 and rsLoRA"):
        load(tiny_folder, trained[1])


def test_an_adapter_of_another_base_is_refused(trained: tuple[Policy, Path], tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(tiny_folder)
    load(tmp_path / "other", trained[1])  # the same folder by another name is the same base
    file = trained[1] / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(ConfigError, match="give it its own base"):
        load(tiny_folder, trained[1])


def test_a_model_is_no_adapter_and_a_missing_one_is_named(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="holds no adapter"):
        load(tiny_folder, tiny_folder)
    with pytest.raises(AssetError, match=r"model\.adapter.* 'runs/nowhere/model'.*; or train that adapter first"):
        load(tiny_folder, Path("runs/nowhere/model"))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"adapter": "some"}}, "set model.lora_rank to its rank"),
        ({"model": {"adapter": "some", "lora_rank": 2}, "train": {"kl_coef": 0.1}}, "set train.kl_coef = 0"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(sections, "test")
    assert said in str(error.value)


def test_the_wrapping_is_in_the_mode_of_what_it_wraps(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy(**LORA)
    assert {module.training for module in policy.model.modules()} == {False}  # dropout would make another policy


def test_a_decoder_whose_layers_are_not_known_is_told() -> None:
    class Odd(nn.Module):
        def get_decoder(self) -> nn.Module:
            return nn.Linear(1, 1)

    with pytest.raises(ConfigError, match="the layers of a Linear are not known: set "):
        decoder_blocks(Odd())

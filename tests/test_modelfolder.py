from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1ranker.config import ModelConfig, RankerConfig
from r1ranker.errors import AssetError
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.modelfolder import facts_of, read_ranker, save_ranker
from r1ranker.rl.policy import Policy
from r1ranker.types import RankingExample, Sampling

RANKER = RankerConfig(thinking=False, answer_form="name", sharpness=2.5, layout="append")


@pytest.fixture
def scores(make_example: Callable[..., RankingExample]) -> Callable[[TransformersLLM], torch.Tensor]:
    """What a backend scores for one request."""
    example = make_example(4)
    ranker = RANKER.build(None)

    def run(llm: TransformersLLM) -> torch.Tensor:
        request = ranker.request(example, example.ids)  # type: ignore[call-arg]
        return torch.tensor(llm.complete([request], Sampling())[0].choice_logprobs)

    return run


def trained(model: Any, tokenizer: Any, **settings: Any) -> Policy:
    policy = Policy(copy.deepcopy(model), tokenizer, ModelConfig(precision="fp32", **settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.parameters:
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return policy


def load(folder: Path) -> TransformersLLM:
    return TransformersLLM.load(folder, device="cpu", dtype="float32")


def test_a_full_model_is_saved_and_read_back(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path, scores: Callable[[TransformersLLM], torch.Tensor]
) -> None:
    policy = trained(tiny_model, tiny_tokenizer)
    folder = tmp_path / "new" / "model"
    save_ranker(folder, policy.model, tiny_tokenizer, RANKER, base="tiny", facts={"steps": 7})
    assert read_ranker(folder) == RANKER
    written = json.loads((folder / "ranker.json").read_text())
    assert (written["base"], written["facts"]) == ("tiny", {"steps": 7})
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # who may read the one may read all
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in folder.iterdir()}
    torch.testing.assert_close(scores(load(folder)), scores(policy.llm), atol=1e-5, rtol=0)
    base = scores(TransformersLLM(tiny_model, tiny_tokenizer, name="base"))
    assert float((scores(policy.llm) - base).abs().max()) > 1e-2


def test_an_adapter_is_saved_beside_its_base(
    tiny_model: Any,
    tiny_tokenizer: Any,
    tiny_folder: Path,
    tmp_path: Path,
    scores: Callable[[TransformersLLM], torch.Tensor],
) -> None:
    policy = trained(tiny_model, tiny_tokenizer, lora_rank=2, frozen_layers=1)
    save_ranker(tmp_path / "a", policy.model, tiny_tokenizer, RANKER, base=str(tiny_folder), facts={})
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "ranker.json"} <= names
    assert not any(n.startswith(("model", "tokenizer")) for n in names)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_folder)
    assert read_ranker(tmp_path / "a") == RANKER
    torch.testing.assert_close(scores(load(tmp_path / "a")), scores(policy.llm), atol=1e-5, rtol=0)
    assert float((scores(policy.llm) - scores(load(tiny_folder))).abs().max()) > 1e-2


def test_saving_an_adapter_asks_the_hub_nothing(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *a, **_: asked.append(a))
    policy = trained(tiny_model, tiny_tokenizer, lora_rank=2)
    save_ranker(tmp_path, policy.model, tiny_tokenizer, RANKER, base="smollm2-135m-instruct", facts={})
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert asked == []


def test_saving_again_replaces_what_was_there(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    for ranker in (RANKER, RankerConfig(kind="direct", max_tokens=5)):
        save_ranker(tmp_path, tiny_model, tiny_tokenizer, ranker, base="tiny", facts={})
    assert read_ranker(tmp_path) == RankerConfig(kind="direct", max_tokens=5)


def test_what_is_known_of_a_training_is_found_at_every_place(tmp_path: Path) -> None:
    (tmp_path / "ranker.json").write_text(json.dumps({"ranker": {}, "facts": {"recipe": "mine"}}), encoding="utf-8")
    (tmp_path / "model.gguf").write_bytes(b"")
    for place in (tmp_path, tmp_path / "model.gguf", f"vllm:{tmp_path}"):
        assert facts_of(place) == {"recipe": "mine"}
    assert facts_of("openai:gpt@http://localhost") == {}
    assert facts_of(tmp_path / "elsewhere" / "other.gguf") == {}


def test_a_model_from_elsewhere_says_nothing(tiny_folder: Path) -> None:
    assert read_ranker(tiny_folder) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b'{"ranker": 3}',
        b'{"ranker": {"thinkin": true}}',
        b'{"ranker": {"kind": "both"}}',
        b'{"ranker": {"quote_words": 0}}',
    ],
)
def test_a_broken_file_is_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ranker.json").write_bytes(content)
    with pytest.raises(AssetError, match=r"ranker\.json: cannot be read \(.+\); save the model again"):
        read_ranker(tmp_path)

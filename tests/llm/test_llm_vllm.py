"""vLLM's backend, against a stub of its interface."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backends import stub_vllm

from r1ranker.errors import AssetError, InputError, MissingExtraError
from r1ranker.llm.vllm import VllmLLM, _allowed_rank
from r1ranker.modelfolder import short_name
from r1ranker.reranker import Reranker, locate
from r1ranker.types import Prompt, Request, Sampling

FREE = Request(Prompt("You rank.", "Which one?", "<think>"))
CHOOSING = replace(FREE, choices=("Rome", "Paris"))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stub_vllm(monkeypatch)


def test_how_the_engine_is_made_and_asked(stub: Any, tiny_folder: Path) -> None:
    llm = VllmLLM.load(tiny_folder, max_model_len=100)
    (engine,) = stub.made
    assert engine.options == {"model": str(tiny_folder), "enable_prefix_caching": True, "max_model_len": 100}
    assert llm.parameters == sum(p.numel() for p in engine.model.parameters())
    llm.complete([FREE, CHOOSING, FREE], Sampling(temperature=0.5, max_tokens=7, seed=1))
    (prompts, params, lora), (scored, scoring, _) = engine.calls  # one call for what is written, one for what is scored
    assert lora is None
    assert prompts == [llm.chat.encode(FREE.prompt)] * 2
    assert [(p.temperature, p.max_tokens, p.stop, p.include_stop_str_in_output, p.logprobs) for p in params] == [
        (0.5, 7, ["</answer>"], True, 0)
    ] * 2
    assert params[0].seed != params[1].seed
    assert len(scored) == 2
    assert {(p.temperature, p.max_tokens, p.prompt_logprobs) for p in scoring} == {(0.0, 1, 0)}


def test_copies_are_scored_once(stub: Any, tiny_folder: Path) -> None:
    llm = VllmLLM.load(tiny_folder)
    llm.complete([CHOOSING] * 5, Sampling())
    assert [len(prompts) for prompts, _, _ in stub.made[0].calls] == [2]


def test_log_probs_are_told_where_they_are_the_policys(stub: Any, tiny_folder: Path) -> None:  # noqa: ARG001
    llm = VllmLLM.load(tiny_folder)
    told = [llm.complete([FREE], Sampling(t, max_tokens=3))[0].logprobs for t in (0.0, 0.5, 1.0)]
    assert [len(logprobs) for logprobs in told] == [3, 0, 3]


def test_an_adapter_goes_over_its_base(stub: Any, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": str(tiny_folder), "r": 12}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    llm = VllmLLM.load(folder)
    llm.complete([FREE], Sampling(max_tokens=2))
    (engine,) = stub.made
    assert engine.options["model"] == str(tiny_folder)
    assert (engine.options["enable_lora"], engine.options["max_loras"], engine.options["max_lora_rank"]) == (
        True,
        1,
        16,
    )
    assert engine.calls[0][2].lora_path == str(folder.resolve())
    assert [_allowed_rank(rank) for rank in (1, 8, 9, 256, 300)] == [8, 8, 16, 256, 300]


def test_what_it_cannot_do_is_told(
    stub: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = VllmLLM.load(tiny_folder)
    with pytest.raises(InputError, match="cannot hold a reply"):
        llm.complete([replace(FREE, answers=("a", "b"))], Sampling())

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no GPU\nwas found")

    monkeypatch.setattr(stub, "__init__", fails)
    with pytest.raises(AssetError, match=r"vLLM cannot load it \(no GPU\)"):
        VllmLLM.load(tiny_folder)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"r1ranker\[vllm\]"):
        VllmLLM.load(tmp_path)


def test_a_reranker_by_its_spec(stub: Any, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "run" / "model"))
    (folder / "ranker.json").write_text('{"ranker": {"thinking": false, "sharpness": 2.5}}')
    spec = f"vllm:{folder}"
    place, own = locate(spec)
    assert place == spec
    assert own is not None
    assert short_name(spec) == "run/model"
    reranker = Reranker.load(spec)
    assert len(stub.made) == 1
    assert (reranker.llm.name, reranker.config.sharpness) == (spec, 2.5)
    documents = ["In Italy.", "A whale.", "Bread is made of flour."]
    expected = Reranker.load(folder).rank("Where is Rome?", documents)
    assert [d.id for d in reranker.rank("Where is Rome?", documents)] == [d.id for d in expected]

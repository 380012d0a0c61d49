"""llama.cpp in this process: what the conformance suite does not see."""

from __future__ import annotations

import http.client
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")

from r1ranker.errors import AssetError, ConfigError, InputError, MissingExtraError
from r1ranker.llm.export import export_gguf
from r1ranker.llm.llamacpp import LlamaCppLLM
from r1ranker.llm.llamaserver import _threads
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.modelfolder import gguf_file, short_name
from r1ranker.reranker import Reranker, locate
from r1ranker.types import Prompt, Request, Sampling

GREEDY = Sampling(max_tokens=40)
ANSWERS = ('Heat "1995" \\n', "Amélie 🎬", "Toy Story")


@pytest.fixture(scope="module")
def gguf(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_gguf(tiny_folder, tmp_path_factory.mktemp("gguf") / "tiny.gguf", type="f32")


@pytest.fixture(scope="module")
def llm(gguf: Path) -> LlamaCppLLM:
    return LlamaCppLLM(gguf, threads=1)


def with_template(folder: Path, target: Path, template: str | None, **special: str) -> Path:
    from transformers import AutoTokenizer

    shutil.copytree(folder, target)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.add_special_tokens(special)
    (target / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize(
    ("template", "special"),
    [
        (None, {}),
        (None, {"bos_token": "<|endoftext|>"}),
        (
            "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]"
            "{{ m['content'] | trim }}{{ eos_token }}{% endfor %}",
            {"bos_token": "<|endoftext|>"},
        ),
        (
            "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
            "<|im_start|>{{ m['content'] }}{% endfor %}",
            {},
        ),
    ],
)
def test_prompts_are_those_of_the_transformers_backend(
    template: str | None, special: dict[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = with_template(tiny_folder, tmp_path / "m", template, **special)
    one, other = TransformersLLM.load(folder), LlamaCppLLM(export_gguf(folder, tmp_path / "m.gguf"), threads=1, slots=1)
    for prompt in (Prompt("You rank.", "Amélie 🎬 <|im_end|> 1995\n\n  x", "<think>"), Prompt("", "x")):
        assert other.chat.encode(prompt) == one.chat.encode(prompt)


def test_a_turn_reuses_what_it_has_in_common_with_the_last(llm: LlamaCppLLM) -> None:
    first = Prompt("You rank.", "A, B, C, D, E, F. Which one is out?", "<answer>")
    second = Prompt("You rank.", "A, B, C, D, F. Which one is out?", "<answer>")
    common = next(k for k, (a, b) in enumerate(zip(*map(llm.chat.encode, (first, second)), strict=False)) if a != b)
    llm.complete([Request(first, ("E", "F"), "s")], GREEDY)
    (turn,) = llm.complete([Request(second, ("F", "A"), "s")], GREEDY)
    assert turn.cached_tokens == common
    again = llm.complete([Request(second, ("F", "A"), "s")] * 2, GREEDY)
    assert [c.cached_tokens for c in again] == [turn.prompt_tokens - 1, turn.prompt_tokens]


def test_an_answer_is_held_to_texts(llm: LlamaCppLLM) -> None:
    begun = Request(Prompt("You rank.", "Which?", "<answer>"), answers=ANSWERS)
    free = Request(Prompt("You rank.", "Which?", "<think>"), answers=ANSWERS)
    bare = Request(Prompt("You rank.", "Which?", "<think>"))
    wholes = {answer + "</answer>" for answer in ANSWERS}
    warm = Sampling(temperature=5.0, max_tokens=60, seed=1)
    assert {c.text for c in llm.complete([begun] * 8, warm)} <= wholes
    assert len({c.text for c in llm.complete([begun] * 8, warm)}) > 1
    (held,) = llm.complete([free], Sampling(max_tokens=60))
    (loose,) = llm.complete([bare], Sampling(max_tokens=5))
    thought, _, answer = held.text.partition("<answer>")
    assert answer in wholes
    assert thought.endswith("</think>")
    assert thought.startswith(loose.text)
    with pytest.raises(InputError, match="max_tokens = 12 leaves no room"):
        llm.complete([free], Sampling(max_tokens=12))


def test_a_list_is_held_to_texts(llm: LlamaCppLLM) -> None:
    begun = Request(Prompt("You rank.", "Which?", "<answer>"), answers=ANSWERS, listed=True)
    warm = Sampling(temperature=5.0, max_tokens=80, seed=1)
    lists = [c.text.removesuffix("</answer>").splitlines() for c in llm.complete([begun] * 6, warm)]
    assert all(sorted(lines) == sorted(ANSWERS) for lines in lists)
    assert len(set(map(tuple, lists))) > 1
    (rest,) = llm.complete([replace(begun, answers=ANSWERS[1:], written=ANSWERS[:1])], warm)
    assert sorted(rest.text.removesuffix("</answer>").splitlines()) == sorted(ANSWERS[1:])
    (whole,) = llm.complete([replace(begun, prompt=Prompt("You rank.", "Which?", "<think>"))], warm)
    thought, _, answer = whole.text.partition("<answer>")
    assert thought.endswith("</think>")
    assert sorted(answer.removesuffix("</answer>").splitlines()) == sorted(ANSWERS)


def test_nobody_is_answered_without_the_key(llm: LlamaCppLLM) -> None:
    host = llm._server._address
    assert host.startswith("127.0.0.1:")
    connection = http.client.HTTPConnection(host)
    connection.request("POST", "/completion", json.dumps({"prompt": [1], "n_predict": 1}))
    assert connection.getresponse().status == 401


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("2,1", 2), ("0", 5), ("x", 5), ("", 5)])
def test_threads_follow_the_environment(given: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    assert _threads() == threads


def test_what_is_no_model_is_told_in_one_line(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "cut.gguf").write_bytes(gguf.read_bytes()[:5000])
    for name, said in (("text", "no GGUF file"), ("cut", "cannot load it"), ("none", "cannot be read")):
        with pytest.raises(AssetError, match=said) as caught:
            LlamaCppLLM(tmp_path / f"{name}.gguf")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="at least 1"):
        LlamaCppLLM(gguf, slots=0)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtraError, match=r"r1ranker\[llamacpp\]"):
        LlamaCppLLM(gguf)


def test_a_reranker_over_a_gguf_file(gguf: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "gguf"
    folder.mkdir(parents=True)
    path = Path(shutil.copy(gguf, folder / "model.gguf"))
    assert locate(path) == (path, None)
    settings = {"layout": "append", "sharpness": 2.5, "thinking": False}
    (folder / "ranker.json").write_text(json.dumps({"ranker": settings}))
    place, own = locate(folder)
    assert place == path
    assert own is not None
    assert own.layout == "append"
    reranker = Reranker.load(folder)
    assert isinstance(reranker.llm, LlamaCppLLM)
    assert (reranker.llm.name, reranker.config.sharpness) == (str(folder), 2.5)
    documents = ["In Italy.", "A whale.", "Bread is made of flour.", "Tea grows."]
    ranked = reranker.rank("Where is Rome?", documents)
    expected = Reranker.load(tiny_folder, **settings).rank("Where is Rome?", documents)
    assert [d.id for d in ranked] == [d.id for d in expected]
    assert ranked.usage.cached_tokens > 0


def test_where_a_gguf_file_is(gguf: Path, tiny_folder: Path, tmp_path: Path) -> None:
    assert gguf_file(gguf) == gguf_file(gguf.parent) == gguf
    assert gguf_file(tiny_folder) is None
    assert short_name("runs/demo/model.gguf") == "demo/model.gguf"
    assert short_name("a/b/small.gguf") == "small.gguf"
    with pytest.raises(AssetError, match="no such file"):
        locate(tmp_path / "none.gguf")
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(gguf, tmp_path / name)
    with pytest.raises(AssetError, match=r"several GGUF files: .*a\.gguf"):
        locate(tmp_path)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_held_answer_is_drawn_token_by_token_among_what_is_possible(llm: LlamaCppLLM, temperature: float) -> None:
    """By the log-probs of the first tokens, renormalised: what follows is decided by them."""
    prompt = Prompt("You rank.", "Which?", "<answer>")
    firsts = [llm.chat.encode_text(answer)[0] for answer in ANSWERS]
    assert len(set(firsts)) == 3
    logprobs = [llm._logprob(llm.chat.encode(prompt), token)[0] for token in firsts]
    held = llm.complete([Request(prompt, answers=ANSWERS)] * 300, Sampling(temperature=temperature, seed=2))
    assert {c.completion_tokens for c in held} == {1}
    shares = [sum(c.text == answer + "</answer>" for c in held) / 300 for answer in ANSWERS]
    weights = [math.exp(x) for x in logprobs] if temperature else [float(x == max(logprobs)) for x in logprobs]
    assert shares == pytest.approx([w / sum(weights) for w in weights], abs=0.09)

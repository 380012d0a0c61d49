"""What every backend promises, whatever runs the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from backends import Backend, backend

from r1ranker.errors import InputError
from r1ranker.llm.base import LLM
from r1ranker.llm.export import export_gguf
from r1ranker.types import Prompt, Request, Sampling

GREEDY = Sampling(max_tokens=12)
WARM = Sampling(temperature=1.0, max_tokens=12, seed=3)
FREE = [
    Request(Prompt("You rank.", "Short.", "<think>")),
    Request(Prompt("You rank.", "Which city is the capital of Italy, Rome or Paris?", "<think>")),
    Request(Prompt("", "The Tiber flows through Rome.", "")),
]
CHOICES = ("Toy Story (1995)", "Toy Story", "Amélie 🎬", "Heat (1995)")
CHOOSING = replace(FREE[1], choices=CHOICES)


@pytest.fixture(scope="module")
def gguf(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_gguf(tiny_folder, tmp_path_factory.mktemp("gguf") / "tiny.gguf", type="f32")


@pytest.fixture(params=["scripted", "transformers", "llamacpp", "openai", "vllm"])
def made(
    request: pytest.FixtureRequest, tiny_folder: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backend]:
    with backend(request.param, tiny_folder, lambda: gguf, monkeypatch) as made:
        yield made


def test_it_says_what_it_is(made: Backend) -> None:
    llm = made.llm
    assert isinstance(llm, LLM)
    assert llm.name
    assert llm.parameters is None or llm.parameters > 10_000
    assert (llm.context_tokens or 0) == (2048 if made.limited else 0)
    assert llm.count_tokens("") == 0
    assert llm.count_tokens("Heat (1995)") > 0
    assert llm.complete([], GREEDY) == []


def test_one_completion_a_request_in_order(made: Backend) -> None:
    alone = [made.llm.complete([request], GREEDY)[0].text for request in FREE]
    assert [c.text for c in made.llm.complete(FREE, GREEDY)] == alone
    assert [c.text for c in made.llm.complete(FREE[::-1], GREEDY)] == alone[::-1]
    assert len(set(alone)) == 3


def test_greedy_is_the_same_each_time_and_for_each_copy(made: Backend) -> None:
    texts = [c.text for c in made.llm.complete([FREE[0]] * 3, GREEDY)]
    assert set(texts) == {made.llm.complete([FREE[0]], replace(GREEDY, seed=5))[0].text}


def test_seeds_decide_and_copies_differ(made: Backend) -> None:
    texts = [c.text for c in made.llm.complete([FREE[0]] * 4, WARM)]
    assert [c.text for c in made.llm.complete([FREE[0]] * 4, WARM)] == texts
    if made.writes:
        assert len(set(texts)) > 1
        assert [c.text for c in made.llm.complete([FREE[0]] * 4, replace(WARM, seed=4))] != texts


def test_max_tokens_and_counts(made: Backend) -> None:
    for completion in made.llm.complete(FREE, GREEDY):
        assert completion.prompt_tokens > 0
        assert completion.completion_tokens > 0
        assert 0 <= completion.cached_tokens <= completion.prompt_tokens
        if made.writes:
            assert completion.completion_tokens == len(completion.token_ids) <= 12
            assert completion.finish == ("length" if len(completion.token_ids) == 12 else "stop")
            assert len(completion.logprobs) in (0, len(completion.token_ids))
    if made.writes:
        (short,) = made.llm.complete(FREE[:1], Sampling(max_tokens=1))
        assert (short.completion_tokens, short.finish) == (1, "length")


def test_it_stops_after_the_stop_text(made: Backend) -> None:
    if not made.writes:
        pytest.skip("it does not write by itself")
    (whole,) = made.llm.complete(FREE[:1], GREEDY)
    stop = whole.text[3:5]
    (cut,) = made.llm.complete([replace(FREE[0], stop=stop)], GREEDY)
    assert cut.finish == "stop"
    assert cut.text.startswith(whole.text[: whole.text.index(stop) + len(stop)])
    assert cut.completion_tokens < whole.completion_tokens


def test_a_choice_is_one_of_them_with_all_log_probs(made: Backend) -> None:
    if not made.scores:
        with pytest.raises(InputError, match="cannot score"):
            made.llm.complete([replace(CHOOSING, scored=True)], GREEDY)
        return
    for completion in made.llm.complete([CHOOSING, replace(CHOOSING, scored=True), FREE[0]], GREEDY)[:2]:
        best = completion.choice_logprobs.index(max(completion.choice_logprobs))
        assert completion.text == CHOICES[best] + "</answer>"
        assert completion.finish == "choice"
        assert len(completion.choice_logprobs) == 4
        assert all(x <= 0 for x in completion.choice_logprobs)
        assert completion.completion_tokens >= len(completion.token_ids) >= 0


def test_choices_are_drawn_by_their_log_probs(made: Backend) -> None:
    if not made.writes:
        pytest.skip("it does not write by itself")
    drawn = [c.text for c in made.llm.complete([CHOOSING] * 40, replace(WARM, sharpness=0.1))]
    assert len(set(drawn)) == 4  # nearly uniform
    sharp = {c.text for c in made.llm.complete([CHOOSING] * 40, replace(WARM, sharpness=1e6))}
    assert sharp == {c.text for c in made.llm.complete([CHOOSING], GREEDY)}


def test_what_a_user_wrote_is_text_whatever_it_looks_like(made: Backend) -> None:
    if not made.writes:
        pytest.skip("it has no special tokens")
    assert made.llm.count_tokens("<|im_end|>") > 1
    plain, marked = (Request(Prompt("You rank.", f"Heat{end} and", "")) for end in ("", "<|im_end|>"))
    counts = [c.prompt_tokens for c in made.llm.complete([plain, marked], GREEDY)]
    assert counts[1] - counts[0] == made.llm.count_tokens("<|im_end|>")


def test_too_long_a_prompt_is_told_in_one_line(made: Backend) -> None:
    if not made.limited:
        pytest.skip("it knows no limit")
    long = Request(Prompt("", "word " * 3000), session="list 7")
    for request in (long, replace(long, choices=("a",))):
        with pytest.raises(InputError, match=r"the prompt of 'list 7' .* reads 2048: rank fewer") as caught:
            made.llm.complete([FREE[0], request], GREEDY)
        assert "\n" not in str(caught.value)


def test_turns_of_a_session_go_on(made: Backend) -> None:
    first = Request(Prompt("You rank.", "one two three four five six seven", ""), session="a")
    second = replace(first, prompt=replace(first.prompt, user="one two three four five nine"))
    fresh = made.llm.complete([replace(second, session="")], GREEDY)[0].text
    made.llm.complete([first], GREEDY)
    assert made.llm.complete([second], GREEDY)[0].text == fresh


@pytest.mark.parametrize("name", ["llamacpp", "vllm"])
def test_backends_agree_on_one_model(name: str, tiny_folder: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        backend("transformers", tiny_folder, lambda: gguf, monkeypatch) as one,
        backend(name, tiny_folder, lambda: gguf, monkeypatch) as other,
    ):
        requests = [*FREE, CHOOSING, replace(FREE[2], choices=("Rome", "a whale"), stop=";")]
        few = replace(GREEDY, max_tokens=6)  # llama.cpp keeps keys and values in float16: in the end a near tie flips
        for a, b in zip(one.llm.complete(requests, few), other.llm.complete(requests, few), strict=True):
            assert b.text == a.text
            assert b.token_ids == a.token_ids
            assert b.choice_logprobs == pytest.approx(a.choice_logprobs, abs=5e-3)
            assert (b.prompt_tokens, b.completion_tokens, b.finish) == (
                *(a.prompt_tokens, a.completion_tokens),
                a.finish,
            )


@pytest.mark.parametrize("listed", [False, True])
def test_an_answer_that_must_be_of_some_texts_is_or_is_refused(made: Backend, listed: bool) -> None:
    held = Request(Prompt("You rank.", "Which one?", "<answer>"), answers=CHOICES, listed=listed)
    if not made.writes:
        pytest.skip("it does not write by itself")
    try:
        (completion,) = made.llm.complete([held], Sampling(max_tokens=40))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
        return
    assert completion.text.endswith("\n</answer>" if listed else "</answer>")
    named = completion.text.removesuffix("</answer>").splitlines()
    assert len(named) == (len(CHOICES) if listed else 1)
    assert len(set(named) & set(CHOICES)) == len(named)

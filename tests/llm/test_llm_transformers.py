from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from factories import ExampleFactory
from r1ranker.errors import InputError
from r1ranker.llm.base import LLM
from r1ranker.llm.transformers import TransformersLLM, switch_of_rotations
from r1ranker.rankers import IRanker
from r1ranker.rollout import rank_all
from r1ranker.types import Completion, Prompt, Request, Sampling

GREEDY = Sampling(max_tokens=12)
WARM = Sampling(temperature=1.0, max_tokens=10, seed=3)

PROMPTS = [
    Prompt("You rank.", "Short.", "<think>"),
    Prompt("You rank.", "A longer question: which city is the capital of Italy, Rome or Paris?", "<think>"),
    Prompt("", "Mid length: the Tiber flows through Rome.", ""),
]
CHOICES = [("Rome", "Paris"), ("a", "A whale is a mammal.", "Heat (1995)"), ("x",)]


def free(prompt: Prompt, stop: str = "</answer>", session: str = "") -> Request:
    return Request(prompt, stop=stop, session=session)


FREE = [free(p) for p in PROMPTS]
SCORED = [Request(p, c) for p, c in zip(PROMPTS, CHOICES, strict=True)]


def fresh(llm: TransformersLLM, **options: Any) -> TransformersLLM:
    return TransformersLLM(llm.model, llm.tokenizer, name="other", **options)


@torch.no_grad()
def plain_logprobs(
    llm: TransformersLLM, prompt: Prompt, tokens: tuple[int, ...], temperature: float = 1.0
) -> list[float]:
    """Log-probs of tokens after a prompt, by one plain call of the model."""
    trunk = llm.chat.encode(prompt)
    logits = llm.model(input_ids=torch.tensor([[*trunk, *tokens]])).logits[0].float() / temperature
    logprobs = logits.log_softmax(1)[len(trunk) - 1 : -1]
    return logprobs.gather(1, torch.tensor(tokens)[:, None]).squeeze(1).tolist()


def test_it_is_an_llm(tiny_llm: TransformersLLM) -> None:
    assert isinstance(tiny_llm, LLM)
    assert tiny_llm.context_tokens == 2048
    assert tiny_llm.parameters == sum(p.numel() for p in tiny_llm.model.parameters()) > 10_000
    assert tiny_llm.count_tokens("") == 0
    assert tiny_llm.count_tokens("a<|im_end|>") > 5
    assert tiny_llm.complete([], GREEDY) == []


def test_choices_logprobs_are_those_of_plain_calls(tiny_llm: TransformersLLM) -> None:
    completions = tiny_llm.complete(SCORED, GREEDY)
    end = tiny_llm.chat.encode_text("</answer>")[:1]
    for request, completion in zip(SCORED, completions, strict=True):
        tokens = [tiny_llm.chat.encode_text(choice) + end for choice in request.choices]
        means = [sum(plain_logprobs(tiny_llm, request.prompt, t)) / len(t) for t in tokens]
        assert completion.choice_logprobs == pytest.approx(means, abs=1e-4)
        best = means.index(max(means))
        assert (completion.text, completion.token_ids) == (request.choices[best] + "</answer>", tokens[best])
        assert completion.finish == "choice"
        assert completion.completion_tokens == sum(map(len, tokens))
        assert completion.prompt_tokens == len(tiny_llm.chat.encode(request.prompt))
    assert len({round(x, 3) for c in completions for x in c.choice_logprobs}) == 6


@pytest.mark.parametrize("stop", ["</answer>", ";", ""])
def test_a_choice_is_scored_with_the_first_token_of_the_stop_text(tiny_llm: TransformersLLM, stop: str) -> None:
    request = Request(PROMPTS[0], ("Toy Story", "Toy Story 2"), stop=stop)
    short, long = tiny_llm.choice_pack(request).branches
    first = tiny_llm.chat.encode_text(stop)[:1]
    assert len(first) == (1 if stop else 0)
    assert (short, long) == tuple(tiny_llm.chat.encode_text(c) + first for c in ("Toy Story", "Toy Story 2"))
    # What ends the one is not how the other goes on.
    assert (long[: len(short)] == short) == (not stop)
    [completion] = tiny_llm.complete([request], GREEDY)
    assert completion.text in ("Toy Story" + stop, "Toy Story 2" + stop)
    assert completion.completion_tokens == len(short) + len(long)
    assert tiny_llm.choice_pack(free(PROMPTS[0])).branches == []


def test_choices_are_drawn_by_their_sharpened_softmax(tiny_llm: TransformersLLM) -> None:
    request, n = SCORED[0], 400
    sampling = Sampling(temperature=1.0, sharpness=2.0, seed=1)
    drawn = tiny_llm.complete([request] * n, sampling)
    scores = torch.tensor(drawn[0].choice_logprobs)
    share = float((scores * 2.0).softmax(0)[0])
    assert 0.02 < share < 0.98
    first, second = (f"{choice}</answer>" for choice in request.choices)
    assert {c.text for c in drawn} == {first, second}
    seen = sum(c.text == first for c in drawn) / n
    assert abs(seen - share) < 4 * (share * (1 - share) / n) ** 0.5
    greedy = tiny_llm.complete([request] * 20, Sampling(temperature=0.0))
    assert {c.text for c in greedy} == {(first, second)[int(scores.argmax())]}


def test_greedy_is_what_generate_writes_token_for_token(tiny_llm: TransformersLLM) -> None:
    completions = tiny_llm.complete([free(p, stop="") for p in PROMPTS], GREEDY)
    lengths = set()
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        trunk = tiny_llm.chat.encode(prompt)
        lengths.add(len(trunk))
        ids = torch.tensor([trunk])
        out = tiny_llm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        assert completion.token_ids == tuple(out[0, len(trunk) :].tolist())
        assert completion.prompt_tokens == len(trunk)
    assert len(lengths) == 3
    assert len({c.token_ids for c in completions}) == 3


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_sampled_logprobs_are_those_of_a_plain_call(tiny_llm: TransformersLLM, temperature: float) -> None:
    requests = [r for r in FREE for _ in range(3)]
    completions = tiny_llm.complete(requests, Sampling(temperature, max_tokens=10, seed=5))
    for request, completion in zip(requests, completions, strict=True):
        assert len(completion.token_ids) == len(completion.logprobs) == completion.completion_tokens > 0
        expected = plain_logprobs(tiny_llm, request.prompt, completion.token_ids, temperature or 1.0)
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_group_shares_a_pack_and_its_samples_differ(
    tiny_llm: TransformersLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    from r1ranker.llm import sampling, transformers

    plain = transformers.hidden_states

    def watched(model: Any, ids: Any, *rest: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return plain(model, ids, *rest)

    for module in (transformers, sampling):
        monkeypatch.setattr(module, "hidden_states", watched)
    completions = tiny_llm.complete([FREE[1]] * 6, WARM)
    trunk = len(tiny_llm.chat.encode(PROMPTS[1]))
    assert shapes[0] == (1, trunk)
    assert shapes[1] == (1, 6)
    assert all(shape[0] == 1 and shape[1] <= 6 for shape in shapes[1:])
    assert len({c.token_ids for c in completions}) > 3
    # The prompt is computed once; the others reuse it.
    assert [c.cached_tokens for c in completions] == [0] + [trunk] * 5


def test_the_same_seed_writes_the_same_and_another_seed_another(tiny_llm: TransformersLLM) -> None:
    requests = [*FREE, *FREE]
    first, again = tiny_llm.complete(requests, WARM), tiny_llm.complete(requests, WARM)
    other = tiny_llm.complete(requests, Sampling(1.0, 10, seed=4))
    assert first == again
    assert [c.token_ids for c in first] != [c.token_ids for c in other]


def test_the_order_of_requests_is_the_order_of_completions(tiny_llm: TransformersLLM) -> None:
    forward = tiny_llm.complete([*FREE, *SCORED], GREEDY)
    backward = tiny_llm.complete([*reversed(SCORED), *reversed(FREE)], GREEDY)
    for one, two in zip(forward, reversed(backward), strict=True):
        assert (one.text, one.token_ids, one.prompt_tokens) == (two.text, two.token_ids, two.prompt_tokens)


def test_requests_with_one_prompt_but_other_choices_or_stops_are_kept_apart(tiny_llm: TransformersLLM) -> None:
    prompt = PROMPTS[0]
    requests = [Request(prompt, ("a", "b")), Request(prompt, ("c", "d", "e")), free(prompt), free(prompt, stop="")]
    together = tiny_llm.complete(requests, GREEDY)
    assert together[0].text in ("a</answer>", "b</answer>")
    assert together[1].text in ("c</answer>", "d</answer>", "e</answer>")
    assert [len(c.choice_logprobs) for c in together] == [2, 3, 0, 0]
    for request, completion in zip(requests, together, strict=True):
        [alone] = tiny_llm.complete([request], GREEDY)
        assert alone.token_ids == completion.token_ids


TURNS = [
    Request(Prompt("You rank.", f"Toy Story, Heat, Alien and Casablanca: a list of films.\n{q}", "<answer>"), c, "s1")
    for q, c in (
        ("First?", ("Toy Story", "Heat")),
        ("Second, without Heat?", ("Toy Story", "Alien")),
    )
]


def test_a_reused_prefix_gives_the_same_logprobs(tiny_llm: TransformersLLM) -> None:
    without = fresh(tiny_llm, prefix_tokens=0)
    # A second session in the same batch has only the instructions in common with what is kept, and another length.
    other = Request(PROMPTS[1], CHOICES[1], "s2")
    [first] = tiny_llm.complete(TURNS[:1], GREEDY)
    reused = tiny_llm.complete([TURNS[1], other], GREEDY)
    plain = without.complete([TURNS[1], other], GREEDY)
    trunks = [tiny_llm.chat.encode(t.prompt) for t in TURNS]
    common = next(k for k, (a, b) in enumerate(zip(*trunks, strict=False)) if a != b)
    assert first.cached_tokens == 0
    system = len(tiny_llm.chat.encode(Prompt("You rank.", "")))
    assert [c.cached_tokens for c in reused] == [common, pytest.approx(system, abs=15)]
    assert common > reused[1].cached_tokens > 5
    assert [c.cached_tokens for c in plain] == [0, 0]
    for one, two in zip(reused, plain, strict=True):
        assert one.choice_logprobs == pytest.approx(two.choice_logprobs, abs=1e-5)
    # A third turn reuses what the second computed on top of the first.
    [third] = tiny_llm.complete(TURNS[1:], GREEDY)
    assert third.cached_tokens == len(trunks[1]) - 1
    assert third.choice_logprobs == pytest.approx(plain[0].choice_logprobs, abs=1e-5)


def test_a_reused_prefix_writes_the_same(tiny_llm: TransformersLLM) -> None:
    turns = [free(t.prompt, session="s") for t in TURNS]
    tiny_llm.complete(turns[:1], GREEDY)
    reused = tiny_llm.complete([turns[1], turns[1], FREE[0]], WARM)
    plain = fresh(tiny_llm, prefix_tokens=0).complete([turns[1], turns[1], FREE[0]], WARM)
    assert reused[0].cached_tokens > 20
    assert [c.token_ids for c in reused] == [c.token_ids for c in plain]
    for one, two in zip(reused, plain, strict=True):
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)


def test_a_late_session_catches_up_and_writes_in_one_batch_with_the_others(
    tiny_llm: TransformersLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside turns that have a few tokens to read, a whole new prompt would be padding for all of them."""
    from r1ranker.llm import transformers

    plain = transformers.hidden_states
    shapes: list[tuple[int, ...]] = []

    def watched(model: Any, ids: Any, *rest: Any) -> Any:
        shapes.append(tuple(ids.shape))
        return plain(model, ids, *rest)

    monkeypatch.setattr(transformers, "hidden_states", watched)
    turns = [free(t.prompt, session="s") for t in TURNS]
    late = free(Prompt("You rank.", "A long one: " + "many a word " * 30, "<think>"), session="late")
    tiny_llm.complete(turns[:1], GREEDY)
    shapes.clear()
    both = tiny_llm.complete([turns[1], late], GREEDY)
    read = [c.prompt_tokens - c.cached_tokens for c in both]
    # The late prompt but for its last token, then both at once.
    assert shapes == [(1, read[1] - 1), (2, read[0])]
    alone = fresh(tiny_llm, prefix_tokens=0).complete([turns[1], late], GREEDY)
    assert [c.token_ids for c in both] == [c.token_ids for c in alone]
    assert read[1] > 3 * read[0]


def test_requests_without_a_session_keep_nothing(tiny_llm: TransformersLLM) -> None:
    tiny_llm.complete(SCORED, GREEDY)
    assert [c.cached_tokens for c in tiny_llm.complete(SCORED, GREEDY)] == [0, 0, 0]


def test_new_weights_drop_what_was_kept(tiny_llm: TransformersLLM) -> None:
    llm = TransformersLLM(copy.deepcopy(tiny_llm.model), tiny_llm.tokenizer, name="trained")
    llm.complete(TURNS[:1], GREEDY)
    with torch.no_grad():
        llm.model.model.layers[0].mlp.up_proj.weight += 0.5
    llm.weights_changed()
    [after] = llm.complete(TURNS[1:], GREEDY)
    [expected] = fresh(llm).complete(TURNS[1:], GREEDY)
    assert after.cached_tokens == 0
    assert after.choice_logprobs == pytest.approx(expected.choice_logprobs, abs=1e-6)
    [old] = tiny_llm.complete(TURNS[1:], GREEDY)
    assert max(abs(a - b) for a, b in zip(after.choice_logprobs, old.choice_logprobs, strict=True)) > 1e-2


@pytest.mark.parametrize("batch_tokens", [1, 120, 400])
def test_small_batches_give_the_same(tiny_llm: TransformersLLM, batch_tokens: int) -> None:
    requests = [*FREE, *SCORED, FREE[0]]
    small = fresh(tiny_llm, batch_tokens=batch_tokens)
    for one, two in zip(small.complete(requests, GREEDY), tiny_llm.complete(requests, GREEDY), strict=True):
        assert (one.text, one.token_ids, one.cached_tokens) == (two.text, two.token_ids, two.cached_tokens)
        assert one.choice_logprobs == pytest.approx(two.choice_logprobs, abs=1e-5)


def test_batches_stay_within_their_bound(tiny_llm: TransformersLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    small = fresh(tiny_llm, batch_tokens=150)
    sizes: list[int] = []
    plain = small._score

    def watched(groups: Any, *rest: Any) -> Any:
        sizes.append(len(groups) * max(g.size(GREEDY) for g in groups))
        return plain(groups, *rest)

    monkeypatch.setattr(small, "_score", watched)
    requests = [Request(Prompt("s", f"Which of {'many ' * k}?"), ("a", "b")) for k in range(8)]
    assert len(small.complete(requests, GREEDY)) == 8
    assert len(sizes) > 1
    assert max(sizes) <= 150


def test_a_prompt_that_is_too_long_is_refused_with_its_name(tiny_llm: TransformersLLM) -> None:
    long = Prompt("s", "word " * 2100)
    with pytest.raises(InputError, match=r"the prompt of 'e7' and its answer take \d+ tokens; tiny reads 2048"):
        tiny_llm.complete([free(long, session="e7")], GREEDY)
    with pytest.raises(InputError, match="tiny reads 2048"):
        tiny_llm.complete([Request(long, ("a",))], GREEDY)
    fits = Sampling(max_tokens=2048)
    with pytest.raises(InputError, match="allow fewer new tokens"):
        tiny_llm.complete(FREE[:1], fits)
    # Choices take only what they take, the first token of the stop text with them.
    assert tiny_llm.complete(SCORED[:1], fits)[0].finish == "choice"
    longest = max(len(tiny_llm.chat.encode_text(choice)) for choice in CHOICES[0])
    tiny_llm.context_tokens = len(tiny_llm.chat.encode(PROMPTS[0])) + longest + 1
    assert tiny_llm.complete(SCORED[:1], fits)[0].finish == "choice"
    tiny_llm.context_tokens -= 1
    with pytest.raises(InputError, match=f"tiny reads {tiny_llm.context_tokens}"):
        tiny_llm.complete(SCORED[:1], fits)


Writes = Callable[..., TransformersLLM]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Writes:
    """writes(llm, text, then=token): a backend that draws the tokens of `text` (and then one more), not its own."""

    def scripted(llm: TransformersLLM, text: str, *, then: int | None = None) -> TransformersLLM:
        left = iter([*llm.chat.encode_text(text), *([then] if then is not None else [])])

        def draw(_model: Any, hidden: Any, *_: Any) -> tuple[list[int], list[float]]:
            token = next(left)
            return [token] * len(hidden), [-0.5] * len(hidden)

        monkeypatch.setattr("r1ranker.llm.sampling.draw", draw)
        return fresh(llm)

    return scripted


def test_it_stops_at_the_stop_text(tiny_llm: TransformersLLM, writes: Writes) -> None:
    text = "So, it is</think><answer>Heat</answer>"
    [completion] = writes(tiny_llm, text + " and on it goes").complete(FREE[:1], Sampling(max_tokens=200))
    assert completion.finish == "stop"
    assert completion.text == text
    assert completion.token_ids == tiny_llm.chat.encode_text(text)
    assert completion.logprobs == (-0.5,) * len(completion.token_ids)


def test_another_stop_text_or_none(tiny_llm: TransformersLLM, writes: Writes) -> None:
    text = "a </answer> b; c"
    [own] = writes(tiny_llm, text).complete([free(PROMPTS[0], stop=";")], Sampling(max_tokens=200))
    assert (own.text, own.finish) == ("a </answer> b;", "stop")
    n = len(tiny_llm.chat.encode_text(text))
    [none] = writes(tiny_llm, text).complete([free(PROMPTS[0], stop="")], Sampling(max_tokens=n))
    assert (none.text, none.finish, none.completion_tokens) == (text, "length", n)


def test_it_stops_at_the_end_of_turn_which_is_a_token_but_no_text(tiny_llm: TransformersLLM, writes: Writes) -> None:
    eos = tiny_llm.tokenizer.eos_token_id
    [completion] = writes(tiny_llm, "The end", then=eos).complete(FREE[:1], Sampling(max_tokens=200))
    assert (completion.text, completion.finish) == ("The end", "stop")
    assert completion.token_ids == (*tiny_llm.chat.encode_text("The end"), eos)
    assert len(completion.logprobs) == len(completion.token_ids)


def test_it_stops_at_max_tokens(tiny_llm: TransformersLLM, writes: Writes) -> None:
    [completion] = writes(tiny_llm, "The end is not near").complete(FREE[:1], Sampling(max_tokens=2))
    assert (completion.finish, completion.completion_tokens) == ("length", 2)


def test_rows_that_end_early_leave_the_others_as_they_were(tiny_llm: TransformersLLM) -> None:
    """Completions of unlike lengths in one batch: each is what it is alone."""
    sampling = Sampling(max_tokens=30)
    stops = [tiny_llm.complete([free(p, stop="")], sampling)[0].text for p in PROMPTS]
    # Each request stops at a text of its own, early or late.
    requests = [free(p, stop=s[k : k + 2] or "~") for p, s, k in zip(PROMPTS, stops, (2, 20, 8), strict=True)]
    together = tiny_llm.complete(requests, sampling)
    alone = [tiny_llm.complete([r], sampling)[0] for r in requests]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert len({c.completion_tokens for c in together}) == 3
    for one, two in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)


def test_training_mode_is_put_back_and_not_used(tiny_llm: TransformersLLM) -> None:
    model = copy.deepcopy(tiny_llm.model)
    llm = TransformersLLM(model, tiny_llm.tokenizer, name="t")
    model.train()
    seen: list[bool] = []
    model.model.register_forward_pre_hook(lambda module, _args: seen.append(module.training))
    llm.complete(FREE[:1], GREEDY)
    assert model.training
    assert seen
    assert not any(seen)
    with pytest.raises(InputError):
        llm.complete([free(Prompt("s", "word " * 2100))], GREEDY)
    assert model.training


def test_autocast_is_close_to_float32(tiny_llm: TransformersLLM) -> None:
    half = fresh(tiny_llm, autocast=True).complete(SCORED, GREEDY)
    full = tiny_llm.complete(SCORED, GREEDY)
    for one, two in zip(half, full, strict=True):
        assert one.choice_logprobs == pytest.approx(two.choice_logprobs, abs=0.5)
        assert one.choice_logprobs != two.choice_logprobs


@pytest.mark.parametrize("layout", ["rebuild", "append"])
@pytest.mark.parametrize("thinking", [True, False])
def test_a_whole_ranking_by_the_model(
    tiny_llm: TransformersLLM, make_example: ExampleFactory, layout: str, thinking: bool
) -> None:
    ranker = IRanker(thinking=thinking, layout=layout)  # type: ignore[arg-type]
    examples = [make_example(n, id=f"e{n}") for n in (2, 4)]
    sampling = Sampling(max_tokens=5)
    batched = rank_all(ranker, examples, tiny_llm, sampling)
    alone = [rank_all(ranker, [e], fresh(tiny_llm, prefix_tokens=0), sampling)[0] for e in examples]
    assert [t.ranking for t in batched] == [t.ranking for t in alone]
    assert [len(t.turns) for t in batched] == [1, 3]
    assert batched[1].usage.cached_tokens > 0 == alone[1].usage.cached_tokens
    if not thinking:
        assert {t.parsed.status for trace in batched for t in trace.turns} == {"exact"}


def test_append_reuses_more_than_rebuild(tiny_llm: TransformersLLM, make_example: ExampleFactory) -> None:
    cached = []
    for layout in ("rebuild", "append"):
        ranker = IRanker(thinking=False, layout=layout)  # type: ignore[arg-type]
        [trace] = rank_all(ranker, [make_example(6)], fresh(tiny_llm))
        cached.append(trace.usage.cached_tokens / trace.usage.prompt_tokens)
    assert cached[1] > cached[0] > 0


def test_append_reads_only_the_last_exclusion_and_the_end_of_the_prompt(
    tiny_llm: TransformersLLM, make_example: ExampleFactory
) -> None:
    example = make_example(8)
    ranker = IRanker(thinking=False, layout="append", constrained=True)
    [trace] = rank_all(ranker, [example], tiny_llm)
    count, labels = tiny_llm.count_tokens, ranker.labels(example)
    end = len(tiny_llm.chat.encode_text("<answer>")) + len(tiny_llm.chat._frame[2])
    read = [t.completion.prompt_tokens - t.completion.cached_tokens for t in trace.turns]
    # From the third turn on, each reads the label that the turn before it excluded, a line break, and the same end.
    tails = [n - count(labels[str(t.excluded)] + "\n") for n, t in zip(read[2:], trace.turns[1:], strict=False)]
    assert set(tails) == {end}
    # The second one reads the note's first line, too.
    assert read[1] == count("\n\nAlready excluded:\n" + labels[str(trace.turns[0].excluded)] + "\n") + tails[0]


def test_completions_are_plain_data(tiny_llm: TransformersLLM) -> None:
    for completion in tiny_llm.complete([FREE[0], SCORED[0]], WARM):
        assert isinstance(completion, Completion)
        assert all(type(t) is int for t in completion.token_ids)
        assert all(type(x) is float for x in (*completion.logprobs, *completion.choice_logprobs))


@pytest.mark.parametrize("generation", [None, [7, 8], 9])
def test_the_tokenizers_end_of_turn_and_the_models_both_stop(
    tiny_llm: TransformersLLM, writes: Writes, generation: Any
) -> None:
    model = copy.deepcopy(tiny_llm.model)
    model.generation_config.eos_token_id = generation
    llm = TransformersLLM(model, tiny_llm.tokenizer, name="ends")
    own = [generation] if isinstance(generation, int) else generation or []
    for end in (tiny_llm.tokenizer.eos_token_id, *own):
        [completion] = writes(llm, "The end", then=end).complete(FREE[:1], Sampling(max_tokens=200))
        assert (completion.text, completion.finish) == ("The end", "stop")


def test_threads_that_share_a_model_rank_as_one_after_the_other(tiny_llm: TransformersLLM) -> None:
    """All rankings that the Python API makes have one session, whose prefix each would write into."""
    listed = [("Rome", "Paris", "Lima"), ("tea", "bread", "copper"), ("whale", "river", "cat")]
    asked = [
        Request(Prompt("You rank.", f"{' '.join(words * n)}: which one?", "<answer>"), words, session="query")
        for n in range(1, 9)
        for words in listed
    ]
    expected = [fresh(tiny_llm).complete([request], GREEDY)[0].choice_logprobs for request in asked]
    shared = fresh(tiny_llm)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda request: shared.complete([request], GREEDY)[0].choice_logprobs, asked * 2))
    for one, other in zip(found, expected * 2, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_lengths_that_rotate_otherwise_are_computed_apart(tiny_tokenizer: Any) -> None:
    """LongRoPE: above its first length all positions of a batch turn by other factors, also those of short prompts."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "original_max_position_embeddings": 100,
    }
    config = Phi3Config(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        original_max_position_embeddings=100,
        initializer_range=0.3,
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    assert switch_of_rotations(config) == 100
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llm = TransformersLLM(Phi3ForCausalLM(config).float().eval(), tiny_tokenizer, name="long")
    short, long = (Request(Prompt("You rank.", "Rome? " * n, "<answer>"), ("Rome", "Paris")) for n in (2, 60))
    alone = llm.complete([short], GREEDY)[0].choice_logprobs
    assert llm.complete([long, short], GREEDY)[1].choice_logprobs == pytest.approx(alone, abs=1e-5)
    llm.complete([replace(long, session="s")], GREEDY)
    after = llm.complete([replace(short, session="s")], GREEDY)[0].choice_logprobs
    assert after == pytest.approx(alone, abs=1e-5)


def test_other_models_rotate_in_one_way(tiny_llm: TransformersLLM) -> None:
    assert switch_of_rotations(tiny_llm.model.config) is None
    assert (
        switch_of_rotations(SimpleNamespace(rope_scaling={"type": "longrope"}, original_max_position_embeddings=9)) == 9
    )
    assert switch_of_rotations(SimpleNamespace(rope_scaling={"rope_type": "yarn", "factor": 2.0})) is None

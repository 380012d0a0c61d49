from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from factories import ExampleFactory
from r1ranker.errors import InputError
from r1ranker.llm.constrained import Grammar, Guide, Spills, held_choices, token_tree
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rollout import rank_all
from r1ranker.types import Completion, Prompt, Request, Sampling

NO_SPILLS = Spills({})


def grammar(*answers: tuple[int, ...], spills: Spills = NO_SPILLS) -> Grammar:
    """Tokens 7 8 close a thought and open the answer, 8 opens it; 0 ends the turn."""
    return Grammar(answers, (7, 8), (8,), (0,), spills)


# By hand, without a model


def test_common_beginnings_stand_in_the_tree_once() -> None:
    assert token_tree([(1, 2, 9), (1, 3, 9), (4, 9)]) == {1: {2: {9: {}}, 3: {9: {}}}, 4: {9: {}}}
    assert token_tree([(1, 9), (1, 9)]) == {1: {9: {}}}


def test_an_answer_is_walked_through_and_what_has_no_choice_is_written() -> None:
    guide = Guide(grammar((1, 2, 9), (1, 3, 4, 9), (5, 9)), 100, begun=True)
    assert guide.forced(0) == []
    assert guide.allowed() == [1, 5]
    guide.push(1, "")
    assert guide.forced(1) == []
    assert guide.allowed() == [2, 3]
    guide.push(3, "")
    assert not guide.done
    assert guide.forced(2) == [4, 9]
    assert guide.done


def test_a_label_that_begins_another() -> None:
    guide = Guide(grammar((1, 2, 9), (1, 2, 3, 9)), 100, begun=True)
    assert guide.forced(0) == [1, 2]
    assert guide.allowed() == [9, 3]
    guide.push(9, "")
    assert guide.forced(3) == []
    assert guide.done


def test_the_only_answer_is_written_at_once() -> None:
    guide = Guide(grammar((1, 2, 9)), 100, begun=True)
    assert guide.forced(0) == [1, 2, 9]
    assert guide.done


def listing(*lines: tuple[int, ...]) -> Grammar:
    """Lines end with 9, and 6 closes the list."""
    return replace(grammar(*lines), listed=True, end=(6,))


def test_a_list_has_every_line_once_and_then_its_end() -> None:
    guide = Guide(listing((1, 2, 9), (1, 3, 9), (5, 9)), 100, begun=True)
    assert guide.grammar.longest == 9
    assert guide.forced(0) == []
    assert guide.allowed() == [1, 5]
    guide.push(5, "")
    # The line ends by itself, and both that are left begin with 1.
    assert guide.forced(1) == [9, 1]
    assert guide.allowed() == [2, 3]
    guide.push(3, "")
    assert not guide.done
    assert guide.forced(4) == [9, 1, 2, 9, 6]
    assert guide.done


def test_a_line_that_begins_another_one() -> None:
    guide = Guide(listing((1, 9), (1, 2, 9)), 100, begun=True)
    assert guide.forced(0) == [1]
    guide.push(9, "")
    assert guide.forced(2) == [1, 2, 9, 6]
    assert guide.done


def test_a_list_after_a_thought_has_room() -> None:
    guide = Guide(listing((1, 9), (5, 9)), 12, begun=False)
    assert guide.grammar.reserve == 7
    assert guide.forced(4) == []
    assert guide.forced(5) == [7, 8]
    guide.push(5, "")
    assert guide.forced(8) == [9, 1, 9, 6]
    assert guide.done


@pytest.mark.parametrize(("tail", "opening"), [("so", [7, 8]), ("so</think> ", [8])])
def test_a_thought_is_ended_when_only_room_for_an_answer_is_left(tail: str, opening: list[int]) -> None:
    # Two tokens close and open, the longest answer takes three: 5 of 12.
    guide = Guide(grammar((1, 2, 9), (5, 9)), 12, begun=False)
    assert guide.grammar.reserve == 5
    for written in range(7):
        assert guide.forced(written) == []
        assert guide.allowed() is None
        guide.push(50, tail)
    assert guide.forced(7) == opening
    assert guide.allowed() == [1, 5]


def test_the_models_own_opening_tag_ends_the_thought() -> None:
    guide = Guide(grammar((1, 2, 9), (5, 9)), 100, begun=False)
    guide.push(50, "so</think><answer")
    assert guide.allowed() is None
    guide.push(51, "so</think><answer>")
    assert guide.allowed() == [1, 5]
    assert guide.forced(2) == []


def test_tokens_that_open_an_answer_and_begin_it_are_forbidden() -> None:
    spills = Spills({10: ">The", 11: "><", 12: "r>x", 13: "<answer>y"})
    guide = Guide(grammar((1, 9), (5, 9), spills=spills), 100, begun=False)
    assert guide.forbidden() == [0, 13]
    for tail, forbidden in (
        ("a <answer", [0, 10, 11, 13]),  # even a whole opening tag after a begun one
        ("a <answe", [0, 12, 13]),
        ("a <answer ", [0, 13]),
        ("a <b", [0, 13]),
    ):
        guide.push(50, tail)
        assert sorted(guide.forbidden()) == forbidden, tail


def test_spills_of_a_tokenizer() -> None:
    class Tokenizer:
        pieces = ("a", ">", "Ġ>", ">Ċ", ">b", "></", None, "->x")

        def __len__(self) -> int:
            return len(self.pieces)

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
            return [self.pieces[k] for k in ids]

        def decode(self, ids: list[int]) -> str:
            return str(self.pieces[ids[0]]).replace("Ġ", " ").replace("Ċ", "\n")

    spills = Spills.of(Tokenizer())
    # Blanks after the tag are no beginning of an answer.
    assert spills.after("<answer") == [4, 5]
    assert spills.after("a <answer -") == []


# With a model

ANSWERS = ("Toy Story", "Toy Story 2", "Heat", "Alien")
BEGUN = Request(Prompt("You rank.", "Which of these films?", "<answer>"), answers=ANSWERS)
THINK = Request(Prompt("You rank.", "Which of these films?", "<think>"), answers=ANSWERS)


def probability(completion: Completion) -> float:
    return math.exp(sum(completion.logprobs))


@torch.no_grad()
def by_hand(llm: TransformersLLM, prompt: Prompt, answers: tuple[str, ...], temperature: float) -> dict[str, float]:
    """Each answer's probability: token by token, over what may come next, by plain calls of the model."""
    trunk = llm.chat.encode(prompt)
    tokens = {a: llm.chat.encode_text(a) + llm.chat.encode_text("</answer>") for a in answers}
    out = {}
    for answer, own in tokens.items():
        total = 1.0
        for k in range(len(own)):
            allowed = sorted({t[k] for t in tokens.values() if t[:k] == own[:k] and len(t) > k})
            logits = llm.model(input_ids=torch.tensor([[*trunk, *own[:k]]])).logits[0, -1] / temperature
            total *= float(logits[allowed].softmax(0)[allowed.index(own[k])])
        out[answer] = total
    return out


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_probabilities_are_those_of_what_may_come_next_and_sum_to_one(
    tiny_llm: TransformersLLM, temperature: float
) -> None:
    expected = by_hand(tiny_llm, BEGUN.prompt, ANSWERS, temperature)
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-5)
    n = 300
    drawn = tiny_llm.complete([BEGUN] * n, Sampling(temperature, max_tokens=3, seed=2))
    found = {c.text.removesuffix("</answer>"): probability(c) for c in drawn}
    assert found == {a: pytest.approx(expected[a], abs=1e-4) for a in found}
    assert len(found) >= 2
    for answer, share in expected.items():
        seen = sum(c.text == answer + "</answer>" for c in drawn) / n
        assert abs(seen - share) < 4 * (share * (1 - share) / n) ** 0.5 + 1e-9, answer


def test_a_choice_is_read_as_far_as_it_is_told_from_the_others() -> None:
    a, b, c, d = held_choices([(1, 2, 9), (1, 2, 3, 4, 9), (5, 6, 9), (7, 9)])
    assert (a.tokens, a.among) == ((1, 2, 9), ((1, 5, 7), (2,), (9, 3)))
    assert (b.tokens, b.among) == ((1, 2, 3), ((1, 5, 7), (2,), (9, 3)))
    assert (c.tokens, c.among) == ((5,), ((1, 5, 7),))
    assert (d.tokens, d.among) == ((7,), ((1, 5, 7),))
    [alone] = held_choices([(1, 2, 9)])
    assert (alone.tokens, alone.among) == ((1,), ((1,),))


@pytest.mark.parametrize("stop", ["</answer>", ""])
def test_scored_answers_have_the_probabilities_they_are_written_with(tiny_llm: TransformersLLM, stop: str) -> None:
    request = replace(BEGUN, scored=True, stop=stop)
    [scored] = tiny_llm.complete([request], Sampling(sharpness=3.0))
    found = {a: math.exp(score) for a, score in zip(ANSWERS, scored.choice_logprobs, strict=True)}
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    if stop:
        assert found == pytest.approx(by_hand(tiny_llm, BEGUN.prompt, ANSWERS, 1.0), abs=1e-5)
    written = tiny_llm.complete([replace(BEGUN, stop=stop)] * 200, Sampling(1.0, seed=2))
    assert {c.text for c in written} > {scored.text}
    for completion in written:
        assert probability(completion) == pytest.approx(found[completion.text.removesuffix(stop)], abs=1e-4)
    assert scored.text == max(found, key=found.__getitem__) + stop
    # Drawn by these probabilities as they are: no sharpness.
    drawn = tiny_llm.complete([request] * 300, Sampling(1.0, sharpness=3.0, seed=3))
    for answer, share in found.items():
        seen = sum(c.text == answer + stop for c in drawn) / 300
        assert abs(seen - share) < 4 * (share * (1 - share) / 300) ** 0.5 + 1e-9, answer


def test_scores_are_not_asked_for_before_a_thought(tiny_llm: TransformersLLM) -> None:
    with pytest.raises(InputError, match="what is scored is read after <answer>"):
        tiny_llm.complete([replace(THINK, scored=True)], Sampling())


def test_greedy_takes_the_likeliest_token_that_may_come_next(tiny_llm: TransformersLLM) -> None:
    [completion] = tiny_llm.complete([BEGUN], Sampling())
    trunk, encode = tiny_llm.chat.encode(BEGUN.prompt), tiny_llm.chat.encode_text
    left = [encode(answer) + encode("</answer>") for answer in ANSWERS]
    written: list[int] = []
    while len(left) > 1:
        with torch.no_grad():
            logits = tiny_llm.model(input_ids=torch.tensor([[*trunk, *written]])).logits[0, -1]
        written.append(max((t[len(written)] for t in left), key=lambda token: float(logits[token])))
        left = [t for t in left if t[: len(written)] == tuple(written)]
    [expected] = left
    assert completion.token_ids == expected
    assert completion.finish == "stop"


def test_what_follows_by_itself_costs_nothing(tiny_llm: TransformersLLM) -> None:
    alone = Request(BEGUN.prompt, answers=("A long answer, of many words",))
    [completion] = tiny_llm.complete([alone], Sampling(max_tokens=2))
    assert completion.text == "A long answer, of many words</answer>"
    assert completion.token_ids == (
        *tiny_llm.chat.encode_text("A long answer, of many words"),
        *tiny_llm.chat.encode_text("</answer>"),
    )
    assert completion.logprobs == (0.0,) * len(completion.token_ids)
    assert completion.completion_tokens == 0
    # Two that part at their first token: one is drawn, the rest follows.
    [two] = tiny_llm.complete([Request(BEGUN.prompt, answers=("Heat", "Alien"))], Sampling())
    assert two.completion_tokens == 1 < len(two.token_ids)
    assert two.logprobs[0] < 0
    assert set(two.logprobs[1:]) == {0.0}
    # Two that part late: what they have in common is read before one is drawn.
    [late] = tiny_llm.complete([Request(BEGUN.prompt, answers=("Toy Story", "Toy Story 2"))], Sampling())
    assert late.completion_tokens == len(tiny_llm.chat.encode_text("Toy Story")) + 1


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_a_constrained_thought_always_ends_in_an_answer(tiny_llm: TransformersLLM, temperature: float) -> None:
    sampling = Sampling(temperature, max_tokens=60, seed=4)
    n = 40
    free = tiny_llm.complete([Request(THINK.prompt)] * n, sampling)
    held = tiny_llm.complete([THINK] * n, sampling)
    assert not any("<answer>" in c.text for c in free)  # a random model never writes the tags by itself
    for completion in held:
        thought, _, answer = completion.text.partition("<answer>")
        assert thought.endswith("</think>")
        assert answer.removesuffix("</answer>") in ANSWERS
        assert completion.finish == "stop"
        assert len(completion.token_ids) == len(completion.logprobs) <= 60
        assert completion.completion_tokens <= len(completion.token_ids)
        assert tiny_llm.tokenizer.eos_token_id not in completion.token_ids


def test_log_probs_of_a_thought_are_renormalised_without_the_end_of_the_turn(tiny_llm: TransformersLLM) -> None:
    [completion] = tiny_llm.complete([THINK], Sampling(1.0, max_tokens=60, seed=1))
    trunk = tiny_llm.chat.encode(THINK.prompt)
    with torch.no_grad():
        logits = tiny_llm.model(input_ids=torch.tensor([[*trunk, *completion.token_ids]])).logits[0].float()
    logits[:, tiny_llm.tokenizer.eos_token_id] = -torch.inf
    logprobs = logits.log_softmax(1)
    for k in range(10):
        expected = float(logprobs[len(trunk) - 1 + k, completion.token_ids[k]])
        assert completion.logprobs[k] == pytest.approx(expected, abs=1e-4)


def test_an_answer_without_a_stop_text_ends_with_the_turn(tiny_llm: TransformersLLM) -> None:
    request = Request(BEGUN.prompt, answers=("Toy Story", "Toy Story 2"), stop="")
    texts = {c.text for c in tiny_llm.complete([request] * 60, Sampling(5.0, seed=1))}
    assert texts == {"Toy Story", "Toy Story 2"}


def test_no_room_for_the_longest_answer_is_said(tiny_llm: TransformersLLM) -> None:
    longest = max(tiny_llm.count_tokens(a) for a in ANSWERS) + tiny_llm.count_tokens("</answer>")
    need = longest + tiny_llm.count_tokens("</think><answer>")
    [fits] = tiny_llm.complete([THINK], Sampling(max_tokens=need))
    assert fits.text.startswith("</think><answer>")
    with pytest.raises(InputError, match=rf"its longest answer takes {need} tokens .* max_tokens = {need - 1} allows"):
        tiny_llm.complete([THINK], Sampling(max_tokens=need - 1))


def test_free_and_constrained_requests_of_one_prompt_stand_beside_one_another(tiny_llm: TransformersLLM) -> None:
    scored = replace(BEGUN, scored=True)
    requests = [THINK, Request(THINK.prompt), BEGUN, scored, Request(BEGUN.prompt, ("Heat", "Alien")), THINK]
    together = tiny_llm.complete(requests, Sampling(max_tokens=50))
    for request, completion in zip(requests, together, strict=True):
        [alone] = tiny_llm.complete([request], Sampling(max_tokens=50))
        assert (alone.text, alone.token_ids) == (completion.text, completion.token_ids)


@pytest.mark.parametrize("layout", ["rebuild", "append"])
@pytest.mark.parametrize("thinking", [True, False])
def test_every_turn_of_a_constrained_ranking_is_exact(
    tiny_llm: TransformersLLM, make_example: ExampleFactory, layout: Any, thinking: bool
) -> None:
    ranker = IRanker(thinking=thinking, layout=layout, constrained=True)
    examples = [make_example(n, id=f"e{n}") for n in (2, 5, 8)]
    traces = rank_all(ranker, examples, tiny_llm, Sampling(1.0, max_tokens=80, seed=3))
    for example, trace in zip(examples, traces, strict=True):
        assert [t.parsed.status for t in trace.turns] == ["exact"] * (len(example.ids) - 1)
        assert sorted(trace.ranking) == sorted(example.ids)


def test_without_thinking_tokens_grow_with_the_candidates_not_with_their_square(
    tiny_llm: TransformersLLM, make_example: ExampleFactory
) -> None:
    ranker = IRanker(thinking=False, layout="append", constrained=True)
    spent = []
    for n in (4, 8):
        [trace] = rank_all(ranker, [make_example(n, id=f"n{n}")], tiny_llm)
        spent.append([t.completion.completion_tokens for t in trace.turns])
    # The labels of these films part at their first or second token.
    assert max(spent[0] + spent[1]) <= 2
    assert len(spent[1]) == 7


# Lists

LIST = replace(BEGUN, listed=True)


def lines_of(completion: Completion) -> list[str]:
    return completion.text.removesuffix("</answer>").splitlines()


def test_a_lists_probability_is_that_of_its_lines_one_after_the_other(tiny_llm: TransformersLLM) -> None:
    """What scores the next line of a list that is begun, as training does, agrees with what writes it."""
    seen = set()
    for completion in tiny_llm.complete([LIST] * 20, Sampling(1.0, max_tokens=3, seed=2)):
        lines, total = lines_of(completion), 0.0
        assert sorted(lines) == sorted(ANSWERS)
        assert completion.text.endswith("\n</answer>")
        assert completion.finish == "stop"
        for k, line in enumerate(lines):
            left = tuple(answer for answer in ANSWERS if answer not in lines[:k])
            begun = replace(LIST, answers=left, written=tuple(lines[:k]), scored=True)
            [scored] = tiny_llm.complete([begun], Sampling())
            assert sum(map(math.exp, scored.choice_logprobs)) == pytest.approx(1.0, abs=1e-5)
            total += scored.choice_logprobs[left.index(line)]
        assert sum(completion.logprobs) == pytest.approx(total, abs=1e-4)
        seen.add(tuple(lines))
    assert len(seen) > 2


def test_a_lists_tokens_are_those_of_its_lines(tiny_llm: TransformersLLM) -> None:
    [completion] = tiny_llm.complete([LIST], Sampling())
    encode = tiny_llm.chat.encode_text
    lines = [token for line in lines_of(completion) for token in (*encode(line), *encode("\n"))]
    assert completion.token_ids == (*lines, *encode("</answer>"))
    # The last line and the end follow by themselves.
    assert completion.completion_tokens <= len(lines) - len(encode(lines_of(completion)[-1]))
    [rest] = tiny_llm.complete([replace(LIST, written=("Heat",), answers=("Alien", "Toy Story"))], Sampling())
    assert sorted(lines_of(rest)) == ["Alien", "Toy Story"]


@pytest.mark.parametrize("thinking", [True, False])
def test_a_constrained_list_is_whole(tiny_llm: TransformersLLM, make_example: ExampleFactory, thinking: bool) -> None:
    ranker = DRanker(thinking=thinking, constrained=True)
    examples = [make_example(n, id=f"e{n}") for n in (2, 5, 8)]
    traces = rank_all(ranker, examples, tiny_llm, Sampling(1.0, max_tokens=120, seed=3))
    for example, trace in zip(examples, traces, strict=True):
        [turn] = trace.turns
        assert turn.parsed.status == "exact"
        assert turn.parsed.ids == trace.ranking
        assert sorted(trace.ranking) == sorted(example.ids)
        assert turn.parsed.well_formed
    assert any(trace.ranking != e.ids for trace, e in zip(traces, examples, strict=True))

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from factories import ExampleFactory
from r1ranker.baselines import Baseline
from r1ranker.errors import InputError
from r1ranker.llm.base import LLM, ScriptedLLM
from r1ranker.prompted import INSTRUCTIONS, LABEL_TOKENS, Ranker, Ranking, ask, ask_all
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rollout import rank_all, rollout
from r1ranker.schedules import Budget, Tournament, Windows
from r1ranker.types import Candidate, Completion, Prompt, RankingExample, Request, Sampling, Trace


class Recorder(ScriptedLLM):
    """Excludes the first candidate listed, and records each batch's sessions and seed."""

    def __init__(self) -> None:
        super().__init__(lambda request: request.choices[0])
        self.batches: list[list[str]] = []
        self.samplings: list[Sampling] = []

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.batches.append([r.session for r in requests])
        self.samplings.append(sampling)
        return super().complete(requests, sampling)


RANKER = IRanker(thinking=False)


@pytest.fixture
def examples(make_example: ExampleFactory) -> list[RankingExample]:
    """Rankings of 3, 1, 2, 0 and 1 turns."""
    return [make_example(n, id=f"e{k}") for k, n in enumerate((4, 2, 3, 1, 2))]


def test_a_finished_ranking_makes_room_at_once(examples: list[RankingExample]) -> None:
    llm = Recorder()
    done = [(position, trace.example_id) for position, trace in rollout(RANKER, examples, llm, concurrency=2)]
    # e1 ends after one round and e2 takes its place; e0 and e2 end together; e3 needs no LLM.
    assert llm.batches == [["e0", "e1"], ["e0", "e2"], ["e0", "e2"], ["e4"]]
    assert done == [(1, "e1"), (0, "e0"), (2, "e2"), (3, "e3"), (4, "e4")]


def test_one_at_a_time_and_all_at_once(examples: list[RankingExample]) -> None:
    one, all_ = Recorder(), Recorder()
    assert rank_all(RANKER, examples, one, concurrency=1) == rank_all(RANKER, examples, all_)
    assert [len(b) for b in one.batches] == [1] * 7
    assert [len(b) for b in all_.batches] == [4, 2, 1]


def test_traces_come_in_the_order_of_the_examples(examples: list[RankingExample]) -> None:
    traces = rank_all(RANKER, examples, Recorder(), concurrency=3)
    assert [t.example_id for t in traces] == ["e0", "e1", "e2", "e3", "e4"]
    assert [t.ranking for t in traces] == [tuple(reversed(e.ids)) for e in examples]
    assert [len(t.turns) for t in traces] == [3, 1, 2, 0, 1]


class Pairs(Baseline):
    """Asks about all candidates at once, in one tuple, then about the first alone; names them as the LLM does."""

    def rank(self, example: RankingExample) -> Ranking:
        requests = [Request(Prompt("", i), (f"{example.id}-{i}",), session=example.id) for i in example.ids]
        told = yield from ask_all(requests)
        last = yield from ask(requests[0])
        return Trace(example.id, tuple(c.text for c in (*told, last)))


def test_several_requests_of_a_ranking_are_asked_at_once(examples: list[RankingExample]) -> None:
    llm = Recorder()
    traces = rank_all(Pairs(), examples, llm, concurrency=2)
    for trace, example in zip(traces, examples, strict=True):
        texts = [f"{example.id}-{i}</answer>" for i in example.ids]
        assert trace.ranking == (*texts, texts[0])
    # Of the first requests of e0 (four) and e1 (two) one goes ahead, then all others; e2 takes e1's place at once.
    assert llm.batches[:3] == [["e0", "e1"], ["e0", "e0", "e0", "e1"], ["e0", "e1"]]
    assert llm.batches[3:] == [["e2", "e3"], ["e2", "e2", "e3"], ["e2", "e4"], ["e4"], ["e4"]]
    assert rank_all(Pairs(), examples, Recorder()) == traces


def test_examples_may_be_an_endless_stream_drawn_only_as_there_is_room(make_example: ExampleFactory) -> None:
    drawn: list[int] = []

    def endless() -> Iterator[RankingExample]:
        for k in itertools.count():
            drawn.append(k)
            yield make_example(2, id=f"e{k}")

    stream = rollout(RANKER, endless(), Recorder(), concurrency=3)
    assert drawn == []
    first = next(stream)
    assert first[0] == 0
    assert drawn == [0, 1, 2]
    assert [position for position, _ in itertools.islice(stream, 4)] == [1, 2, 3, 4]
    assert drawn == [0, 1, 2, 3, 4, 5]


def test_each_round_has_a_seed_of_its_own_and_the_rest_of_the_sampling(examples: list[RankingExample]) -> None:
    def seeds(seed: int) -> list[int]:
        llm = Recorder()
        sampling = Sampling(temperature=0.7, max_tokens=9, sharpness=2.0, seed=seed)
        rank_all(RANKER, examples, llm, sampling, concurrency=8)
        assert {replace(s, seed=seed) for s in llm.samplings} == {sampling}
        return [s.seed for s in llm.samplings]

    rounds = seeds(0)
    assert len(set(rounds)) == 3
    assert seeds(0) == rounds
    # Neighbouring seeds have no round in common: seed 0's second round is not seed 1's first.
    assert len({s for seed in range(20) for s in seeds(seed)}) == 60
    # The same in every process and on every machine, and one that torch takes.
    assert rounds[0] == 2_220_271_774_497_122_242
    assert all(0 <= s < 2**62 for s in rounds)


def test_the_same_example_may_stand_twice(make_example: ExampleFactory) -> None:
    traces = rank_all(RANKER, [make_example(3)] * 2, Recorder())
    assert traces[0] == traces[1]
    assert len(traces) == 2


def test_nothing_to_rank() -> None:
    llm = Recorder()
    assert rank_all(RANKER, [], llm) == []
    assert llm.batches == []


def test_a_direct_ranker_runs_by_the_same_driver(make_example: ExampleFactory) -> None:
    llm = ScriptedLLM(["x</think><answer>Heat (1995)</answer>", "x</think><answer>Toy Story (1995)</answer>"])
    traces = rank_all(DRanker(), [make_example(2, id="a"), make_example(2, id="b")], llm)
    assert [t.ranking for t in traces] == [("c2", "c1"), ("c1", "c2")]


@pytest.mark.parametrize("concurrency", [0, -1])
def test_no_room_at_all_is_refused(concurrency: int, make_example: ExampleFactory) -> None:
    with pytest.raises(InputError, match=f"concurrency is {concurrency}"):
        rank_all(RANKER, [make_example(2)], Recorder(), concurrency=concurrency)


def test_the_scripted_llm_is_an_llm(make_example: ExampleFactory) -> None:
    llm = ScriptedLLM(["Heat (1995)</answer>"], context_tokens=2048)
    assert isinstance(llm, LLM)
    assert (llm.name, llm.parameters, llm.context_tokens) == ("scripted", None, 2048)
    assert llm.count_tokens(" two words ") == 2
    [trace] = rank_all(RANKER, [make_example(2)], llm)
    completion = trace.turns[0].completion
    assert completion.text == "Heat (1995)</answer>"
    assert completion.choice_logprobs == (-1.0, 0.0)
    assert (completion.finish, completion.completion_tokens) == ("choice", 5)
    assert trace.usage.prompt_tokens == completion.prompt_tokens > 10


@pytest.mark.parametrize("text", ["b", "b;", "a;", "c"])
def test_a_script_may_leave_out_the_stop_text(text: str) -> None:
    request = Request(Prompt("s", "u"), ("b", "a"), stop=";")
    if text == "c":
        with pytest.raises(InputError, match=r"'c', which is none of \('b', 'a'\)"):
            ScriptedLLM([text]).complete([request], Sampling())
        return
    [completion] = ScriptedLLM([text]).complete([request], Sampling())
    assert completion.text == text[0] + ";"
    assert completion.choice_logprobs == ((0.0, -1.0) if text[0] == "b" else (-1.0, 0.0))


def test_what_a_script_writes_freely_stays_as_it_is() -> None:
    request = Request(Prompt("s", "u"))
    completions = ScriptedLLM(["b", "b</answer>"]).complete([request] * 2, Sampling())
    assert [c.text for c in completions] == ["b", "b</answer>"]


def long_texts(make_example: ExampleFactory, words: int, **fields: Any) -> RankingExample:
    plain = make_example(2, **fields)
    candidates = tuple(Candidate(c.id, c.text + " word" * words, c.text) for c in plain.candidates)
    return replace(plain, candidates=candidates)


def test_texts_too_long_for_the_context_are_cut_and_counted(make_example: ExampleFactory) -> None:
    examples = [make_example(2, id="short"), long_texts(make_example, 900, id="long")]
    sampling = Sampling(max_tokens=100)
    small = ScriptedLLM(lambda r: r.choices[0], context_tokens=1000)
    short, long = rank_all(RANKER, examples, small, sampling)
    assert (short.truncated, long.truncated) == (0, 2)
    # 1000 - 64 for the label - 256 = 680 for the texts; the wording's words take less than their 256.
    assert 600 < long.turns[0].completion.prompt_tokens < 1000 - LABEL_TOKENS
    assert long.ranking == ("c2", "c1")
    # Without a limit nothing is cut.
    [whole] = rank_all(RANKER, examples[1:], ScriptedLLM(lambda r: r.choices[0]), sampling)
    assert whole.truncated == 0
    assert whole.turns[0].completion.prompt_tokens > 1800


@pytest.mark.parametrize("context", [None, 8192])
@pytest.mark.parametrize("wrap", [lambda r: r, lambda r: Windows(r, 2, 1), lambda r: Tournament(r, 2), Budget])
def test_documents_are_cut_to_the_rankers_limit_and_counted(
    make_example: ExampleFactory, context: int | None, wrap: Callable[[IRanker], Ranker]
) -> None:
    ranker = wrap(replace(RANKER, document_tokens=8))
    llm = ScriptedLLM(lambda r: r.choices[0], context_tokens=context)
    short, long = rank_all(ranker, [make_example(2, id="short"), long_texts(make_example, 900, id="long")], llm)
    assert (short.truncated, long.truncated) == (0, 2)
    prompt = long.turns[0].request.prompt.user
    assert 10 <= prompt.count(" word") <= 16  # eight words a text, of which some are its own
    assert long.ranking == ("c2", "c1")


def test_an_example_that_cannot_fit_is_reported_and_the_others_go_on(make_example: ExampleFactory) -> None:
    hopeless = make_example(8, id="many")
    examples = [make_example(2, id="a", history=()), hopeless, make_example(2, id="b", history=())]
    llm = ScriptedLLM(lambda r: r.choices[0], context_tokens=INSTRUCTIONS + 10 + 40)
    errors: list[tuple[int, str]] = []
    done = rollout(
        RANKER, examples, llm, Sampling(max_tokens=10), on_error=lambda k, error: errors.append((k, str(error)))
    )
    assert sorted(position for position, _ in done) == [0, 2]
    [(position, message)] = errors
    assert position == 1
    assert "'many': its 8 candidates do not fit" in message
    with pytest.raises(InputError, match="'many'"):
        rank_all(RANKER, examples, llm, Sampling(max_tokens=10))


@pytest.mark.parametrize("ranker", [IRanker(), DRanker(), DRanker(thinking=False)])
def test_a_context_with_no_room_for_a_prompt_is_refused(
    ranker: IRanker | DRanker, make_example: ExampleFactory
) -> None:
    llm = ScriptedLLM([], context_tokens=512)
    with pytest.raises(InputError, match=r"scripted reads 512 tokens, which an answer of max_tokens = 256 and the"):
        rank_all(ranker, [make_example(2)], llm, Sampling(max_tokens=256))


def test_a_label_that_is_scored_needs_no_room_for_max_tokens(make_example: ExampleFactory) -> None:
    llm = ScriptedLLM(["Heat (1995)"], context_tokens=512)
    [trace] = rank_all(RANKER, [make_example(2)], llm, Sampling(max_tokens=10_000))
    assert (trace.ranking, trace.truncated) == (("c1", "c2"), 0)
    with pytest.raises(InputError, match="scripted reads 320 tokens"):
        rank_all(RANKER, [make_example(2)], ScriptedLLM([], context_tokens=INSTRUCTIONS + LABEL_TOKENS))


def test_labels_that_append_names_again_fit_too(make_example: ExampleFactory) -> None:
    """Without a name a text is its own label: the last turn reads 4 of 6 twice."""
    plain = make_example(6)
    example = replace(plain, candidates=tuple(Candidate(c.id, c.text + " word" * 300) for c in plain.candidates))
    llm = ScriptedLLM(lambda r: r.choices[-1], context_tokens=1000)
    [trace] = rank_all(IRanker(thinking=False, layout="append"), [example], llm)
    read = [t.completion.prompt_tokens for t in trace.turns]
    assert read == sorted(read)
    assert (len(read), trace.truncated) == (5, 6)
    # (1000 - 64 - 256) // 2 = 340 for the texts once, and up to 4 / 6 of that again.
    assert read[0] < 340 + 60 < read[-1] < 1000 - LABEL_TOKENS


def test_without_an_llm_only_a_ranker_that_asks_nothing_can_rank(make_example: ExampleFactory) -> None:
    assert [t.ranking for t in rank_all(RANKER, [make_example(1)])] == [("c1",)]
    with pytest.raises(InputError, match="IRanker needs an LLM: give one, or rank with a baseline"):
        rank_all(RANKER, [make_example(1, id="one"), make_example(2)])


class Picky(ScriptedLLM):
    """Refuses every batch in which a prompt has a word."""

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        if any("forbidden" in request.prompt.user for request in requests):
            raise InputError("a prompt is too long")
        return super().complete(requests, sampling)


def test_a_list_that_the_llm_refuses_costs_no_other_list(make_example: ExampleFactory) -> None:
    refused = make_example(3, id="bad", history=("forbidden",))
    examples = [make_example(3, id="a", history=()), refused, make_example(4, id="b", history=())]
    errors: list[tuple[int, str]] = []
    done = dict(
        rollout(RANKER, examples, Picky(lambda r: r.choices[0]), on_error=lambda k, e: errors.append((k, str(e))))
    )
    assert {k: sorted(trace.ranking) for k, trace in done.items()} == {k: sorted(examples[k].ids) for k in (0, 2)}
    assert errors == [(1, "a prompt is too long")]
    llm = Picky(lambda r: r.choices[0])
    seeds: list[int] = []
    complete = llm.complete
    llm.complete = lambda r, s: (seeds.append(s.seed), complete(r, s))[1]  # type: ignore[method-assign]
    assert len(list(rollout(RANKER, examples, llm, on_error=lambda *_: None))) == 2
    assert len(set(seeds)) == len(seeds) > 4  # those that are asked alone draw noise of their own
    with pytest.raises(InputError, match="too long"):
        rank_all(RANKER, examples, Picky(lambda r: r.choices[0]))

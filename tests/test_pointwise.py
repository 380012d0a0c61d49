from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import ExampleFactory
from r1ranker.config import RankerConfig, load_config
from r1ranker.errors import ConfigError, InputError
from r1ranker.llm.base import ScriptedLLM
from r1ranker.pointwise import Pointwise
from r1ranker.prompted import INSTRUCTIONS, LABEL_TOKENS, OutOfBudget
from r1ranker.prompts import PromptTemplates
from r1ranker.rankers import IRanker, make_ranker
from r1ranker.rollout import rank_all
from r1ranker.schedules import Budget, Tournament, Windows
from r1ranker.sections import parse_section
from r1ranker.types import Candidate, Completion, ParsedAnswer, RankingExample, Request, Sampling, Scenario, Trace

if TYPE_CHECKING:
    from r1ranker.llm.transformers import TransformersLLM


def judged(example: RankingExample, *pairs: tuple[float, float]) -> Trace:
    """Answer the candidates with log-probs of yes and no, in listed order; with fewer pairs a budget ends it."""
    ranking = Pointwise().rank(example)
    next(ranking)
    told = tuple(Completion("", choice_logprobs=pair) for pair in pairs)
    with pytest.raises(StopIteration) as stop:
        ranking.send(told) if len(told) == len(example.ids) else ranking.throw(OutOfBudget(told))
    trace: Trace = stop.value.value
    return trace


class Says(ScriptedLLM):
    """Gives yes these log-probs, by the candidate's text, and no log-prob -1; counts 10 tokens a call."""

    def __init__(self, yes: Mapping[str, float], tokens: int = 10) -> None:
        super().__init__(lambda _: "yes")
        self.yes, self.tokens = yes, tokens
        self.batches: list[int] = []

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.batches.append(len(requests))
        return [
            replace(c, choice_logprobs=(self.yes[shown(r)], -1.0), prompt_tokens=self.tokens - 2, completion_tokens=2)
            for r, c in zip(requests, super().complete(requests, sampling), strict=True)
        ]


def shown(request: Request) -> str:
    return request.prompt.user.rpartition("Candidate:\n")[2]


# Prompts


@pytest.mark.parametrize(
    ("scenario", "question", "candidate"),
    [
        ("recommendation", "Is this a candidate that the user is likely to choose next?", "Heat (1995)"),
        ("routing", "Is this candidate suitable?", "Mistral 7B: Mistral 7B costs 2 cents a call."),
        (
            "passage",
            "Is this passage helpful to answer the query?",
            "The Tiber flows through Rome and reaches the sea near Ostia.",
        ),
    ],
)
def test_one_candidate_stands_at_the_end_of_its_prompt(
    scenario: Scenario, question: str, candidate: str, make_example: ExampleFactory
) -> None:
    example = make_example(4, scenario=scenario)
    request = Pointwise().request(example, "c2")
    user = request.prompt.user
    assert user.endswith(f"\n\n{question} Reply with yes or no only.\n\nCandidate:\n{candidate}")
    whole = IRanker(thinking=False).request(example, example.ids).prompt
    context = whole.user.partition("\n\n")[0]
    assert user.startswith(context + "\n\n")
    assert (request.prompt.system, request.prompt.prefill) == (whole.system, "<answer>")
    assert (request.choices, request.session, request.stop, request.scored) == (("yes", "no"), "e1", "", True)
    # What differs between two candidates is at the end alone.
    assert Pointwise().request(example, "c4").prompt.user.startswith(user.removesuffix(candidate))


def test_a_name_that_is_the_text_is_shown_once() -> None:
    example = RankingExample("e", "recommendation", (Candidate("a", "Heat", "Heat"), Candidate("b", "Jaws  2")))
    assert [shown(Pointwise().request(example, i)) for i in "ab"] == ["Heat", "Jaws 2"]


def test_the_words_are_the_templates(make_example: ExampleFactory) -> None:
    sections = {name: dict(keys) for name, keys in PromptTemplates.default().sections.items()}
    sections["answer"] |= {"yes": "ja", "no": "nein", "pointwise": "Antworte nur mit $yes oder $no."}
    request = Pointwise(templates=PromptTemplates(sections)).request(make_example(2), "c1")
    assert request.choices == ("ja", "nein")
    assert "Antworte nur mit ja oder nein." in request.prompt.user


# Rankings


def test_the_log_odds_of_yes_decide(make_example: ExampleFactory) -> None:
    # Log-odds 1, -0.5, 2 and -3: not the likeliest yes (c2), nor the least likely no (c1).
    trace = judged(make_example(4), (-3.0, -4.0), (-0.5, 0.0), (-1.0, -3.0), (-5.0, -2.0))
    assert trace.ranking == ("c3", "c1", "c2", "c4")
    assert [t.remaining for t in trace.turns] == [("c1",), ("c2",), ("c3",), ("c4",)]
    assert [t.parsed for t in trace.turns] == [ParsedAnswer("exact", (i,)) for i in ("c1", "c2", "c3", "c4")]
    assert (trace.eliminated, trace.cut_short, trace.usage.calls) == ((), False, 4)
    assert trace.scores == {"c1": 1.0, "c2": -0.5, "c3": 2.0, "c4": -3.0}


@pytest.mark.parametrize(
    ("yes", "ranking"),
    [
        ((0.00004, 0, 0.00008), ("c3", "c1", "c2")),  # the same text in another batch
        ((0, 0, 0), ("c3", "c1", "c2")),
        ((0, 1, 1), ("c1", "c2", "c3")),
        ((1, 0, 1), ("c3", "c2", "c1")),
    ],
)
def test_equal_odds_keep_the_listed_order(
    yes: tuple[float, ...], ranking: tuple[str, ...], make_example: ExampleFactory
) -> None:
    example = make_example(3).restrict(["c3", "c1", "c2"])
    assert judged(example, *((value, 0.0) for value in yes)).ranking == ranking


def test_one_goes_ahead_and_all_others_follow_at_once(make_example: ExampleFactory) -> None:
    example = make_example(5)
    llm = Says({c.text: -float(k) for k, c in enumerate(reversed(example.candidates))})
    [trace] = rank_all(Pointwise(), [example], llm)
    assert llm.batches == [1, 4]
    assert trace.ranking == ("c5", "c4", "c3", "c2", "c1")
    assert [shown(r) for r in llm.requests] == [c.text for c in example.candidates]


def test_a_single_candidate_is_judged_too(make_example: ExampleFactory) -> None:
    """Its score tells whether it is any good, which needs no other."""
    example = make_example(1)
    [trace] = rank_all(Pointwise(), [example], Says({example.candidates[0].text: 0.5}))
    assert (trace.ranking, trace.scores) == (("c1",), {"c1": 1.5})
    assert [Pointwise().calls(n) for n in (1, 2, 7)] == [1, 2, 7]


@pytest.mark.parametrize("scores", [(), (-1.0,), (-1.0, -2.0, -3.0)])
def test_both_log_probs_are_needed(scores: tuple[float, ...], make_example: ExampleFactory) -> None:
    ranking = Pointwise().rank(make_example(2))
    next(ranking)
    said = (
        rf"example 'e1': the LLM tells {len(scores)} of 2 choices' log-probs, which kind = 'pointwise' ranks by: take "
        "kind = 'iterative' or 'direct', or take a model that is loaded here"
    )
    with pytest.raises(InputError, match=said):
        ranking.send((Completion("yes", choice_logprobs=(-1.0, -2.0)), Completion("yes", choice_logprobs=scores)))


def test_only_one_candidate_must_fit(make_example: ExampleFactory) -> None:
    example = replace(
        make_example(1), candidates=tuple(Candidate(f"c{k}", f"film {k}" + " word" * 30) for k in range(50))
    )
    llm = ScriptedLLM(lambda _: "yes", context_tokens=INSTRUCTIONS + LABEL_TOKENS + 80)
    [trace] = rank_all(Pointwise(), [example], llm, Sampling(max_tokens=999))
    assert (trace.ranking, trace.truncated) == (example.ids, 0)
    with pytest.raises(InputError, match="its 50 candidates do not fit"):
        rank_all(IRanker(thinking=False), [example], llm)


def test_a_real_model_gives_the_odds_of_a_plain_pass(tiny_llm: TransformersLLM, make_example: ExampleFactory) -> None:
    import torch

    example = make_example(4, scenario="passage")
    [trace] = rank_all(Pointwise(), [example], tiny_llm)
    odds: dict[str, float] = {}
    for turn in trace.turns:
        trunk = tiny_llm.chat.encode(turn.request.prompt)
        words = [tiny_llm.chat.encode_text(word) for word in ("yes", "no")]
        means = []
        for word in words:
            with torch.no_grad():
                logits = tiny_llm.model(torch.tensor([[*trunk, *word]])).logits[0].log_softmax(-1)
            steps = [logits[len(trunk) - 1 + k, token] for k, token in enumerate(word)]
            means.append(float(sum(steps)) / len(word))
        assert turn.completion.choice_logprobs == pytest.approx(means, abs=1e-4)
        odds[turn.remaining[0]] = means[0] - means[1]
    assert trace.ranking == tuple(sorted(odds, key=lambda i: -odds[i]))
    # The context is computed once: the others find all but the candidate and the end of the prompt.
    assert trace.turns[0].completion.cached_tokens == 0
    least = trace.turns[0].completion.prompt_tokens // 2
    assert all(t.completion.cached_tokens > least for t in trace.turns[1:])


# Budgets


def test_what_is_not_judged_follows_as_listed(make_example: ExampleFactory) -> None:
    trace = judged(make_example(5), (-3.0, 0.0), (-1.0, 0.0), (-2.0, 0.0))
    assert trace.ranking == ("c2", "c3", "c1", "c4", "c5")
    assert (trace.cut_short, len(trace.turns)) == (True, 3)
    assert trace.scores == {"c1": -3.0, "c2": -1.0, "c3": -2.0}
    assert judged(make_example(3)) == Trace("e1", ("c1", "c2", "c3"), cut_short=True)


def test_a_budget_is_never_exceeded_and_spent_as_far_as_it_surely_goes(make_example: ExampleFactory) -> None:
    example = make_example(5)
    yes = {c.text: float(k) for k, c in enumerate(example.candidates)}
    for calls in range(1, 7):
        llm = Says(yes)
        [trace] = rank_all(Budget(Pointwise(), max_calls=calls), [example], llm)
        made = min(calls, 5)
        assert (len(llm.requests), trace.cut_short) == (made, calls < 5)
        assert trace.ranking == (*reversed(example.ids[:made]), *example.ids[made:])
        assert set(llm.batches) == {1}
    assert [Budget(Pointwise(), max_calls=3).calls(n) for n in (1, 2, 9)] == [1, 2, 3]


def test_a_budget_of_tokens_knows_what_the_last_prompt_took(make_example: ExampleFactory) -> None:
    example = make_example(3)
    yes = {c.text: float(k) for k, c in enumerate(example.candidates)}
    prompt = Pointwise().request(example, "c1").prompt
    lines = f"{prompt.system}\n{prompt.user}\n<answer>".split("\n")
    first = INSTRUCTIONS + sum(len(line) + 1 for line in lines) + 64
    tokens = first  # a backend that takes as many as it may: 2 of them for the two words
    second = tokens + (tokens - 2) + len("Heat (1995)") + 1 + 64
    for budget, calls in ((first - 1, 0), (first, 1), (second - 1, 1), (second, 2)):
        llm = Says(yes, tokens)
        [trace] = rank_all(Budget(Pointwise(), max_tokens=budget), [example], llm)
        assert (len(llm.requests), trace.cut_short) == (calls, True)


@given(
    st.lists(st.integers(-9, 0), min_size=1, max_size=8),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 2000),
)
def test_whatever_the_odds_and_the_budget(yes: list[int], calls: int | None, tokens: int | None) -> None:
    candidates = tuple(Candidate(f"c{k}", f"film {k}") for k in range(len(yes)))
    example = RankingExample("e1", "recommendation", candidates)
    llm = Says({f"film {k}": value for k, value in enumerate(yes)})
    [trace] = rank_all(Budget(Pointwise(), calls, tokens), [example], llm)
    done = len(trace.turns)
    assert trace.ranking == (
        *sorted(example.ids[:done], key=lambda i: -yes[int(i[1:])]),
        *example.ids[done:],
    )
    assert calls is None or done <= calls
    assert tokens is None or trace.usage.prompt_tokens + trace.usage.completion_tokens <= tokens
    assert trace.cut_short is (done < len(yes))


# Settings


def test_it_does_not_think_and_is_no_way_to_train() -> None:
    with pytest.raises(ConfigError, match=r"'pointwise' scores the candidates .*: set thinking = false"):
        Pointwise(thinking=True)
    assert RankerConfig(kind="pointwise").thinking is False
    said = r"^--set: ranker\.kind = 'pointwise' is a way to rank, not to train: .* then rank with pointwise"
    with pytest.raises(ConfigError, match=said):
        load_config(None, ["ranker.kind=pointwise"])


def test_it_is_built_from_settings() -> None:
    assert RankerConfig(kind="pointwise").build(None) == Pointwise() == make_ranker("pointwise")
    assert RankerConfig(kind="pointwise", budget_calls=4).build(None) == Budget(Pointwise(), 4)
    # To judge a candidate alone there are two words in any case.
    assert RankerConfig(kind="pointwise", constrained=True).build(None) == Pointwise()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 4}, "kind = 'pointwise' judges each candidate alone, .*: leave out window and tournament"),
        ({"tournament": 4}, "kind = 'pointwise' judges each candidate alone"),
        ({"exclude_per_turn": 2}, "exclude_per_turn and stop_at are for kind = 'iterative', not 'pointwise'"),
    ],
)
def test_what_does_not_go_with_it(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_section(RankerConfig, {"kind": "pointwise", **settings}, "row")
    for make in (lambda: Windows(Pointwise(), 4, 2), lambda: Tournament(Pointwise(), 4)):
        with pytest.raises(ConfigError, match="judges each candidate alone"):
            make()

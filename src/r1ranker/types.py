"""The data that flows through the package: frozen dataclasses, free of torch and of I/O.

An example becomes a prompt, a prompt a completion, a completion a parsed answer, and the turns of a
ranker a trace. Everything later (rewards, training, evaluation, serving) reads these and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from r1ranker.errors import InputError

Scenario = Literal["recommendation", "routing", "passage"]
ParseStatus = Literal["exact", "repaired", "defaulted", "failed"]
FinishReason = Literal["stop", "length", "choice"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing to be ranked.

    `text` is what the model reads; `name` is a short name it can answer with, where there is one (an
    LLM's name beside its description). Without a name the text itself serves.
    """

    id: str
    text: str
    name: str | None = None

    @property
    def called(self) -> str:
        """What it is called: its name, or its text where it has none."""
        return self.name or self.text


@dataclass(frozen=True, slots=True)
class Achieved:
    """What an LLM achieved on a query: effect, higher is better; cost, in the data's own unit, None where unknown."""

    effect: float
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class RankingExample:
    """A context (a query, a user's history, or both) and the candidates to put in order, best first.

    `relevance` maps candidate ids to grades (0 or absent: not relevant); several may be positive, and
    grades may tie. `group` is what a split must keep together (a user, a query). `item_type` is what
    one candidate is called in a prompt ("movie"). `presorted`: the candidates stand in the order of an earlier ranking,
    best first, which the prompt then tells; else their order means nothing. `unlisted`: grades above 0 of relevant
    documents that are no candidates (an earlier ranking missed them); no ranking reaches them, and nDCG counts them.
    `goal`: in routing how the query is to be answered ("well, whatever it costs"); else the prompt's own words say it.
    `achieved`: in routing what the candidates achieved, where it is known; no ranker reads it, reports do.

    Raises InputError for no candidates, an id that stands twice, an unusable grade, or a history or goal where none is
    read.
    """

    id: str
    scenario: Scenario
    candidates: tuple[Candidate, ...]
    query: str = ""
    history: tuple[str, ...] = ()
    relevance: Mapping[str, float] = field(default_factory=dict)
    group: str = ""
    item_type: str = ""
    presorted: bool = False
    unlisted: Mapping[str, float] = field(default_factory=dict)
    achieved: Mapping[str, Achieved] = field(default_factory=dict)
    goal: str = ""

    def __post_init__(self) -> None:
        if not self.candidates:
            raise InputError(f"example '{self.id}' has no candidates: give at least one")
        if self.history and self.scenario != "recommendation":
            raise InputError(f"example '{self.id}': {self.scenario} is asked by a query alone: leave the history out")
        if self.goal and self.scenario != "routing":
            raise InputError(f"example '{self.id}': a goal is for routing; {self.scenario} has none: leave it out")
        ids = [c.id for c in self.candidates]
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise InputError(f"example '{self.id}': the candidate id '{twice}' stands twice; ids must differ")
        known = set(ids)
        for key, grade in self.relevance.items():
            if key not in known:
                raise InputError(f"example '{self.id}': relevance names '{key}', which is not a candidate")
            if not math.isfinite(grade) or grade < 0:
                raise InputError(
                    f"example '{self.id}': the grade of '{key}' is {grade}; it must be a finite number >= 0"
                )
        if odd := set(self.achieved) - known:
            raise InputError(f"example '{self.id}': achieved names '{min(odd)}', which is not a candidate")
        for key, grade in self.unlisted.items():
            if key in known:
                raise InputError(f"example '{self.id}': unlisted names '{key}', which is a candidate")
            if not math.isfinite(grade) or grade <= 0:
                raise InputError(
                    f"example '{self.id}': the grade of '{key}', unlisted, is {grade}; it must be a finite number > 0"
                )

    @property
    def ids(self) -> tuple[str, ...]:
        """Candidate ids in the order in which they are listed."""
        return tuple(c.id for c in self.candidates)

    def grade(self, candidate_id: str) -> float:
        """The relevance grade of a candidate, 0 where none is given."""
        return float(self.relevance.get(candidate_id, 0.0))

    def restrict(self, ids: Sequence[str]) -> RankingExample:
        """The same example with only the candidates `ids`, listed in that order."""
        by_id = {c.id: c for c in self.candidates}
        return replace(
            self,
            candidates=tuple(by_id[i] for i in ids),
            relevance={i: self.relevance[i] for i in ids if i in self.relevance},
            achieved={i: self.achieved[i] for i in ids if i in self.achieved},
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat prompt and the first characters of the reply (`<think>` or `<answer>`)."""

    system: str
    user: str
    prefill: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What a ranker asks of an LLM.

    With `choices` the reply is one of these texts, closed by `stop`, and the LLM scores them all (no
    thinking); without, it writes freely until `stop`. Requests with the same `session` are turns of one
    ranking: a backend may keep what it computed for their common prefix. `scored`: the choices' log-probs are
    what is asked for, and a backend that cannot tell them raises InputError.

    `answers`: the reply is written freely up to `<answer>`, then it is one of these texts, closed by `stop`; its
    log-probs are those of the constrained distribution. A backend that cannot hold a reply to them raises
    InputError. Not together with `choices`. With `scored`, and a prompt that ends in `<answer>`, nothing is written:
    every answer gets its probability under that distribution; they sum to one.

    `listed`: the reply is all of the answers, each once, one a line in any order. `written`: lines that stand before
    them already, after the prompt; what is scored is then each answer's probability to be the next line.
    """

    prompt: Prompt
    choices: tuple[str, ...] = ()
    session: str = ""
    stop: str = "</answer>"
    scored: bool = False
    answers: tuple[str, ...] = ()
    listed: bool = False
    written: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    temperature: 0 is greedy.
    max_tokens: longest completion, in tokens.
    sharpness: without thinking, a choice's probability is the softmax of sharpness times its mean
        token log-prob.
    seed: the same seed and requests give the same completions on the same machine.
    """

    temperature: float = 0.0
    max_tokens: int = 1024
    sharpness: float = 3.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What an LLM wrote after the prompt's prefill.

    token_ids, logprobs: the sampled tokens and their log-probs (nats), or empty for a backend that
        does not tell them. Losses use these ids; text is never tokenized again. With `answers` the log-probs are
        those of the distribution that was sampled, in which tokens that may not come next have no share: a token
        that is the only one possible has log-prob 0.
    choice_logprobs: for a request with choices, each choice's mean token log-prob, in their order. The
        first token of the stop text counts with it, so that a choice that begins another can be told apart.
        For scored answers, each one's log-probability.
    prompt_tokens, completion_tokens: tokens read, and tokens sampled (or scored, with choices). Where an answer's
        last tokens are the only ones possible, they cost nothing and are not counted.
    cached_tokens: the part of prompt_tokens that was reused rather than computed.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    choice_logprobs: tuple[float, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    finish: FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What a completion says.

    status: `exact` (letter for letter), `repaired` (recovered: case, spacing, a part of a name, or a
        list that had to be completed), `defaulted` (an answer that names no candidate) or `failed` (no
        answer). In the last two the ranker takes its default.
    ids: the candidates named, in order; empty if defaulted or failed.
    thought: the text between the think tags.
    wrong_tags: how many of the four tags are missing or repeated (0 to 4).
    well_formed: whether the reply is one thought followed by one answer, with nothing around them.
    """

    status: ParseStatus
    ids: tuple[str, ...] = ()
    thought: str = ""
    wrong_tags: int = 0
    well_formed: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """What a ranking cost: LLM calls, tokens, and seconds of wall time."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange with the LLM: the candidates that stood to choice, and what came of it.

    excluded_ids: what it excluded, the least likely candidate first; empty where nothing is excluded (a DRanker).
    """

    remaining: tuple[str, ...]
    request: Request
    completion: Completion
    parsed: ParsedAnswer
    excluded_ids: tuple[str, ...] = ()

    @property
    def excluded(self) -> str | None:
        """The one candidate of a turn that excludes one (of several the first), or None."""
        return self.excluded_ids[0] if self.excluded_ids else None


@dataclass(frozen=True, slots=True)
class Trace:
    """A finished ranking and every turn that led to it.

    `ranking` holds every candidate id exactly once, best first. `truncated` counts texts that were cut
    so that the prompt fits the model's context. `cut_short`: a budget ended it before the ranker was done.
    `scores`: of the candidates that a ranker which only scores has judged, in nats, higher is better (`first_step`,
    `pointwise`); empty for others, and where windows or a tournament were ranked one after the other.
    """

    example_id: str
    ranking: tuple[str, ...]
    turns: tuple[Turn, ...] = ()
    truncated: int = 0
    cut_short: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def eliminated(self) -> tuple[str, ...]:
        """Ids in the order in which they were excluded (an IRanker's trace)."""
        return tuple(i for turn in self.turns for i in turn.excluded_ids)

    @property
    def usage(self) -> Usage:
        """Calls and tokens summed over the turns; seconds are measured by whoever drives the ranker."""
        return Usage(
            calls=len(self.turns),
            prompt_tokens=sum(t.completion.prompt_tokens for t in self.turns),
            completion_tokens=sum(t.completion.completion_tokens for t in self.turns),
            cached_tokens=sum(t.completion.cached_tokens for t in self.turns),
        )


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model reasoned before it rightly excluded a candidate.

    example_id: the example it ranked. context: that example's query or history, as a text.
    excluded: what was excluded, by its name or its text. reward: what the reply earned.
    model: who reasoned.
    """

    example_id: str
    scenario: Scenario
    context: str
    thought: str
    excluded: str
    reward: float
    model: str

"""Whole eliminations by the policy as it is: the states that it reaches, and the turns that led there."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from r1ranker.config import RunConfig
from r1ranker.llm.base import LLM
from r1ranker.rankers import IRanker
from r1ranker.rl.states import State, States
from r1ranker.types import Completion, ParsedAnswer, Request, Sampling


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One turn of an elimination."""

    state: State
    request: Request
    completion: Completion
    parsed: ParsedAnswer


def eliminate(
    starts: Sequence[State], ranker: IRanker, llm: LLM, ask: Callable[[State], Request], sampling: Sampling
) -> list[list[Exclusion]]:
    """An elimination from each state, side by side: a turn of all of them is one call of the LLM.

    ask: the request of a state. As in a ranking, an answer that names no candidate excludes the last one listed. An
    elimination ends once no exclusion is better than another (`State.undecided`): nothing is to be learned there.
    """
    runs: list[list[Exclusion]] = [[] for _ in starts]
    states = list(starts)
    turn = 0
    while waiting := [k for k, state in enumerate(states) if state.undecided]:
        # A session each: what the turns of one have in common is computed once.
        requests = [replace(ask(states[k]), session=f"elimination {k}") for k in waiting]
        seed = random.Random(f"{sampling.seed}/{turn}").getrandbits(62)
        completions = llm.complete(requests, replace(sampling, seed=seed))
        for k, request, completion in zip(waiting, requests, completions, strict=True):
            state = states[k]
            # The reply was drawn, also where all choices were scored: it counts, and not the likeliest choice.
            drawn = replace(request, scored=False)
            parsed = ranker.parse(state.example, state.remaining, drawn, completion)
            runs[k].append(Exclusion(state, request, completion, parsed))
            states[k] = state.without(parsed.ids[0] if parsed.ids else state.remaining[-1])
        turn += 1
    return runs


def elimination_sampling(config: RunConfig, step: int) -> Sampling:
    """How the exclusions of a step's eliminations are drawn: as the policy that is trained would."""
    # Of labels that are scored without `constrained` the policy is the softmax of sharpness times scores, as it is.
    plain = not config.train.samples and not config.ranker.constrained
    return Sampling(
        temperature=1.0 if plain else config.train.temperature,
        max_tokens=config.ranker.max_tokens,
        sharpness=config.ranker.sharpness,
        seed=random.Random(f"{config.seed}/elimination/{step}").getrandbits(62),
    )


def kept_turns(lengths: Sequence[int], config: RunConfig, step: int, together: int = 1) -> list[list[int]]:
    """Which turns of eliminations of these lengths are learned from: at most `train.states_per_example` of each.

    together: so many eliminations after one another are of one example, and keep the turns of the same places. How
    long one becomes depends on what it excludes: turns drawn from each by itself would favour what ends it early.
    """
    rng = random.Random(f"{config.seed}/kept/{step}")
    kept = []
    for begin in range(0, len(lengths), together):
        own = lengths[begin : begin + together]
        places = sorted(rng.sample(range(max(own)), min(config.train.states_per_example, max(own))))
        kept += [[place for place in places if place < length] for length in own]
    return kept


class ReachedStates:
    """The states that the policy reaches from a step's first ones, in one elimination each.

    starts: gives one state of an example, with all candidates left.
    What a step gets depends on the seed, the step and the policy's weights.
    """

    def __init__(self, starts: States, ranker: IRanker, llm: LLM, config: RunConfig) -> None:
        self.starts, self.ranker, self.llm, self.config = starts, ranker, llm, config

    def at(self, step: int) -> list[State]:
        """The states of a step (from 0)."""
        sampling = elimination_sampling(self.config, step)
        runs = eliminate(self.starts.at(step), self.ranker, self.llm, self._request, sampling)
        kept = kept_turns([len(run) for run in runs], self.config, step)
        return [run[k].state for run, own in zip(runs, kept, strict=True) for k in own]

    def _request(self, state: State) -> Request:
        request = self.ranker.request(state.example, state.remaining, excluded=state.excluded)
        if not self.config.train.samples:
            return replace(request, scored=bool(request.answers))
        return replace(request, choices=())  # choices are for scoring, not for sampling

"""Training states: an example and the candidates that are left (arXiv 2506.21638, section 3.3)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from r1ranker.errors import InputError
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rewards import NDCG_CUTOFF
from r1ranker.types import RankingExample, Request

Draw = Literal["subsets", "lists", "whole"]


@dataclass(frozen=True, slots=True)
class State:
    """What one turn is about. A DRanker's state has all candidates left, or those that its list does not name yet.

    origin: the data set that the example is from, where several are mixed.
    excluded: the others in the order in which they were excluded, or written by a DRanker; None for a state that has
        no order.
    """

    example: RankingExample
    remaining: tuple[str, ...]
    origin: str = ""
    excluded: tuple[str, ...] | None = None

    @property
    def undecided(self) -> bool:
        """Whether one exclusion is better than another."""
        return len({self.example.grade(i) for i in self.remaining}) > 1

    def without(self, candidate_id: str) -> State:
        """The state after this one once that candidate is excluded."""
        left = tuple(i for i in self.remaining if i != candidate_id)
        return replace(self, remaining=left, excluded=(*(self.excluded or ()), candidate_id))


def has_signal(example: RankingExample) -> bool:
    """Whether some order of the candidates is better than another."""
    return len({example.grade(i) for i in example.ids}) > 1


def sample_state(example: RankingExample, rng: random.Random, origin: str = "") -> State:
    """The paper's draw: k in 1..n-1 uniformly, one best candidate and k others, in listed order.

    With grades, one of the k others is a candidate of a lower grade, so that some exclusion is wrong.
    """
    best = max(example.grade(i) for i in example.ids)
    kept = {rng.choice([i for i in example.ids if example.grade(i) == best])}
    kept.add(rng.choice([i for i in example.ids if example.grade(i) < best]))
    others = [i for i in example.ids if i not in kept]
    kept.update(rng.sample(others, rng.randint(1, len(example.ids) - 1) - 1))
    return State(example, tuple(i for i in example.ids if i in kept), origin)


def sample_list(example: RankingExample, order: random.Random, rng: random.Random, origin: str = "") -> State:
    """The beginning of a list: one best candidate and one of a lower grade are not written yet.

    order: draws the list; with the same seed the states of an example are beginnings of one list, whose prompts
        share what is written. rng: draws at which place the best candidate would have come, and how many of the lines
        before it are written, up to where nDCG@20 ends: the sooner a line comes, the more lists get to it.
    """
    best = max(example.grade(i) for i in example.ids)
    late = {order.choice([i for i in example.ids if example.grade(i) == best])}
    late.add(order.choice([i for i in example.ids if example.grade(i) < best]))
    others = [i for i in example.ids if i not in late]
    order.shuffle(others)
    place = rng.randint(0, len(others))
    written = tuple(others[: rng.randint(0, min(place, NDCG_CUTOFF - 1))])
    return State(example, tuple(i for i in example.ids if i not in written), origin, excluded=written)


def request_of(ranker: IRanker | DRanker, state: State) -> Request:
    """What the ranker asks in the state."""
    if isinstance(ranker, DRanker):
        return ranker.request(state.example, written=state.excluded or ())
    return ranker.request(state.example, state.remaining, excluded=state.excluded)


class States(Protocol):
    """Where a loop has the states of its steps from."""

    def at(self, step: int) -> list[State]:
        """The states of a step (from 0)."""


class StateStream:
    """An endless, shuffled stream of states. What step s gets depends on the seed and s alone, so that a
    resumed run goes on as if it had not stopped.

    draw: "subsets" of the candidates at random (IRanker), beginnings of "lists" (a DRanker whose list is constrained),
        or the "whole" list.
    per_example: how many states, one after the other, an example gives before the next one has its turn.
    origins: the data set that each example is from, where several are mixed; empty: all are from one.
    balanced: every data set gives one example a round, in an order that is drawn anew, however many it has;
        otherwise all examples are shuffled together.
    weights: in balance, how many examples a data set gives a round; one where nothing is said.
    Raises InputError if no example, or none of a data set in balance, has a better and a worse candidate.
    """

    def __init__(
        self,
        examples: Sequence[RankingExample],
        *,
        per_step: int,
        draw: Draw,
        seed: int,
        per_example: int = 1,
        origins: Sequence[str] = (),
        balanced: bool = True,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        self.per_step = per_step
        self.per_example = per_example
        self.draw = draw
        self.seed = seed
        self._pools: dict[str, list[tuple[RankingExample, str]]] = {}
        for example, origin in zip(examples, origins or [""] * len(examples), strict=True):
            pool = self._pools.setdefault(origin if balanced else "", [])
            if has_signal(example):
                pool.append((example, origin))
        if not any(self._pools.values()):
            raise InputError(
                "there is nothing to learn from: no training example has candidates of different relevance"
            )
        if empty := [origin for origin, pool in self._pools.items() if not pool]:
            raise InputError(
                f"there is nothing to learn from in '{empty[0]}': none of its training examples has candidates of "
                "different relevance; leave it out of data.names"
            )
        self._weights = {name: (weights or {}).get(name, 1) for name in self._pools}
        self._shuffled: dict[str, tuple[int, list[int]]] = {}

    def at(self, step: int) -> list[State]:
        """The states of a step (from 0)."""
        first = step * self.per_step
        return [self._state(first + k) for k in range(self.per_step)]

    def _state(self, index: int) -> State:
        turn, place = divmod(index // self.per_example, sum(self._weights.values()))
        names = self._round(turn)
        name = names[place]
        given = turn * self._weights[name] + names[:place].count(name)
        epoch, place = divmod(given, len(self._pools[name]))
        example, origin = self._pools[name][self._order(name, epoch)[place]]
        if self.draw == "whole":
            return State(example, example.ids, origin)
        rng = random.Random(f"{self.seed}/state/{index}")
        if self.draw == "subsets":
            return sample_state(example, rng, origin)
        return sample_list(example, random.Random(f"{self.seed}/list/{index // self.per_example}"), rng, origin)

    def _round(self, turn: int) -> list[str]:
        """The pools in the order of a round, each as often as it weighs."""
        names = [name for name in self._pools for _ in range(self._weights[name])]
        random.Random(f"{self.seed}/round/{turn}").shuffle(names)
        return names

    def _order(self, name: str, epoch: int) -> list[int]:
        """The order of a pool's examples in one of its epochs, kept until the next one is asked for."""
        if self._shuffled.get(name, (None,))[0] != epoch:
            order = list(range(len(self._pools[name])))
            # One pool alone is shuffled by the seed as it was before there were several.
            random.Random(f"{self.seed}/{name}/epoch/{epoch}" if name else f"{self.seed}/epoch/{epoch}").shuffle(order)
            self._shuffled[name] = epoch, order
        return self._shuffled[name][1]

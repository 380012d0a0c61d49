"""Training states: an example and the candidates that are left (arXiv 2506.21638, section 3.3)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from r1ranker.errors import InputError
from r1ranker.types import RankingExample


@dataclass(frozen=True, slots=True)
class State:
    """What one turn is about. A DRanker's state has all candidates left."""

    example: RankingExample
    remaining: tuple[str, ...]


def has_signal(example: RankingExample) -> bool:
    """Whether some order of the candidates is better than another."""
    return len({example.grade(i) for i in example.ids}) > 1


def sample_state(example: RankingExample, rng: random.Random) -> State:
    """The paper's draw: k in 1..n-1 uniformly, one best candidate and k others, in listed order.

    With grades, one of the k others is a candidate of a lower grade, so that some exclusion is wrong.
    """
    best = max(example.grade(i) for i in example.ids)
    kept = {rng.choice([i for i in example.ids if example.grade(i) == best])}
    kept.add(rng.choice([i for i in example.ids if example.grade(i) < best]))
    others = [i for i in example.ids if i not in kept]
    kept.update(rng.sample(others, rng.randint(1, len(example.ids) - 1) - 1))
    return State(example, tuple(i for i in example.ids if i in kept))


class StateStream:
    """An endless, shuffled stream of states. What step s gets depends on the seed and s alone, so that a
    resumed run goes on as if it had not stopped.

    subsets: draw a random subset of the candidates (IRanker), or take all (DRanker).
    per_example: how many states, one after the other, an example gives before the next one has its turn.
    Raises InputError if no example has a better and a worse candidate.
    """

    def __init__(
        self, examples: Sequence[RankingExample], *, per_step: int, subsets: bool, seed: int, per_example: int = 1
    ) -> None:
        self.examples = [e for e in examples if has_signal(e)]
        if not self.examples:
            raise InputError(
                "there is nothing to learn from: no training example has candidates of different relevance"
            )
        self.per_step = per_step
        self.per_example = per_example
        self.subsets = subsets
        self.seed = seed

    def at(self, step: int) -> list[State]:
        """The states of a step (from 0)."""
        first = step * self.per_step
        return [self._state(first + k) for k in range(self.per_step)]

    def _state(self, index: int) -> State:
        epoch, place = divmod(index // self.per_example, len(self.examples))
        order = self._order(epoch)
        example = self.examples[order[place]]
        if not self.subsets:
            return State(example, example.ids)
        return sample_state(example, random.Random(f"{self.seed}/state/{index}"))

    def _order(self, epoch: int) -> list[int]:
        if getattr(self, "_epoch", None) != epoch:
            order = list(range(len(self.examples)))
            random.Random(f"{self.seed}/epoch/{epoch}").shuffle(order)
            self._epoch, self._shuffled = epoch, order
        return self._shuffled

"""An IRanker's first turn alone, as a generator free of I/O."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from r1ranker.errors import ConfigError, InputError
from r1ranker.prompted import (
    LABEL_TOKENS,
    SCORES_ONLY,
    ExclusionRanker,
    OutOfBudget,
    Ranking,
    ask,
    ask_all,
    best_first,
)
from r1ranker.types import Completion, ParsedAnswer, RankingExample, Request, Trace, Turn


@dataclass(frozen=True)
class FirstStep(ExclusionRanker):
    """An IRanker's first turn without thinking, and no more: one pass scores all candidates.

    The likelier a candidate is to be excluded, the lower it ranks; equal scores keep the listed order. With
    `constrained` that is the probability that its label is written where no other text can be.

    orders: the list is shown in so many orders, a call each, and a candidate's scores are averaged, so that its place
        in the list counts for less (permutation self-consistency, Tang et al. 2023, arXiv 2310.07712, with scores in
        place of rankings). Within a budget those that it allows count.
    fusion: above 0 a list in the order of a first stage (`presorted`) is ranked by both: a candidate is worth
        -log(its place there) - fusion * its mean log-prob of being excluded, as if the first stage said that the best
        one stands at a place with a chance of 1 / place (Zipf). The prompt then does not tell of that order, so the
        model need not be trained for it. Lists in no such order are ranked as without.

    Raises ConfigError with thinking, and InputError for an LLM that tells no log-probs, or where `orders` is above 1
    and the prompt tells that the list is in the order of a first stage.
    """

    kind: ClassVar[Literal["first_step"]] = "first_step"
    thinking: bool = False
    constrained: bool = False
    orders: int = 1
    fusion: float = 0.0

    def __post_init__(self) -> None:
        if self.thinking:
            raise ConfigError(f"kind = '{self.kind}' {SCORES_ONLY}")
        if self.orders < 1:
            raise ConfigError(f"orders is {self.orders}: give a whole number from 1")
        if not 0 <= self.fusion < float("inf"):
            raise ConfigError(f"fusion is {self.fusion}: give a number from 0, such as 0.3")

    def text_budget(self, context_tokens: int, max_tokens: int) -> int:
        """Only a label is read after the prompt."""
        return super().text_budget(context_tokens, min(max_tokens, LABEL_TOKENS))

    def calls(self, n: int, keep: int = 1) -> int:
        """One an order."""
        return self.orders * super().calls(n, keep)

    def request(self, example: RankingExample, session: str = "") -> Request:
        """The request of an example in the order in which it stands."""
        request = replace(self._exclusion(example, example.ids), session=session, scored=True)
        return replace(request, choices=(), answers=request.choices) if self.constrained else request

    def listings(self, example: RankingExample) -> list[RankingExample]:
        """The example in as many orders as are asked: as it stands, backwards, then shuffled by its id, each followed
        by its reverse, so that every candidate stands as far from the front in the one as from the back in the other.
        """
        drawn = random.Random(f"orders:{example.id}")
        orders = [list(example.candidates)]
        while len(orders) < self.orders:
            if len(orders) % 2:
                orders.append(orders[-1][::-1])
            else:
                orders.append(drawn.sample(orders[0], len(orders[0])))
        return [replace(example, candidates=tuple(order)) for order in orders]

    def _once(self, example: RankingExample, session: str) -> Ranking:
        if len(example.candidates) == 1:
            return Trace(example.id, example.ids)
        fused = self.fusion > 0 and example.presorted
        if fused:
            example = replace(example, presorted=False)
        elif self.orders > 1 and example.presorted:
            raise InputError(
                f"example '{example.id}' stands in the order of a first stage, which other orders would lose: set "
                "orders = 1, or fusion, or do not say that it is sorted"
            )
        listings = self.listings(example)
        # Orders have their beginning in common, which a session keeps; one alone has no later turn to keep it for.
        requests = [self.request(listing, session or (example.id if self.orders > 1 else "")) for listing in listings]
        told: Sequence[Completion]
        try:
            told = (yield from ask_all(requests)) if len(requests) > 1 else ((yield from ask(requests[0])),)
        except OutOfBudget as short:
            told = short.completions
        turns, totals = list[Turn](), dict.fromkeys(example.ids, 0.0)
        remedy = f"kind = '{self.kind}' ranks by: take kind = 'iterative' or 'direct'"
        for listing, request, completion in zip(listings, requests, told, strict=False):
            order = best_first(example.id, listing.ids, completion, remedy)
            turns.append(Turn(listing.ids, request, completion, ParsedAnswer("exact", order)))
            for i, score in zip(listing.ids, completion.choice_logprobs, strict=True):
                totals[i] += score
        if fused and turns:
            weight = self.fusion / len(turns)
            totals = {i: math.log(place) + weight * totals[i] for place, i in enumerate(example.ids, 1)}
        ranking = tuple(sorted(example.ids, key=totals.__getitem__))
        share = 1 if fused else len(turns)
        scores = {i: -total / share for i, total in totals.items()} if turns else {}
        return Trace(example.id, ranking, tuple(turns), cut_short=len(turns) < len(listings), scores=scores)

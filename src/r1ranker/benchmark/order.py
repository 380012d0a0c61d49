"""How much a ranking depends on the order in which the candidates are listed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from r1ranker.errors import InputError
from r1ranker.evaluation import per_query
from r1ranker.types import RankingExample


@dataclass(frozen=True)
class OrderRow:
    """One ranker's sensitivity on one data set.

    tau: Kendall's tau between the rankings of two listings of the same query, mean over pairs and queries; 1 is a
        ranker that does not care, 0 what two random orders have.
    follows: Kendall's tau between the listing and the ranking, mean over both: above 0, what is listed first tends
        to be ranked first.
    lowest, highest: the least and the greatest MRR over the listings.
    """

    name: str
    dataset: str
    queries: int
    listings: int
    tau: float
    follows: float
    lowest: float
    highest: float


def listed_anew(example: RankingExample, listing: int) -> RankingExample:
    """The example with its candidates in another order, drawn from its id and the number of the listing.

    Its id tells the listing, so that a backend does not take it for a turn of the other one's ranking.
    """
    candidates = list(example.candidates)
    random.Random(f"listing:{listing}:{example.id}").shuffle(candidates)
    return replace(example, id=f"{example.id}#listing{listing}", candidates=tuple(candidates))


def sensitivity(
    name: str,
    dataset: str,
    listings: Sequence[Sequence[RankingExample]],
    rankings: Sequence[Sequence[Sequence[str]]],
) -> OrderRow:
    """Compare rankings[k][q] of listings[k][q]: listing k of query q. Needs two listings.

    Raises InputError for fewer, or for queries that all have one candidate.
    """
    if len(listings) < 2:
        raise InputError("the order test needs at least two listings of each query")
    queries = [q for q, example in enumerate(listings[0]) if len(example.candidates) > 1]
    if not queries:
        raise InputError(f"'{dataset}': no query has two candidates, so their order cannot matter")
    pairs = [kendall_tau(a[q], b[q]) for a, b in combinations(rankings, 2) for q in queries]
    follows = [
        kendall_tau(examples[q].ids, ranked[q])
        for examples, ranked in zip(listings, rankings, strict=True)
        for q in queries
    ]
    means = []
    for examples, ranked in zip(listings, rankings, strict=True):
        by_id = {example.id: ranking for example, ranking in zip(examples, ranked, strict=True)}
        means.append(fmean(per_query(by_id, examples)["MRR"]))
    return OrderRow(
        name, dataset, len(listings[0]), len(listings), fmean(pairs), fmean(follows), min(means), max(means)
    )


def kendall_tau(a: Sequence[str], b: Sequence[str]) -> float:
    """Kendall's tau of two orders of the same ids (Kendall 1938): (concordant - discordant) / pairs."""
    place = {key: rank for rank, key in enumerate(b)}
    ranks = [place[key] for key in a]
    concordant = sum(x < y for x, y in combinations(ranks, 2))
    pairs = len(ranks) * (len(ranks) - 1) // 2
    return (2 * concordant - pairs) / pairs

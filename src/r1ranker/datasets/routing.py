"""What LLMs achieved on queries -> routing examples: which LLM should answer?

Source: R1-Ranker (arXiv 2506.21638) on GraphRouter's data: the positive is the argmax of
effect_weight * effect - cost_weight * cost, with weights 1/0, 0.5/0.5 and 0.2/0.8. Unlike its code, queries
are split before anything is expanded, and LLMs that tie are all positive unless asked otherwise.
"""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from r1ranker.datasets.base import Dataset, label_prior, normalise, note, split_groups
from r1ranker.datasets.duplicates import near_duplicate_groups, note_near_duplicates
from r1ranker.datasets.router_table import (
    REPLY_TOKENS,
    LLMInfo,
    RoutedQuery,
    estimate_costs,
    read_llms,
    read_router_scores,
    read_router_table,
)
from r1ranker.errors import InputError
from r1ranker.types import Achieved, Candidate, RankingExample

Ties = Literal["set", "first", "graded"]

_TIE = 1e-12


def build_routing(
    path: Path,
    llms_path: Path | None = None,
    *,
    name: str,
    effect_weight: float = 1.0,
    cost_weight: float = 0.0,
    llms: Sequence[str] | None = None,
    ties: Ties = "set",
    descriptions: Mapping[str, str] | Path | str | None = None,
    near_duplicates: float | None = 0.8,
    split: Literal["own", "given"] = "own",
    test_fraction: float = 0.2,
    goal: str = "",
    seed: int = 0,
) -> Dataset:
    """One example a query: the LLMs as candidates (shuffled), the best of them relevant with grade 1.

    path: GraphRouter's long table (CSV), or LLMRouter's JSON lines (.jsonl, .jsonl.gz); see router_table.
    llms_path: the JSON file of LLMs with descriptions and prices. JSON lines have no cost of a query: it is
        estimated as price x tokens (router_table.estimate_costs), the same number of reply tokens for all.
    effect_weight, cost_weight: an LLM's score is effect_weight * effect - cost_weight * cost, with the cost
        scaled to 0..1 by the smallest and the largest cost of all queries and LLMs, so that both weigh on
        the same scale where effects are in 0..1; where they are not, or one cost is far above all others, a note says
        so.
    llms: only these LLMs, by full name or the part after the last "/"; None takes all.
    ties: "set" makes all LLMs with the best score relevant; "first" only the one that stands first in the
        table's order of LLMs (a single label, as in the paper); "graded" grades every LLM by its score,
        scaled to 0 for the worst of a query and 1 for the best (to 3 decimals), which nDCG takes whole,
        while MRR and Hit@k count every LLM but the worst as relevant.
    descriptions: what the model reads of an LLM, by its full name or the part after the last "/"; or a JSON
        file of them (see router_table.read_llms). They go before those of `llms_path`; an LLM without one
        is described by its name and its mean cost on the train queries (on all, where all are held out).
    near_duplicates: queries that share this part of their words (Jaccard similarity, see duplicates) stay on
        one side of the split; None: only those with the same text (case and spacing aside), which always do.
    split: "own" draws one by `test_fraction` and `seed`; "given" takes the source's (its `split`: train, test; others
        are left out), less the train queries that are near-duplicates of a test one.
    test_fraction: the part of the groups of queries that is held out.
    goal: how the prompts say that queries are to be answered, such as "well, whatever it costs" (see RankingExample):
        lists of several weights can then be told apart. Without it they all say the same.
    seed: decides the split, and the order in which each example lists the LLMs.
    A query that lacks an LLM's outcome is ranked over those it has. Raises InputError for files or numbers
    that cannot be used, and for an LLM that is not to be found.
    """
    if ties not in get_args(Ties):
        raise InputError(f"ties is '{ties}'; it must be one of {', '.join(get_args(Ties))}")
    if not isinstance(goal, str):
        raise InputError(f"goal is {goal!r}; it must be a text")
    if split not in ("own", "given"):
        raise InputError(f"split is '{split}'; it must be own or given")
    if min(effect_weight, cost_weight) < 0 or effect_weight == cost_weight == 0:
        raise InputError(f"the weights are {effect_weight} and {cost_weight}: give numbers >= 0, not both 0")
    notes: list[str] = []
    known = read_llms(llms_path) if llms_path else {}
    table = _read(path, known, notes)
    listed = list(dict.fromkeys(llm for query in table for llm in query.effects))
    if llms is not None:
        listed = _chosen(listed, llms, path)
        for query in table:
            query.effects = {llm: effect for llm, effect in query.effects.items() if llm in listed}
    usable = [query for query in table if len(query.effects) > 1]
    if not usable:
        raise InputError(f"{path}: no query has outcomes of two LLMs, so there is nothing to rank: give more of them")
    scores = _scores(usable, listed, effect_weight, cost_weight, path, llms_path)

    def best(query: RoutedQuery) -> list[str]:
        mine = scores[query.key]
        top = [llm for llm, score in mine.items() if score >= max(mine.values()) - _TIE]
        return top[:1] if ties == "first" else top

    def relevance(query: RoutedQuery) -> dict[str, float]:
        if ties != "graded":
            return dict.fromkeys(best(query), 1.0)
        mine = scores[query.key]
        lowest = min(mine.values())
        span = max(mine.values()) - lowest
        grades = {llm: round((score - lowest) / span, 3) if span > _TIE else 1.0 for llm, score in mine.items()}
        return {llm: grade for llm, grade in grades.items() if grade}

    texts = [query.query for query in usable]
    keys = near_duplicate_groups(texts, near_duplicates)
    groups: dict[str, list[RoutedQuery]] = {}
    for key, query in zip(keys, usable, strict=True):
        groups.setdefault(key, []).append(query)
    if split == "given":
        train, test = _given_sides(groups, path, notes)
    else:
        sides = split_groups(groups, test_fraction=test_fraction, rng=random.Random(f"{seed}:split"))
        train, test = ([(query, group) for group in side for query in groups[group]] for side in sides)
    train_queries = [query for query, _ in train]
    if isinstance(descriptions, (str, Path)):
        descriptions = {llm: info.description for llm, info in read_llms(Path(descriptions)).items()}
    elif descriptions is not None:
        _check_descriptions(descriptions, listed, notes)
    given = {**{llm: info.description for llm, info in known.items()}, **(descriptions or {})}
    candidates = _describe(listed, train_queries or usable, given)

    def example(query: RoutedQuery, group: str) -> RankingExample:
        order = [llm for llm in listed if llm in query.effects]
        random.Random(f"{seed}:query:{query.key}").shuffle(order)
        return RankingExample(
            id=f"{name}:query:{query.key}",
            scenario="routing",
            candidates=tuple(candidates[llm] for llm in order),
            query=query.query,
            relevance=relevance(query),
            achieved={llm: Achieved(query.effects[llm], query.costs.get(llm)) for llm in order},
            group=group,
            item_type="LLM",
            goal=goal,
        )

    note(notes, len(table) - len(usable), "queries with outcomes of fewer than 2 LLMs dropped")
    note(
        notes,
        sum(len(q.effects) < len(listed) for q in usable),
        f"queries lack outcomes of some of the {len(listed)} LLMs",
    )
    note(
        notes,
        len(usable) - len({normalise(text) for text in texts}),
        "queries repeat another one's text and were split together with it",
    )
    note_near_duplicates(notes, texts, keys)
    if cost_weight and effect_weight:
        _note_scales(notes, usable)
    note(
        notes,
        sum(max(scores[q.key].values()) - min(scores[q.key].values()) <= _TIE for q in usable),
        "queries kept on which all LLMs tie as best",
    )
    return Dataset(
        name=name,
        train=tuple(example(query, group) for query, group in train),
        test=tuple(example(query, group) for query, group in test),
        popularity=label_prior((query.effects, best(query)) for query in train_queries),
        notes=tuple(notes),
    )


def _read(path: Path, known: Mapping[str, LLMInfo], notes: list[str]) -> list[RoutedQuery]:
    if not _is_scores(path):
        return read_router_table(path, notes)
    queries = read_router_scores(path, notes)
    prices = {llm: info.prices for llm, info in known.items() if info.prices}
    estimate_costs(queries, prices)
    note(
        notes,
        sum(bool(query.costs) for query in queries),
        f"queries with estimated costs: price x (4/3 tokens a word of the query + {REPLY_TOKENS} of the reply)",
    )
    return queries


def _given_sides(
    groups: Mapping[str, Sequence[RoutedQuery]], path: Path, notes: list[str]
) -> tuple[list[tuple[RoutedQuery, str]], list[tuple[RoutedQuery, str]]]:
    """Train and test queries with their groups, as the source has them."""
    every = [(query, group) for group, members in groups.items() for query in members]
    test = [(query, group) for query, group in every if query.split == "test"]
    if not test:
        there = ", ".join(sorted({query.split or "none" for query, _ in every}))
        raise InputError(f"{path} has no split 'test' of its own (it has {there}): leave out split=given")
    tested = {group for _, group in test}
    train = [(query, group) for query, group in every if query.split == "train"]
    kept = [(query, group) for query, group in train if group not in tested]
    note(notes, len(train) - len(kept), "train queries dropped: they are (nearly) those of test queries")
    note(
        notes, len(every) - len(train) - len(test), "queries left out: the source has them neither in train nor in test"
    )
    return kept, test


def _is_scores(path: Path) -> bool:
    """Whether it is LLMRouter's file of scores, not a table."""
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def _chosen(listed: Sequence[str], wanted: Sequence[str], path: Path) -> list[str]:
    """The LLMs of `listed` that are `wanted`, in the order of `listed`."""
    if isinstance(wanted, str):
        raise InputError(f"llms is '{wanted}'; it must be a list of names")
    names = {llm: llm for llm in listed} | {label: llm for llm, label in _labels(listed).items()}
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(listed)}"
            raise InputError(f"{path} has no LLM '{name}': {hint}")
    chosen = {names[name] for name in wanted}
    return [llm for llm in listed if llm in chosen]


def _scores(
    queries: Sequence[RoutedQuery],
    llms: Sequence[str],
    effect_weight: float,
    cost_weight: float,
    path: Path,
    llms_path: Path | None,
) -> dict[str, dict[str, float]]:
    """Query key -> LLM -> score, the LLMs in the order of `llms`."""
    if cost_weight:
        for query in queries:
            for llm in query.effects:
                if llm not in query.costs:
                    if not _is_scores(path):
                        raise InputError(f"{path} has no column 'cost': add it, or set cost_weight to 0")
                    where = f"{llms_path} gives no price for it" if llms_path else "no file of prices is given"
                    raise InputError(
                        f"{path}: the LLM '{llm}' has no cost, and {where}: "
                        "add its input_price and output_price to llm_candidates.json, or leave it out of llms"
                    )
    costs = [query.costs[llm] for query in queries for llm in query.effects if llm in query.costs]
    lowest = min(costs, default=0.0)
    span = max(costs, default=0.0) - lowest or 1.0
    return {
        query.key: {
            llm: effect_weight * query.effects[llm] - cost_weight * (query.costs.get(llm, lowest) - lowest) / span
            for llm in llms
            if llm in query.effects
        }
        for query in queries
    }


def _note_scales(notes: list[str], queries: Sequence[RoutedQuery]) -> None:
    """What would make effect and cost weigh otherwise than their weights say."""
    effects = [effect for query in queries for effect in query.effects.values()]
    if min(effects) < 0 or max(effects) > 1:
        notes.append(
            f"effects run from {min(effects):g} to {max(effects):g}, and costs are scaled to 0..1: give effects in "
            "0..1, or weights to match"
        )
    costs = sorted(query.costs[llm] for query in queries for llm in query.effects if llm in query.costs)
    if costs and costs[-1] > 10 * (high := costs[int(0.99 * (len(costs) - 1))]) > 0:
        notes.append(
            f"the largest cost is {costs[-1]:g}, and 99% are at most {high:g}: scaled by the largest, all others are "
            "as good as free"
        )


def _check_descriptions(descriptions: Mapping[str, str], llms: Sequence[str], notes: list[str]) -> None:
    """Raises InputError for one that is no text, or of an LLM whose name is nearly that of one without."""
    names = {*llms, *map(_short, llms)}
    without = [name for llm in llms for name in (llm, _short(llm)) if not {llm, _short(llm)} & descriptions.keys()]
    for llm, text in descriptions.items():
        if not isinstance(text, str):
            raise InputError(f"the description of '{llm}' is {text!r}; it must be a text")
        if llm not in names and (near := difflib.get_close_matches(llm, without, n=1)):
            raise InputError(f"descriptions has '{llm}', and there is no such LLM: did you mean '{near[0]}'?")
    note(notes, len(descriptions.keys() - names), "descriptions of LLMs that are not in the table")


def _describe(llms: Sequence[str], train: Sequence[RoutedQuery], given: Mapping[str, str]) -> dict[str, Candidate]:
    """The candidate for each LLM, by name."""
    candidates = {}
    for llm, label in _labels(llms).items():
        costs = [query.costs[llm] for query in train if llm in query.costs]
        cost = f", about {sum(costs) / len(costs):.3g} cost units a query" if costs else ""
        text = given.get(llm) or given.get(_short(llm)) or f"{label}{cost}"
        candidates[llm] = Candidate(llm, text, label)
    return candidates


def _labels(llms: Sequence[str]) -> dict[str, str]:
    """LLM -> what it is called: what follows the last "/" where that is unambiguous."""
    times = Counter(map(_short, llms))
    return {llm: _short(llm) if times[_short(llm)] == 1 else llm for llm in llms}


def _short(llm: str) -> str:
    return llm.rsplit("/", 1)[-1]

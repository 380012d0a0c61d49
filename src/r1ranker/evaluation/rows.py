"""One ranker's line in a report: how good, how sure, at what cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean
from typing import Any, get_args

from r1ranker.errors import InputError
from r1ranker.evaluation.achieved import routed
from r1ranker.evaluation.measures import MEASURES, per_query
from r1ranker.evaluation.outcomes import Outcome
from r1ranker.evaluation.significance import bootstrap_intervals, paired_p_value
from r1ranker.types import ParseStatus, RankingExample, Trace

STATUSES: tuple[str, ...] = get_args(ParseStatus)
LATER = {"flops", "run_means", "cut_short", "routed"}
"""Fields that a report of version 0.1 lacks."""


@dataclass(frozen=True)
class Row:
    """What one ranker did on one data set.

    measures, intervals: means over the queries (0 to 1), and their 95% bootstrap intervals.
    p_value: two-sided paired randomization test of MRR against the base row; None for the base row.
    calls, ..., seconds: LLM calls, tokens and wall time for all queries together.
    parse: how many turns have each parse status; all four are listed.
    truncated: texts that were cut to fit the model's context, or the ranker's document_tokens.
    per_query: each measure's values in example order.
    flops: floating-point operations for all queries together, an estimate; 0 where none is made.
    run_means: the MRR of each run, where a ranker ran with several seeds (`per_query` holds means over them,
        the costs are sums).
    cut_short: rankings that a budget ended.
    routed: "effect" and "cost" of the LLM that is ranked first, means over the queries; empty where they are not known.
    """

    name: str
    dataset: str
    queries: int
    measures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    p_value: float | None = None
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    parse: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    truncated: int = 0
    per_query: dict[str, list[float]] = field(default_factory=dict)
    flops: float = 0.0
    run_means: list[float] = field(default_factory=list)
    cut_short: int = 0
    routed: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"intervals": {m: list(ends) for m, ends in self.intervals.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        """The inverse of `to_dict`. Raises InputError for a missing or an unknown key."""
        try:
            intervals = {m: (float(low), float(high)) for m, (low, high) in data["intervals"].items()}
            needed = {f.name for f in fields(cls)} - LATER
            if missing := needed - set(data):
                raise KeyError(min(missing))
            return cls(**{**data, "intervals": intervals})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this is not a report's row ({error}): write it with Report.save") from error


def make_row(
    name: str,
    dataset: str,
    examples: Sequence[RankingExample],
    traces: Sequence[Trace],
    *,
    base: Row | None = None,
    seconds: float = 0.0,
    seed: int = 0,
) -> Row:
    """Measures traces (one an example, in any order) and sums up what they cost.

    base: the row to compare with, made from the same examples; None makes a base row.
    seconds: wall time, measured by whoever drove the ranker (traces do not tell it).
    seed: for the bootstrap and the randomization test.

    Raises InputError as `per_query` does, and where `base` has other queries.
    """
    return row_of_outcomes(
        name, dataset, examples, [list(map(Outcome.of, traces))], base=base, seconds=seconds, seed=seed
    )


def row_of_outcomes(
    name: str,
    dataset: str,
    examples: Sequence[RankingExample],
    runs: Sequence[Sequence[Outcome]],
    *,
    base: Row | None = None,
    seconds: float = 0.0,
    flops: float = 0.0,
    seed: int = 0,
) -> Row:
    """`make_row` for one or more runs over the same examples: measures are means over the runs, costs sums."""
    measured = [per_query({o.example_id: o.ranking for o in run}, examples) for run in runs]
    values = {m: [fmean(v) for v in zip(*(run[m] for run in measured), strict=True)] for m in MEASURES}
    outcomes = [outcome for run in runs for outcome in run]
    statuses: Counter[str] = Counter()
    for outcome in outcomes:
        statuses.update(outcome.parse)
    return replace(
        row_of_scores(name, dataset, values, base=base, seconds=seconds, seed=seed),
        calls=sum(o.calls for o in outcomes),
        prompt_tokens=sum(o.prompt_tokens for o in outcomes),
        completion_tokens=sum(o.completion_tokens for o in outcomes),
        cached_tokens=sum(o.cached_tokens for o in outcomes),
        parse={status: statuses[status] for status in STATUSES},
        truncated=sum(o.truncated for o in outcomes),
        flops=flops,
        run_means=[fmean(run["MRR"]) for run in measured],
        cut_short=sum(o.cut_short for o in outcomes),
        routed=routed(examples, [[(o.example_id, o.ranking[:1]) for o in run] for run in runs]),
    )


def row_of_scores(
    name: str,
    dataset: str,
    values: Mapping[str, Sequence[float]],
    *,
    base: Row | None = None,
    seconds: float = 0.0,
    seed: int = 0,
) -> Row:
    """A row from each measure's per-query values, for what has no single ranking (random's expectation).

    Raises InputError for no queries, a missing measure, or a `base` with other queries.
    """
    if missing := [m for m in MEASURES if m not in values]:
        raise InputError(f"row '{name}' lacks the measure {missing[0]}: give all of {', '.join(MEASURES)}")
    scores = {m: [float(v) for v in values[m]] for m in MEASURES}
    queries = len(scores["MRR"])
    if not queries:
        raise InputError(f"row '{name}' has no queries: evaluate at least one example")
    if base is not None and (base.dataset, base.queries) != (dataset, queries):
        raise InputError(
            f"row '{name}' ({dataset}, {queries} queries) cannot be compared with '{base.name}' "
            f"({base.dataset}, {base.queries} queries): evaluate both on the same examples"
        )
    return Row(
        name=name,
        dataset=dataset,
        queries=queries,
        measures={m: fmean(v) for m, v in scores.items()},
        intervals=bootstrap_intervals(scores, seed=seed),
        p_value=None if base is None else paired_p_value(scores["MRR"], base.per_query["MRR"], seed=seed),
        seconds=seconds,
        per_query=scores,
    )

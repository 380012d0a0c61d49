"""How good rankings are, per query, through ir_measures (MacAvaney et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from r1ranker.errors import InputError, MissingExtraError
from r1ranker.types import RankingExample

MEASURES = ("MRR", "nDCG@5", "nDCG@10", "Hit@1", "Hit@5")

_MOST = 100_000  # trec_eval keeps a table as long as the highest grade


def per_query(rankings: Mapping[str, Sequence[str]], examples: Sequence[RankingExample]) -> dict[str, list[float]]:
    """Each measure's value (0 to 1) for every example, in the order of `examples`.

    rankings: example id -> all its candidate ids, best first.
    A grade above 0 is relevant to MRR and Hit@k; nDCG has linear gain and a log2(rank + 1) discount, and its ideal
    ranking has the `unlisted` documents too, as trec_eval's has by the whole qrels.
    An example without any relevant candidate scores 0 in everything: count them with `without_relevant`.

    Raises InputError for examples that share an id, or a ranking that is missing or does not hold each
    of its example's candidates exactly once; MissingExtraError without ir_measures.
    """
    try:
        import ir_measures
        from ir_measures import RR, Qrel, ScoredDoc, Success, nDCG
    except ImportError as error:
        raise MissingExtraError("Measuring rankings", "ir_measures", "eval") from error

    if len({e.id for e in examples}) < len(examples):
        raise InputError("two examples have the same id: give each its own")
    names = {RR: "MRR", nDCG @ 5: "nDCG@5", nDCG @ 10: "nDCG@10", Success @ 1: "Hit@1", Success @ 5: "Hit@5"}
    qrels, run = [], []
    # Plain ids go in, so that no id of a user's (spaces, tabs, other alphabets) can upset a provider.
    for number, example in enumerate(examples):
        query, ids = f"q{number}", example.ids
        doc = {candidate: f"d{index}" for index, candidate in enumerate(ids)}
        ranking = _checked(rankings, example)
        doc |= {f"unlisted {key}": f"u{index}" for index, key in enumerate(example.unlisted)}
        grades = _whole_grades([*(example.grade(i) for i in ids), *example.unlisted.values()])
        qrels += [Qrel(query, known, grade) for known, grade in zip(doc.values(), grades, strict=True)]
        # Strictly decreasing scores: a tie would be broken by document id.
        run += [ScoredDoc(query, doc[i], float(len(ids) - rank)) for rank, i in enumerate(ranking)]

    values = {measure: [0.0] * len(examples) for measure in MEASURES}
    for found in ir_measures.iter_calc(list(names), qrels, run):
        values[names[found.measure]][int(found.query_id[1:])] = float(found.value)
    return values


def without_relevant(examples: Sequence[RankingExample]) -> int:
    """How many examples have no candidate with a grade above 0."""
    return sum(not any(grade > 0 for grade in e.relevance.values()) for e in examples)


def _checked(rankings: Mapping[str, Sequence[str]], example: RankingExample) -> Sequence[str]:
    if example.id not in rankings:
        raise InputError(f"there is no ranking for example '{example.id}': rank every example")
    ranking = rankings[example.id]
    if sorted(ranking) != sorted(example.ids):
        raise InputError(
            f"the ranking of example '{example.id}' must hold each of its {len(example.ids)} candidates "
            f"exactly once; it holds {len(ranking)} ids, {len(set(ranking) & set(example.ids))} of them "
            "different candidates"
        )
    return ranking


def _whole_grades(grades: Sequence[float]) -> list[int]:
    """Integer grades for trec_eval, in proportion to `grades`; nDCG with linear gain knows no scale.

    Exact for grades with up to three decimals. Others are rounded to 1/100,000 of the best grade; a
    positive one stays positive, so that the binary measures are always exact.
    """
    best = max(grades)
    for scale in (1, 1000):
        scaled = [grade * scale for grade in grades]
        if best * scale <= _MOST and all(abs(s - round(s)) < 1e-9 for s in scaled):
            break
    else:
        scaled = [grade / best * _MOST for grade in grades]
    return [max(1, round(s)) if grade > 0 else 0 for s, grade in zip(scaled, grades, strict=True)]

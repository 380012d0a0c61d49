"""Makes an example's texts fit into a token budget, so that a prompt is never longer than the model reads.

The rule, in order:

0. Where a candidate's text has a limit of its own (`document_tokens`), it is cut to that in any case.
1. What fits stays as it is.
2. The context (query and history) may take half of the budget, and whatever the candidates leave. Beyond
   that a history loses its oldest entries first; then the query (or, where there is none, the one entry
   that is left) is cut at its end.
3. The candidates share the rest: the longest texts are cut to one common cap, the highest that fits, and
   the shorter ones stay whole. Names stay whole too, unless the name is the text, and so does a goal.
4. A cap below `MIN_TOKENS` would leave nothing to judge by: that is an error.

Cuts fall between words and end in "…"; a first word that is too long by itself, and any very long one, is cut between
characters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from r1ranker.errors import InputError
from r1ranker.types import Candidate, RankingExample

MIN_TOKENS = 4
"""Tokens of its text that a candidate keeps at least."""
LINE_TOKENS = 10
"""What a line takes besides its text: a line break, a short label such as "passage 123: "."""
LONG_WORD = 32
"""Characters from which a word is cut within: data, an address, or a text in a script without spaces."""
ELLIPSIS = "…"

Count = Callable[[str], int]


def fit(
    example: RankingExample,
    budget: int | None,
    count: Count,
    shown: int | None = None,
    document_tokens: int | None = None,
) -> tuple[RankingExample, int]:
    """The example with texts that fit into `budget` tokens (None: any number), and how many were cut or left out.

    count: tokens of a text. An example that fits comes back unchanged.
    shown: how many candidates stand in a prompt at most (None: all); whichever they are, they fit.
    document_tokens: tokens of a candidate's text at most, `MIN_TOKENS` or more (None: what the budget allows).
    Raises InputError if there are too many candidates, naming how many would fit.
    """
    budget = sys.maxsize if budget is None else budget
    limit = sys.maxsize if document_tokens is None else document_tokens
    # No tokenizer makes more tokens than there are bytes.
    if _bytes(example) + LINE_TOKENS * (len(example.candidates) + len(example.history)) <= budget and (
        document_tokens is None or all(_size(c.text) <= limit for c in example.candidates)
    ):
        return example, 0
    budget -= count(example.goal) if example.goal else 0
    texts = [count(c.text) for c in example.candidates]
    limited = [min(size, limit) for size in texts]
    label = LINE_TOKENS + (count(example.item_type) if example.item_type else 0)
    lines = [label + (count(c.name) if _has_own_name(c) and c.name else 0) for c in example.candidates]
    longest, longest_lines = (sorted(sizes, reverse=True)[:shown] for sizes in (limited, lines))
    allowed = max(budget // 2, budget - sum(longest) - sum(longest_lines))
    query, history, cut = _fit_context(example, allowed, count)
    left = budget - (count(query) if query else 0) - sum(count(h) + LINE_TOKENS for h in history)
    cap = _common_cap(longest, left - sum(longest_lines))
    if cap < min(MIN_TOKENS, max(limited)):
        fitting = _fitting([min(t, MIN_TOKENS) + line for t, line in zip(limited, lines, strict=True)], left)
        which = "its" if len(longest) == len(texts) else f"{len(longest):,} of its"
        raise InputError(
            f"example '{example.id}': {which} {len(texts):,} candidates do not fit into {budget:,} tokens, even cut to "
            f"{MIN_TOKENS} tokens each: rank at most {max(1, fitting):,} at once, or shorten their names"
        )
    candidates = tuple(
        c if size <= cap else _cut(c, cap, count) for c, size in zip(example.candidates, texts, strict=True)
    )
    cut += sum(size > cap for size in texts)
    if cut == 0:
        return example, 0
    return replace(example, candidates=candidates, history=history, query=query), cut


def _has_own_name(candidate: Candidate) -> bool:
    return candidate.name is not None and candidate.name.split() != candidate.text.split()


def _fit_context(example: RankingExample, allowed: int, count: Count) -> tuple[str, tuple[str, ...], int]:
    """The query and the history within `allowed` tokens, and how many texts were cut or left out."""
    query, history = example.query, example.history
    sizes = [count(entry) + LINE_TOKENS for entry in history]
    excess = (count(query) if query else 0) + sum(sizes) - allowed
    keep = 0 if query else 1
    dropped = 0
    while excess > 0 and len(history) - dropped > keep:
        excess -= sizes[dropped]
        dropped += 1
    history = history[dropped:]
    if excess <= 0:
        return query, history, dropped
    if query:
        return shorten(query, allowed, count), history, dropped + 1
    last = shorten(history[0], allowed - LINE_TOKENS, count) if history else ""
    return query, (last,) if last else (), dropped + 1


def _common_cap(tokens: Sequence[int], room: int) -> int:
    """The highest cap for which the sum of min(tokens, cap) is within `room`; negative if none is."""
    left, longest = room, sorted(tokens)
    for k, size in enumerate(longest):
        share = left // (len(longest) - k)
        if size > share:
            return share
        left -= size
    return longest[-1]


def _fitting(costs: Sequence[int], room: int) -> int:
    """How many candidates fit at most: the cheapest."""
    fitting = 0
    for cost in sorted(costs):
        room -= cost
        if room < 0:
            break
        fitting += 1
    return fitting


def _cut(candidate: Candidate, cap: int, count: Count) -> Candidate:
    text = shorten(candidate.text, cap, count)
    return replace(candidate, text=text, name=candidate.name if _has_own_name(candidate) else candidate.name and text)


def shorten(text: str, tokens: int, count: Count) -> str:
    """The longest beginning that takes `tokens` at most with its "…": whole words, and characters of a long one.

    Empty where not even "…" fits.
    """
    words = text.split()
    cut = _longest(len(words) - 1, lambda n: " ".join(words[:n]) + ELLIPSIS, tokens, count)
    whole = 0 if cut is None else len(cut.split())
    if whole < len(words) and (whole == 0 or len(words[whole]) >= LONG_WORD):
        before, word = "".join(f"{w} " for w in words[:whole]), words[whole]
        most = len(word) - (whole == len(words) - 1)
        longer = _longest(most, lambda n: before + word[:n] + ELLIPSIS, tokens, count)
        cut = longer or cut
    if cut is None:
        cut = ELLIPSIS if count(ELLIPSIS) <= tokens else ""
    return cut


def _longest(most: int, part: Callable[[int], str], limit: int, count: Count) -> str | None:
    """The longest part(n), 1 <= n <= most, within `limit` tokens, or None."""
    low, high = 0, max(most, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if count(part(middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return part(low) if low else None


def _bytes(example: RankingExample) -> int:
    texts = [example.query, example.goal, *example.history]
    for candidate in example.candidates:
        texts += [candidate.text, candidate.name or ""]
    return sum(map(_size, texts))


def _size(text: str) -> int:
    """Its bytes in UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))

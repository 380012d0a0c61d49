"""Makes the texts of an example fit into a token budget, by a stated rule, and counts what was cut.

1. The context may take half of the budget: a history loses its oldest entries first, a query is cut at its end.
2. The candidates share the rest: the longest texts are cut to one common cap, at a word's end, with "…".
3. A cap below `MIN_TOKENS` is an error: so many candidates do not fit, however short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from r1ranker.errors import InputError
from r1ranker.types import RankingExample

MIN_TOKENS = 4
LINE_TOKENS = 4
"""What a candidate's line takes besides its text: a line break, a short label."""

Count = Callable[[str], int]


def fit(example: RankingExample, budget: int, count: Count) -> tuple[RankingExample, int]:
    """The example with texts that fit into `budget` tokens, and how many texts were cut or left out.

    count: tokens of a text. An example that fits comes back unchanged.
    Raises InputError if there are too many candidates, naming how many would fit.
    """
    if _bytes(example) + LINE_TOKENS * (len(example.candidates) + len(example.history)) <= budget:
        return example, 0  # no tokenizer makes more tokens than there are bytes
    history, query, cut = _fit_context(example, budget // 2, count)
    left = budget - count(query) - sum(count(h) + LINE_TOKENS for h in history)
    sizes = [count(c.text) for c in example.candidates]
    cap = _common_cap(sizes, left - LINE_TOKENS * len(sizes))
    if cap < MIN_TOKENS and cap < max(sizes):
        raise InputError(
            f"example '{example.id}': its {len(sizes):,} candidates do not fit into {budget:,} tokens, even cut to "
            f"{MIN_TOKENS} tokens each: rank at most {max(1, left // (MIN_TOKENS + LINE_TOKENS)):,} at once"
        )
    candidates = tuple(
        c if size <= cap else replace(c, text=shorten(c.text, cap, count))
        for c, size in zip(example.candidates, sizes, strict=True)
    )
    cut += sum(size > cap for size in sizes)
    if cut == 0:
        return example, 0
    return replace(example, candidates=candidates, history=history, query=query), cut


def shorten(text: str, tokens: int, count: Count) -> str:
    """The longest beginning of a text, to a word's end where there is one, that takes `tokens` with its "…"."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(text[:middle] + "…") <= tokens:
            low = middle
        else:
            high = middle - 1
    head = text[:low]
    words = head.rsplit(None, 1)
    # A text without spaces is cut inside its one word; a long last word is not worth half of the text.
    whole = words[0] if low < len(text) and not text[low].isspace() and len(words) > 1 else head
    return (whole if len(whole) * 2 > len(head) else head).rstrip() + "…"


def _fit_context(example: RankingExample, budget: int, count: Count) -> tuple[tuple[str, ...], str, int]:
    query, cut = example.query, 0
    if count(query) > budget:
        query, cut = shorten(query, budget, count), 1
    room, kept = budget - count(query), 0
    for entry in reversed(example.history):
        room -= count(entry) + LINE_TOKENS
        if room < 0:
            break
        kept += 1
    dropped = len(example.history) - kept
    return example.history[dropped:], query, cut + dropped


def _common_cap(sizes: list[int], budget: int) -> int:
    """The largest cap at which the sizes, each cut to it, sum to no more than the budget."""
    rest, at_most = budget, len(sizes)
    for size in sorted(sizes):
        if size * at_most > rest:
            return max(0, rest // at_most)
        rest -= size
        at_most -= 1
    return max(sizes)


def _bytes(example: RankingExample) -> int:
    texts = [example.query, *example.history, *(c.text for c in example.candidates)]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)

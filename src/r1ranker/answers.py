"""What a model writes to name a candidate: its label.

Three forms: `id` ("passage 3", the paper's for passages), `name` (a title, an LLM's name, the paper's
for the other two scenarios; of a long text that is its own name, the first words) and `quote` (the first words of
the candidate's own text). Labels differ from one another by construction, also after the normalisation that the
parser applies.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Literal

from r1ranker.types import Candidate, RankingExample, Scenario

AnswerForm = Literal["id", "name", "quote"]
ANSWER_FORMS: tuple[AnswerForm, ...] = ("id", "name", "quote")
QUOTE_WORDS = 8
MOST_WORDS = 64
"""Of a label. Longer names are quoted, and quotes that begin alike grow no longer: labels are scored as a whole."""
SMALL_MODEL = 1_000_000_000
"""Parameters below which a model is taken to be too small to bind an index to a text."""

ITEM_TYPES: dict[Scenario, str] = {"recommendation": "item", "routing": "LLM", "passage": "passage"}

_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_NOT_WORD = re.compile(r"[^\w]+", re.UNICODE)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, which are written without spaces."""
LONG_WORD = 32
"""Characters after which a word counts as another one: of an address, or of data in letters, no end can be told."""
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\s{_UNSPACED}]{{1,{LONG_WORD}}}")


def one_line(text: str) -> str:
    """The text on one line and without the four tags, so that it can stand in a list and in an answer."""
    return " ".join(_TAG.sub(" ", text).split())


def normalise(text: str) -> str:
    """Case, punctuation and spacing taken away: what two labels must differ in, and what repairs compare."""
    return _NOT_WORD.sub(_between, unicodedata.normalize("NFKC", text).casefold()).strip()


def _between(gap: re.Match[str]) -> str:
    """A space, after the marks that belong to the letter before: in many scripts they are its vowels."""
    marks = "".join(takewhile(_is_vowel, gap[0]))
    return marks if marks == gap[0] else f"{marks} "


def _is_vowel(character: str) -> bool:
    """Whether it is a mark of a letter, and none that only says how an emoji is drawn."""
    return unicodedata.category(character) in ("Mn", "Mc") and not "\ufe00" <= character <= "\ufe0f"


def continues(text: str, beginning: str) -> bool:
    """Whether the text begins so and goes on where no word ends: in a script without spaces, or in a long word."""
    if not (len(text) > len(beginning) > 0 and text.startswith(beginning)):
        return False
    around = text[len(beginning) - 1 : len(beginning) + 1]
    in_a_word = re.search(rf"\S{{{LONG_WORD}}}$", beginning) is not None and re.fullmatch(r"\S\S", around) is not None
    return in_a_word or re.fullmatch(f"[{_UNSPACED}]{{2}}", around) is not None


def default_answer_form(scenario: Scenario, parameters: int | None = None) -> AnswerForm:
    """The form that ranks best, by `bench/answer_forms.py`: a small model answers in the candidate's words.

    parameters: the model's size; unknown sizes count as large, and then the paper's forms hold.
    """
    if scenario != "passage":
        return "name"
    return "quote" if parameters is not None and parameters < SMALL_MODEL else "id"


def item_type(example: RankingExample) -> str:
    """What one candidate of the example is called."""
    return one_line(example.item_type) or ITEM_TYPES[example.scenario]


def answer_labels(example: RankingExample, form: AnswerForm, words: int = QUOTE_WORDS) -> tuple[str, ...]:
    """One label a candidate, in listed order; unique, also after `normalise`."""
    if form == "id":
        return tuple(f"{item_type(example)} {k}" for k in range(1, len(example.candidates) + 1))
    if form == "name":
        names = [one_line(c.called) or _fallback(c) for c in example.candidates]
        long = [k for k, name in enumerate(names) if beginning(name, MOST_WORDS) != name]
        for k, quote in zip(long, _quotes([names[k] for k in long], words), strict=True):
            names[k] = quote
        return _numbered(names)
    return _numbered(_quotes([one_line(c.text) or _fallback(c) for c in example.candidates], words))


def beginning(text: str, words: int) -> str:
    """The first words of a text on one line; where none are told apart by spaces, two characters are a word, and of a
    word longer than LONG_WORD so many."""
    ends = [word.end() for word in islice(_WORD.finditer(text), words)]
    return text[: ends[-1]] if ends else text


def _quotes(texts: Sequence[str], words: int) -> list[str]:
    """The first `words` words of each text; where two begin alike, as many more as tell them apart, to MOST_WORDS."""
    lengths = [words] * len(texts)
    while True:
        quotes = [beginning(text, n) for text, n in zip(texts, lengths, strict=True)]
        seen: dict[str, list[int]] = {}
        for k, quote in enumerate(quotes):
            seen.setdefault(normalise(quote), []).append(k)
        alike = [k for same in seen.values() if len(same) > 1 for k in same]
        open_ = [k for k in alike if lengths[k] < MOST_WORDS and quotes[k] != texts[k]]
        if not open_:
            # Where that is not enough, a number tells them apart, and few words will do.
            same = {k for k in alike if lengths[k] >= MOST_WORDS and quotes[k] != texts[k]}
            return [beginning(texts[k], words) if k in same else quote for k, quote in enumerate(quotes)]
        for k in open_:
            lengths[k] = min(lengths[k] + words, MOST_WORDS)


def _fallback(candidate: Candidate) -> str:
    """What a candidate without any text is called."""
    return one_line(candidate.id) or "candidate"


def _numbered(labels: list[str]) -> tuple[str, ...]:
    """Labels that are still alike get " (2)", " (3)", … from the second on."""
    taken: set[str] = set()
    firsts = {normalise(label) for label in labels}
    out = []
    for label in labels:
        unique, k = label, 1
        while normalise(unique) in taken or (k > 1 and normalise(unique) in firsts):
            k += 1
            unique = f"{label} ({k})"
        taken.add(normalise(unique))
        out.append(unique)
    return tuple(out)

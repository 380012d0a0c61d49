"""Sections of a document: each heading, and the first paragraph of prose under it.

Sources: CommonMark 0.31 (read by markdown-it-py); the reStructuredText markup specification of docutils, of
which headings, paragraphs and inline markup are read here, and everything else is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from r1ranker.datasets.base import normalise

if TYPE_CHECKING:
    from markdown_it.token import Token

MARKDOWN = (".md", ".markdown")
RESTRUCTURED = (".rst", ".txt")  # in plain text an underlined heading is the only one that can be told for sure


@dataclass(frozen=True)
class Section:
    """line: the heading's, from 1. paragraph: the first prose under it, on one line; "" where there is none."""

    line: int
    heading: str
    paragraph: str = ""


@dataclass(frozen=True)
class _Block:
    """A heading or a paragraph, on one line and without markup; linked: characters that stand in links."""

    line: int
    text: str
    linked: int = 0
    heading: bool = False


def read_sections(text: str, suffix: str) -> list[Section]:
    """The sections of a document in its order; the first one's heading is the document's title.

    suffix: the file's; MARKDOWN or RESTRUCTURED decides how it is read. Prose stands directly in the document,
    begins with a letter, a digit, a quotation mark or a bracket, and is no link for half of its length or more;
    so code, lists, tables, quotes, directives, badges, HTML and lists of links are passed over.
    """
    blocks = _markdown(text) if suffix in MARKDOWN else _restructured(text)
    sections: list[Section] = []
    for block in blocks:
        if block.heading:
            sections.append(Section(block.line, block.text))
        elif sections and not sections[-1].paragraph and _is_prose(block):
            sections[-1] = replace(sections[-1], paragraph=block.text)
    return sections


def _is_prose(block: _Block) -> bool:
    return bool(re.match(r"[\w\"'(“‘«¿¡]", block.text)) and 2 * block.linked < len(block.text)


def _markdown(text: str) -> Iterator[_Block]:
    from markdown_it import MarkdownIt

    title = ""
    if matter := re.match(r"(---|\+\+\+)[ \t]*\n((?:.*\n)*?)\1[ \t]*(\n|\Z)", text):
        if found := re.search(r"^title\s*[:=]\s*(.*\S)", matter[2], re.MULTILINE):
            title = found[1].strip("\"'")
            yield _Block(1, title, heading=True)
        text = "\n" * matter[0].count("\n") + text[matter.end() :]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for opening, inline in pairwise(tokens):
        # Level 0 stands in no list, quote or table.
        if opening.type not in ("heading_open", "paragraph_open") or opening.level or opening.map is None:
            continue
        said, linked = _plain(inline.children or ())
        heading = opening.type == "heading_open"
        if heading:
            said = re.sub(r"\s*\{:? *#[^}]*\}$", "", said)  # an anchor
            if normalise(said) == normalise(title):
                continue  # the front matter's title over again
        yield _Block(opening.map[0] + 1, said, linked, heading)


def _plain(children: Iterable[Token]) -> tuple[str, int]:
    """What a reader sees of inline Markdown, without images, and how much of it stands in links."""
    said, linked, depth = "", 0, 0
    for token in children:
        depth += {"link_open": 1, "link_close": -1}.get(token.type, 0)
        if token.type in ("text", "text_special", "code_inline"):
            said += token.content
            linked += len(token.content) * bool(depth)
        elif token.type in ("softbreak", "hardbreak"):
            said += " "
    return " ".join(said.split()), linked


_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+")
_ENUMERATOR = re.compile(r"\(?(\d+|#|[A-Za-z])[.)] ")
_INLINE = re.compile(
    r"""``(?P<literal>.+?)``
    |:(?P<role>[\w.+:-]+):`(?P<target>[^`]+)`
    |`(?P<quoted>[^`]+)`(?P<reference>_{0,2})
    |\s?\[[\w\#*-]+\]_  # a footnote's mark
    |\*\*(?P<strong>\S(?:.*?\S)?)\*\*
    |\*(?P<emphasis>\S(?:.*?\S)?)\*
    |(?<!\w)(?P<word>[^\W_](?:[\w.-]*[^\W_])?)_{1,2}(?!\w)  # a link of one word
    |\\(?:\s|(?P<escaped>.))""",
    re.VERBOSE,
)


def _restructured(text: str) -> Iterator[_Block]:
    lines = [(number, line.expandtabs().rstrip()) for number, line in enumerate(text.split("\n"), 1)]
    for filled, group in groupby(lines, key=lambda numbered: bool(numbered[1])):
        block = list(group)
        while filled and (size := _heading_lines([line for _, line in block])):
            number, heading = block[size - 2]
            yield _Block(number, _unmarked(heading)[0], heading=True)
            block = block[size:]
        if not filled or not block or any(line[0] == " " for _, line in block):
            continue  # indented: a quote, code, or what belongs to a list, a definition or a directive
        if not _ENUMERATOR.match(block[0][1]):
            # "::" says that code follows, and shows as a colon where it stands right behind a word.
            said = re.sub(r"(?<=\S)::$", ":", " ".join(line for _, line in block)).removesuffix(" ::")
            yield _Block(block[0][0], *_unmarked(said))


def _heading_lines(lines: list[str]) -> int:
    """How many of the lines a heading takes: 3 with a line over it, 2 with one under it alone, 0 for none."""
    ruled = [bool(_ADORNMENT.fullmatch(line)) for line in lines[:3]]
    if ruled == [True, False, True] and lines[0] == lines[2]:
        return 3
    if ruled[:2] == [False, True] and lines[0][0] != " " and len(lines[1]) >= min(4, len(lines[0])):
        return 2
    return 0


def _unmarked(text: str) -> tuple[str, int]:
    """What a reader sees of inline reStructuredText, and how much of it stands in links."""
    linked = 0

    def show(match: re.Match[str]) -> str:
        nonlocal linked
        found = match.groupdict()
        shown = next((found[key] for key in ("literal", "strong", "emphasis", "word", "escaped") if found[key]), "")
        if inner := found["target"] or found["quoted"]:
            shown = re.sub(r"(?<=\S)\s*<[^<>]*>$", "", inner)  # "text <target>" shows the text
            if found["role"] and shown[0] in "~!":
                shown = shown[1:].rsplit(".", 1)[-1] if shown[0] == "~" else shown[1:]
        if found["reference"] or found["word"] or found["role"] in ("doc", "ref"):
            linked += len(shown)
        return shown

    return " ".join(_INLINE.sub(show, text).split()), linked

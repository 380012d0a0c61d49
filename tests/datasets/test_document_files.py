from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ranker.datasets.document_files import Section, read_sections

MARKDOWN = """\
Before any heading.

# Night *trains* [^1] {#trains}

[![build](b.svg)](ci) ![logo](l.png)

<p>An HTML block.</p>

- a list's item

      code in it

  # A heading in a list

> a quote

a | b
--|--
1 | 2

```
# no heading
code
```

[Home](a), [Berths](b) and [Meals](c)

A *train* that runs `at night`,
see [the map](m.md) &amp; <kbd>Esc</kbd>\\
and \\*more*.

A second paragraph.

Booking a berth
---------------

    indented code

## Bare ##
### Admonitions

!!! note
::: warning
{% include x %}
"""


def test_markdown_gives_headings_and_the_first_prose_under_each() -> None:
    assert read_sections(MARKDOWN, ".md") == [
        Section(3, "Night trains [^1]", "A train that runs at night, see the map & Esc and *more*."),
        Section(34, "Booking a berth", ""),
        Section(39, "Bare", ""),
        Section(40, "Admonitions", ""),
    ]


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("[half](a)1234", False),  # 4 of 8
        ("[half](a)12345", True),  # 4 of 9
        ("<https://example.org/a> is", False),
        ("`code` begins it", True),
        ("**Bold** begins it", True),
        ("(In brackets.)", True),
        ("“Quoted”", True),
        ("¿Por qué?", True),
        ("这是散文", True),
        ("[^1]: a footnote", False),
        ("{{ template }}", False),
        ("$x$ is", False),
        ("/// caption", False),
    ],
)
def test_prose_is_told_by_how_it_begins_and_by_its_links(text: str, prose: bool) -> None:
    (section,) = read_sections(f"# Title\n\n{text}\n", ".markdown")
    assert bool(section.paragraph) == prose


@pytest.mark.parametrize(
    "start", ['---\ntitle: "Night trains"\nother: 1\n---\n', "+++\ntitle = 'Night trains'\nx=1\n+++\n"]
)
def test_front_matter_gives_the_title_and_is_no_text(start: str) -> None:
    assert read_sections(start + "Intro.\n\n## Berths\nHere.\n", ".md") == [
        Section(1, "Night trains", "Intro."),
        Section(7, "Berths", "Here."),
    ]
    # The title over again is no second section.
    assert read_sections(start + "# Night  Trains\nIntro.\n", ".md") == [Section(1, "Night trains", "Intro.")]


def test_front_matter_without_a_title_or_an_end() -> None:
    assert read_sections("---\nlayout: x\n---\n# One\nText.\n", ".md") == [Section(4, "One", "Text.")]
    assert read_sections("---\n---\n# One\nText.\n\n---\n", ".md") == [Section(3, "One", "Text.")]
    assert read_sections("---\n\n# One\nText.\n", ".md") == [Section(3, "One", "Text.")]


RESTRUCTURED = """\
.. _top:
.. a comment

============
Night trains
============

:author: nobody
:date: today

.. note:: Not this.

   Nor this.

* item
- item

2. item

#. item

(a) item

term
    its definition

>>> doctest

| a line block

=====  =====
a      b
=====  =====

+---+
| 1 |
+---+

----

`Home <a>`_ and :doc:`b`

``Trains`` run :ref:`at night <night>`, *not* **by day** [1]_; see :class:`~rail.cars.Sleeper`,
:meth:`!ride`, `their map <https://example.org>`__, |this| and Selenium_\\ s::

    code

Second.

Booking
=======
Right under it, with snake_case_name and __init__ as they are.

An over-long rule
~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~

Ends so ::

Short
--

  ====
  Deep
  ====
"""


def test_restructured_text_gives_headings_and_the_first_prose_under_each() -> None:
    assert read_sections(RESTRUCTURED, ".rst") == [
        Section(
            5,
            "Night trains",
            "Trains run at night, not by day; see Sleeper, ride, their map, |this| and Seleniums:",
        ),
        Section(50, "Booking", "Right under it, with snake_case_name and __init__ as they are."),
        Section(54, "An over-long rule", "Ends so"),
    ]


def test_plain_text_has_underlined_headings_alone() -> None:
    assert read_sections("1. Numbered\n\nSome text.\n\nLOUD\n\nMore.\n", ".txt") == []
    assert read_sections("Under\n=====\n\nA line\nand one more.\n", ".txt") == [
        Section(1, "Under", "A line and one more.")
    ]
    assert read_sections("# Not Markdown\n\nText.\n", ".txt") == []


@pytest.mark.parametrize("suffix", [".md", ".rst"])
@given(st.text(alphabet="ab *`_:<>[]()#=-\\~!|\n\t.+\x0c\r", max_size=80))
def test_any_text_is_read(suffix: str, text: str) -> None:
    sections = read_sections(text, suffix)
    lines = [section.line for section in sections]
    assert lines == sorted(set(lines))
    assert all(1 <= line <= text.count("\n") + text.count("\r") + 1 for line in lines)
    for section in sections:
        for said in (section.heading, section.paragraph):
            assert said == " ".join(said.split())

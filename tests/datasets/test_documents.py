from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from r1ranker.datasets import Dataset, build_documents, load_dataset
from r1ranker.datasets.documents import DocumentNegatives
from r1ranker.datasets.leaks import check
from r1ranker.errors import InputError, MissingExtraError


def prose(topic: str, words: int = 15) -> str:
    """A paragraph of its own words: 15 of them have 80 characters and more."""
    return " ".join(f"{topic}{k:02}" for k in range(words))


def section(heading: str, topic: str, level: int = 2) -> str:
    return f"{'#' * level} {heading}\n\n{prose(topic)}\n\n"


def write(folder: Path, **documents: str) -> Path:
    """Markdown files; two underscores in a name stand for a subfolder."""
    for name, text in documents.items():
        path = folder / f"{name.replace('__', '/')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def build(folder: Path, **options: object) -> Dataset:
    return build_documents(folder, **{"name": "docs", "candidates": 3, "test_fraction": 1.0, **options})  # type: ignore[arg-type]


TRAINS = section("Night trains:", "train", 1) + section("A berth", "berth") + section("The dining car", "dining")
SHIPS = section("Slow ships", "ship", 1) + section("Cabin keys", "cabin")


def test_a_section_becomes_a_list(tmp_path: Path) -> None:
    data = build(write(tmp_path, trains=TRAINS, sea__ships=SHIPS), candidates=2)
    by_query = {e.query: e for e in data.test}
    assert {q: e.id for q, e in by_query.items()} == {
        "Night trains:": "docs:trains.md:1",
        "Night trains: A berth": "docs:trains.md:5",
        "Night trains: The dining car": "docs:trains.md:9",
        "Slow ships": "docs:sea/ships.md:1",
        "Slow ships: Cabin keys": "docs:sea/ships.md:5",
    }
    keys = by_query["Slow ships: Cabin keys"]
    assert {c.id: c.text for c in keys.candidates} == {
        "sea/ships.md:1": prose("ship"),
        "sea/ships.md:5": prose("cabin"),
    }
    assert dict(keys.relevance) == {"sea/ships.md:5": 1.0}
    assert (keys.scenario, keys.item_type, keys.group) == ("passage", "passage", "sea/ships.md")
    assert (data.train, data.notes) == ((), ())


def test_same_takes_the_document_first_and_fills_up_from_the_others(tmp_path: Path) -> None:
    examples = build(write(tmp_path, trains=TRAINS, ships=SHIPS)).test
    trains = {"trains.md:1", "trains.md:5", "trains.md:9"}
    for e in examples:
        if e.group == "trains.md":
            assert set(e.ids) == trains
        else:
            assert {"ships.md:1", "ships.md:5"} < set(e.ids)
            assert len(set(e.ids) & trains) == 1


def test_random_takes_any_and_lists_are_shuffled(tmp_path: Path) -> None:
    text = section("The title", "title", 1) + "".join(
        section(f"About {chr(97 + k) * 3}", f"t{k:02}x") for k in range(20)
    )
    data = build(write(tmp_path, long=text, trains=TRAINS, ships=SHIPS), negatives="random")
    everything = [e.id.removeprefix("docs:") for e in data.test]
    assert {i for e in data.test for i in e.ids} == set(everything)
    assert any(i.startswith("long") for e in data.test if e.group == "ships.md" for i in e.ids)
    assert not all(i.startswith("long") for e in data.test if e.group == "long.md" for i in e.ids)
    assert any(list(e.ids) != sorted(e.ids, key=everything.index) for e in data.test)
    assert {e.ids.index(next(iter(e.relevance))) for e in data.test} == {0, 1, 2}
    again = [e.ids for e in build(tmp_path, negatives="random", seed=1).test]
    assert again != [e.ids for e in data.test]


def test_hard_takes_the_paragraphs_that_look_most_like_the_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"one": "berth rail", "two": "rail", "three": "sea", "four": "berth"}
    folder = write(
        tmp_path,
        rail="# Rail berth\n\n"
        + "".join(f"{prose('answer')} sea\n\n## About {k}\n\n{v} {prose(k)}\n\n" for k, v in texts.items()),
    )
    # The query of the title is "Rail berth": both words, then one of them; "berth" and "rail" tie, and come in order.
    (title,) = (e for e in build(folder, negatives="hard").test if e.query == "Rail berth")
    about = {c.text.split("0")[0]: c.id for e in build(folder, candidates=5).test for c in e.candidates}
    assert set(title.ids) == {"rail.md:1", about["berth rail one"], about["rail two"]}
    (more,) = (e for e in build(folder, negatives="hard", candidates=4).test if e.query == "Rail berth")
    assert set(more.ids) - set(title.ids) == {about["berth four"]}
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r"Choosing hard negatives needs the package 'bm25s'"):
        build(folder, negatives="hard")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    long = prose("word", 86)  # 86 words of 6 letters and the spaces between them: 601
    folder = write(
        tmp_path,
        trains=TRAINS + section("How to pay", "pay") + section("Usage", "usage") + section("2.0 x", "version"),
        ships=SHIPS + section("how  to PAY", "fare") + f"## Too short\n\n{'a' * 79}\n\n## Too long\n\n{long}\n",
        fits=f"## Just enough\n\n{'b' * 80}\n\n## Just short enough\n\nx{long[2:]}\n\n## Only code\n\n    {long}\n\n",
        copies=section("A first copy", "copy") + f"## The second copy\n\n{prose('copy')} more\n",
        bare="No heading.\n",
        _hidden__x=SHIPS,
    )
    (folder / "_hidden").rename(folder / ".hidden")
    (folder / "latin.txt").write_bytes("Süß\n===\n".encode("latin-1"))
    (folder / "image.png").write_bytes(b"\xff")
    data = build(folder, near_duplicates=0.9)
    assert data.notes == (
        "1 files left out: not UTF-8 text",
        "1 files left out: no heading is found in them",
        "2 sections left out: the heading stands over several sections",
        "2 sections left out: the heading has fewer than two words",
        "1 sections left out: no paragraph of prose is under the heading",
        "1 sections left out: the paragraph has fewer than 80 characters",
        "1 sections left out: the paragraph has more than 600 characters",
        "2 sections left out: another one has the paragraph too, or nearly",  # 15 of 16 words
    )
    assert sorted(e.query for e in data.test) == [
        "Just enough",
        "Just enough: Just short enough",
        "Night trains:",
        "Night trains: A berth",
        "Night trains: The dining car",
        "Slow ships",
        "Slow ships: Cabin keys",
    ]
    kept = build(folder, near_duplicates=None).test
    assert {"A first copy", "A first copy: The second copy"} < {e.query for e in kept}


def test_a_heading_that_the_paragraph_holds_is_told(tmp_path: Path) -> None:
    said = f"## The dining car\n\nThe Dining-Car {prose('eat')}\n\n## The berth\n\nThe berths {prose('bed')}\n"
    data = build(write(tmp_path, trains=SHIPS + said))
    assert data.notes == ("1 lists kept although the paragraph holds its heading word for word",)


def test_documents_are_split_and_candidates_with_them(tmp_path: Path) -> None:
    names = ("ant", "bee", "cat", "dog")
    folder = write(tmp_path, **{n: "".join(section(f"The {n} {k}", f"{n}{k}x") for k in ("aa", "bb")) for n in names})
    data = build(folder, candidates=2, negatives="random", test_fraction=0.5)
    assert [len({e.group for e in side}) for side in (data.train, data.test)] == [2, 2]
    train, test = ({i.split(":")[0] for e in side for i in e.ids} for side in (data.train, data.test))
    assert not train & test
    assert train | test == {f"{n}.md" for n in names}
    # With one document held out its two sections are too few for lists of three.
    short = build(folder, test_fraction=0.25)
    assert (len(short.train), short.test) == (6, ())
    assert "2 lists dropped: fewer than 3 sections on their side of the split" in short.notes


def test_near_duplicate_queries_keep_documents_together(tmp_path: Path) -> None:
    heading = "How a night train crosses the border"  # 7 words; with another one 7 of 8 are shared
    folder = write(
        tmp_path,
        a=section("Alone here", "alone"),
        b=section(heading, "border"),
        c=section(f"{heading} slowly", "slowly"),
        d=section(f"{heading} slowly again", "again"),
    )
    for seed in range(5):
        data = build(folder, candidates=2, test_fraction=0.5, seed=seed, max_characters=None)
        sides = sorted(sorted(i.split(":")[0] for i in {i for e in s for i in e.ids}) for s in (data.train, data.test))
        assert sides == [[], ["b.md", "c.md", "d.md"]]  # the list of a.md has no other section on its side
        assert {e.group for e in (*data.train, *data.test)} == {"b.md"}
        assert "3 queries have a near-duplicate with other words and were split together with it" in data.notes
    apart = build(folder, near_duplicates=None, candidates=2)
    assert {e.group for e in apart.test} == {"a.md", "b.md", "c.md", "d.md"}


def test_long_lists_are_dropped(tmp_path: Path) -> None:
    folder = write(tmp_path, trains=TRAINS, ships=SHIPS)
    # Fifteen words: "ship" 6 letters each and 14 spaces, 104; "cabin" 7, 119; "train" and "berth" 119, "dining" 134.
    data = build(folder, candidates=2, max_characters=223)
    assert {e.query for e in data.test} >= {"Slow ships", "Slow ships: Cabin keys"}
    assert data.notes == ("3 lists dropped: more than 223 characters in all",)
    with pytest.raises(InputError, match=r"at most 222 characters, the shortest has 223: raise max_characters"):
        build(folder, candidates=2, max_characters=222)
    assert len(build(folder, candidates=2, max_characters=None).test) == 5


def test_errors_name_the_folder_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path} holds no \*\.md, \*\.markdown, \*\.rst, \*\.txt: check the so"):
        build(tmp_path)
    write(tmp_path, ships=SHIPS + section("Usage", "usage"))
    with pytest.raises(InputError, match=r"ships\.md is no folder: give the folder that holds the documents"):
        build(tmp_path / "ships.md")
    with pytest.raises(
        InputError, match=r": 2 sections can be used \(1 sections left out: .*two words\), too few for lists of 3: give"
    ):
        build(tmp_path)
    with pytest.raises(InputError, match=r"candidates is 1; it must be at least 2"):
        build(tmp_path, candidates=1)
    with pytest.raises(InputError, match=r"negatives is 'near'; it must be one of same, random, hard"):
        build(tmp_path, negatives="near")
    with pytest.raises(InputError, match=r"test_fraction is 2"):
        build(tmp_path, test_fraction=2)


def test_by_name_with_other_kinds_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.RST").write_text(f"Slow ships\n==========\n\n{prose('ship')}\n", encoding="utf-8-sig")
    (tmp_path / "b.txt").write_text(f"Night trains\n------------\n\n{prose('train')}\n")
    (tmp_path / "c.markdown").write_text(section("Old coaches", "coach"))
    data = load_dataset("passage-docs", source=tmp_path, candidates=3, test_fraction=1.0)
    assert {e.id for e in data.test} == {f"passage-docs:{n}" for n in ("a.RST:1", "b.txt:1", "c.markdown:1")}
    with pytest.raises(InputError, match=r"data set 'passage-docs' needs a source: the folder that holds documents"):
        load_dataset("passage-docs")


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6), min_size=2, max_size=8),
    candidates=st.integers(2, 5),
    negatives=st.sampled_from(get_args(DocumentNegatives)),
    test_fraction=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 3),
)
def test_every_list_is_sound(
    sizes: list[int], candidates: int, negatives: str, test_fraction: float, seed: int
) -> None:
    assume(sum(sizes) >= 2 * candidates - 1)  # so one side or the other has enough
    with tempfile.TemporaryDirectory() as name:
        folder = write(
            Path(name),
            **{
                f"d{d}": "".join(section(f"Topic word{chr(97 + d)} item{chr(97 + k)}", f"d{d}k{k}x") for k in range(n))
                for d, n in enumerate(sizes)
            },
        )
        options = {
            "candidates": candidates, "negatives": negatives, "test_fraction": test_fraction, "seed": seed,
            "max_characters": None,
        }  # fmt: skip
        data = build(folder, **options)
        assert data.fingerprint() == build(folder, **options).fingerprint()
    documents = []
    for side in (data.train, data.test):
        texts: dict[str, str] = {}
        for e in side:
            (gold,) = e.relevance
            assert e.id == f"docs:{gold}"
            assert gold in e.ids
            assert len(e.ids) == candidates == len({c.text for c in e.candidates})
            texts |= {c.id: c.text for c in e.candidates}
        assert set(texts) == {e.id.removeprefix("docs:") for e in side}  # each candidate answers a query of its side
        documents.append({i.split(":")[0] for i in texts})
    assert not documents[0] & documents[1]
    assert not [finding for finding in check(data) if finding.severity == "leak"]

"""`r1ranker data`: what data sets there are, what is in one, whether it can be trusted, and one as a file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import out, say
from r1ranker.errors import InputError

if TYPE_CHECKING:
    from r1ranker.datasets import Dataset
    from r1ranker.types import RankingExample

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List, look into, check and build data sets.")

Name = Annotated[str, typer.Argument(help="A data set's name ('r1ranker data list'), or a .jsonl file.")]
_DEFAULT_SIZE = 135_000_000


class Split(str, Enum):
    """--split"""

    train = "train"
    test = "test"
    both = "both"


@app.command("list", epilog=options.examples("r1ranker data list"))
def list_() -> None:
    """List the data sets."""
    from rich import box
    from rich.table import Table

    from r1ranker.datasets import DATASETS

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("name", "scenario", "--source", "description", "where from", "licence"):
        table.add_column(header, no_wrap=header == "name", overflow="fold")
    for info in DATASETS.values():
        need = info.needs if info.fetch is None else f"optional: {info.needs}"
        table.add_row(info.name, info.scenario, need, info.description, info.source, info.licence)
    out().print(table)
    print("Your own lists: give the path of a .jsonl file wherever a data set's name is asked for.")
    print(
        "ir_datasets (pip install 'r1ranker[trec]'): give ir_datasets: and an id, such as ir_datasets:beir/scifact/test"
    )


@app.command(
    epilog=options.examples(
        "r1ranker data show rec-movie --limit 2",
        "r1ranker data show passage-5 --source data/msmarco --option seed=1",
        "r1ranker data show mine.jsonl",
    )
)
def show(
    name: Name,
    source: options.Source = None,
    option: options.DataOptions = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many examples are shown.")] = 3,
    kind: options.Kind = None,
    think: options.Think = None,
    answer_form: options.Form = None,
    orders: options.Orders = None,
    fusion: options.Fusion = None,
    exclude_per_turn: options.ExcludePerTurn = None,
    stop_at: options.StopAt = None,
    window: options.Window = None,
    tournament: options.Tournament = None,
) -> None:
    """Show a data set's counts and notes, some examples, and the first prompt as the model reads it."""
    data = options.load_data(name, source, options.key_values(option or []))
    _describe(data)
    examples = (data.test or data.train)[:limit]
    for example in examples:
        print(f"\n{example.id} ({'test' if data.test else 'train'})")
        _show(example)
    settings = options.given(
        kind=kind,
        thinking=think,
        answer_form=answer_form,
        orders=orders,
        fusion=fusion,
        exclude_per_turn=exclude_per_turn,
        stop_at=stop_at,
        window=window,
        tournament=tournament,
    )
    _show_prompt(examples[0], settings)


@app.command(
    epilog=options.examples(
        "r1ranker data build rec-movie --out movie-test.jsonl",
        "r1ranker data build rec-movie --split train --option candidates=8 --out movie-train.jsonl",
    )
)
def build(
    name: Name,
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="The .jsonl file to write.")],
    split: Annotated[Split, typer.Option("--split", help="Which side of the split.")] = Split.test,
    source: options.Source = None,
    option: options.DataOptions = None,
) -> None:
    """Write a data set's examples as JSON lines: what 'rank --input' and your own tools read."""
    from r1ranker.datasets import DATASETS, write_examples

    if to.suffix == ".gz":
        raise InputError(f"{to}: examples are written as plain text; call it {to.with_suffix('')}")
    data = options.load_data(name, source, options.key_values(option or []))
    sides = {"train": data.train, "test": data.test, "both": (*data.train, *data.test)}
    if not sides[split.value]:
        raise InputError(f"'{name}' has no {split.value} examples: choose another --split")
    write_examples(to, sides[split.value])
    for text in data.notes:
        say(f"  {text}")
    print(f"{len(sides[split.value]):,} examples in {to}")
    if name in DATASETS:
        print(f"licence: {DATASETS[name].licence}")


@app.command(epilog=options.examples("r1ranker data validate mine.jsonl", "r1ranker data validate mine.jsonl.gz"))
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Your own lists, as .jsonl or .jsonl.gz.")],
) -> None:
    """Name every line of a file of lists that cannot be used, and why.

    Exit code 2: some lines cannot be used; 1: none can.
    """
    from r1ranker.datasets import read_examples

    examples, bad = read_examples(file)
    for line in bad:
        print(line)
    bare = [e.id for e in examples if not any(e.relevance.values())]
    if bare:
        print(
            f"{len(bare):,} lists have no relevant candidate, so they can be ranked but not judged: first '{bare[0]}'"
        )
    print(f"{len(examples):,} of {len(examples) + len(bad):,} lists in {file} are good")
    if not examples:
        raise typer.Exit(1)
    if bad:
        raise typer.Exit(2)


@app.command(
    epilog=options.examples(
        "r1ranker data check rec-movie",
        "r1ranker data check rec-movie passage-5 --source passage-5=data/msmarco",
        "r1ranker data check router-cost router-balance --source data/router",
        "r1ranker data check ranking-bench --source data/Ranking-bench --option split=official",
    )
)
def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Data sets, or .jsonl files.")],
    source: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="[NAME=]DIR", help="The raw files, of one data set or of all; repeatable."),
    ] = None,
    option: options.DataOptions = None,
) -> None:
    """Look for leaks: shared or near-duplicate queries, shared users and states, positives in histories.

    Notes are worth knowing and no leaks. Exit code 1: a leak is found.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from r1ranker.datasets.leaks import check as find_leaks

    sources = _sources(names, source or [])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("data set", "train", "test", "finding", "", "examples", "such as"):
        table.add_column(
            header, justify="right" if header in ("train", "test", "examples") else "left", overflow="fold"
        )
    leaks = 0
    one_sided: list[str] = []
    for name in names:
        data = options.load_data(name, sources[name], options.key_values(option or []))
        start = (name, f"{len(data.train):,}", f"{len(data.test):,}")
        findings = find_leaks(data)
        leaks += sum(finding.severity == "leak" for finding in findings)
        for f in findings:
            table.add_row(*start, f.name, f.severity, f"{f.count:,}", Text("\n".join(map(_cut, f.examples))))
        if not findings:
            table.add_row(*start, "clean" if data.train and data.test else "clean, on one side")
        if not data.train or not data.test:
            one_sided.append(name)
    out().print(table)
    if leaks:
        print(f"{leaks} {'kind' if leaks == 1 else 'kinds'} of leak found: figures on these data would be too good")
        raise typer.Exit(1)
    if both := [name for name in names if name not in one_sided]:
        print(f"no leak in {', '.join(both)}")
    for name in one_sided:
        print(
            f"{name} has one side alone, and nothing was compared between two: --option test_fraction=0.2 splits a "
            "file as training does"
        )


def _sources(names: list[str], given: list[str]) -> dict[str, Path | None]:
    """A source for each name: its own NAME=DIR, else the DIR that was given for all."""
    own: dict[str, Path] = {}
    for_all: Path | None = None
    for text in given:
        name, equals, folder = text.partition("=")
        if equals and name in names:
            own[name] = Path(folder)
        elif for_all is None:
            for_all = Path(text)
        else:
            raise InputError(f"--source {text}: there is another one for all; write it as NAME=DIR, with a name given")
    return {name: own.get(name, for_all) for name in names}


def _describe(data: Dataset) -> None:
    from statistics import fmean

    from r1ranker.datasets import DATASETS

    both = (*data.train, *data.test)
    if not both:
        raise InputError(f"'{data.name}' holds no examples")
    sizes = [len(e.candidates) for e in both]
    spread = (
        f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}, {fmean(sizes):.1f} on average"
    )
    unmarked = sum(not any(e.relevance.values()) for e in both)
    print(f"{data.name}: {len(data.train):,} train and {len(data.test):,} test examples; candidates: {spread}")
    if unmarked:
        print(f"  {unmarked:,} examples have no relevant candidate")
    for text in data.notes:
        print(f"  {text}")
    if data.name in DATASETS:
        print(f"  licence: {DATASETS[data.name].licence}")
        print(f"  options: {', '.join(DATASETS[data.name].options)}")
    print(f"  fingerprint: {data.fingerprint()[:16]}")


def _show(example: RankingExample) -> None:
    from r1ranker.answers import one_line

    if example.query:
        print(f"  query: {_cut(one_line(example.query))}")
    for number, item in enumerate(example.history, 1):
        print(f"  history {number:>2}: {_cut(one_line(item))}")
    for candidate in example.candidates:
        grade = example.grade(candidate.id)
        mark = "" if grade == 0 else "*" if grade == 1 else f"{grade:g}"
        name = f"{candidate.name}: " if candidate.name and candidate.name != candidate.text else ""
        print(f"  {mark:>4} [{candidate.id}] {_cut(name + one_line(candidate.text))}")


def _show_prompt(example: RankingExample, settings: dict[str, object]) -> None:
    from r1ranker.prompted import requests_of
    from r1ranker.reranker import UNTRAINED, with_settings

    ranker = with_settings(UNTRAINED, settings).build(_DEFAULT_SIZE)
    ranking = ranker.rank(example)
    asked = next(ranking, None)
    if asked is None:
        print("\none candidate: the model is not asked")
        return
    request = requests_of(asked)[0]
    prompt = request.prompt
    print(f"\nthe first prompt of {example.id}")
    for part, text in (("system", prompt.system), ("user", prompt.user), ("the reply begins with", prompt.prefill)):
        print(f"--- {part}\n{text}")
    if request.choices:
        print("--- and the model scores how likely each of these goes on\n" + "\n".join(request.choices))


def _cut(text: str, width: int = 160) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"

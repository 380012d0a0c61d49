"""`r1ranker rank`: one list from the command line, or a file of lists."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from r1ranker.assets.shipped import shipped_adapters
from r1ranker.cli import options
from r1ranker.cli.console import Bar, budget_note, loading, say, turns
from r1ranker.cli.errors import on_interrupt
from r1ranker.errors import InputError, R1RankerError
from r1ranker.llm.base import CountingLLM, notes_of

if TYPE_CHECKING:
    from r1ranker.datasets import BadLine
    from r1ranker.reranker import Reranker
    from r1ranker.types import RankingExample

EPILOG = options.examples(
    'r1ranker rank -m runs/demo/model --history "Heat (1995)" --doc "Babe (1995)" --doc "Casino (1995)" --trace',
    'r1ranker rank --history "Alien (1979)" --history "Heat (1995)" --doc "Aliens (1986)" --doc "Babe (1995)"',
    "r1ranker rank --input tasks.jsonl --out ranked.jsonl --model runs/demo/model",
    "r1ranker rank --input tasks.jsonl --out ranked.run",
    """A line of tasks.jsonl: {"id": "q1", "query": "who wrote Emma?", "candidates": ["Jane Austen", "A town"]}""",
)
_BAD_LINES = 5
"""How many broken lines are named."""


@options.takes_ranker
def rank(
    query: Annotated[str, typer.Option("--query", "-q", help="What the candidates are ranked for.")] = "",
    history: Annotated[
        list[str] | None,
        typer.Option("--history", help="An item of the past; repeat it, oldest first. Then candidates may come next."),
    ] = None,
    doc: Annotated[
        list[str] | None,
        typer.Option("--doc", "-d", help="A candidate's text; repeat it for each."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="FILE", help="Lists as JSON lines (or .gz), - for stdin."),
    ] = None,
    presorted: Annotated[
        bool,
        typer.Option(
            "--presorted",
            help="The --doc stand as an earlier ranking has them, best first: tell the model, or use --fusion.",
        ),
    ] = False,
    scenario: Annotated[
        options.Scenario | None,
        typer.Option(
            "--scenario",
            help="What is asked of the --doc: what answers the query, what comes next, or (routing) which LLM to ask.",
            show_default="recommendation with --history, else passage",
        ),
    ] = None,
    item_type: Annotated[
        str, typer.Option("--item-type", metavar="WORD", help="What one --doc is called, such as film.")
    ] = "",
    goal: Annotated[
        str,
        typer.Option(
            "--goal",
            metavar="WORDS",
            help='In routing how the query is to be answered, such as "well, whatever it costs".',
            show_default="well and at a low cost",
        ),
    ] = "",
    model: options.Model = options.DEFAULT_MODEL,
    *,
    settings: dict[str, Any],
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "-k", min=1, help="How many results are shown; all candidates are ranked."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the results here, as JSON lines, or as a TREC run (*.run)."),
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show each exclusion, and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    device: options.Device = "auto",
) -> None:
    """Rank candidates for a query, for a history of items, or for both.

    What you leave out stays as the model was trained. Exit code 2: some lists could not be ranked; 1: none could.
    """
    asked = scenario.value if scenario else None
    told = {"presorted": presorted, "scenario": asked, "item_type": item_type, "goal": goal}
    from r1ranker.datasets.trec_files import run_lines

    examples, bad = _read(query, history or [], doc or [], tasks, told)
    for line in bad[:_BAD_LINES]:
        say(str(line))
    if len(bad) > _BAD_LINES:
        say(f"and {len(bad) - _BAD_LINES:,} lines more that are none (r1ranker data validate names them all)")
    if not examples:
        raise InputError(f"{tasks} holds no list that can be ranked")
    if _is_run(out):
        for example in examples:  # what cannot stand in a run is told before anything long begins
            run_lines(example.id, example.ids)
    with _sink(out, tasks) as file:
        if model == options.DEFAULT_MODEL:
            untrained = "" if model in shipped_adapters() else ", which was not trained to rank"
            say(f"ranking with {model}{untrained}: --model takes another")
        with on_interrupt(lambda: "stopped before the first list was ranked: nothing was written"):
            reranker = load_reranker(model, settings, device)
        done, failed = _rank(reranker, examples, top_k, file, out, trace=trace, as_json=as_json, alone=tasks is None)
    if tasks is not None:
        where = f"; the results are in {out}" if out is not None and done else ""
        say(f"ranked {done:,} of {len(examples) + len(bad):,} lists{where}")
    if not done:
        raise typer.Exit(1)
    if failed or bad:
        raise typer.Exit(2)


def load_reranker(model: str, settings: dict[str, Any], device: str = "auto") -> Reranker:
    """The model as it asks to be asked, with some settings changed; what is said meanwhile goes to stderr."""
    from r1ranker.reranker import Reranker

    with loading():
        return Reranker.load(model, device=device, **settings)


def _rank(
    reranker: Reranker,
    examples: Sequence[RankingExample],
    top_k: int | None,
    file: TextIO | None,
    out: Path | None,
    *,
    trace: bool,
    as_json: bool,
    alone: bool,
) -> tuple[int, int]:
    """Rank and write each result at once; returns how many were ranked, and how many could not be."""
    from r1ranker.cli.ranktrace import show
    from r1ranker.datasets.trec_files import run_lines
    from r1ranker.records import record

    done = cut = short = defaulted = 0
    errors: list[InputError] = []

    def give_up(position: int, error: InputError) -> None:
        errors.append(error)
        which, text = f"'{examples[position].id}'", str(error)
        say(f"not ranked: {text if which in text else f'example {which}: {text}'}")

    def kept() -> str:
        where = f"in {out}" if out is not None else "above"
        return f"stopped: {done:,} of {len(examples):,} lists are ranked and {where}"

    llm = reranker.llm
    with on_interrupt(kept), Bar("ranking", turns(reranker.ranker, examples), transient=True) as bar:
        reranker.llm = CountingLLM(llm, bar.update)
        for _, result in reranker.rank_stream(examples, top_k, on_error=None if alone else give_up):
            if file is not None and out is not None and out.is_file() and not done:  # a pipe holds nothing
                file.truncate(0)
            done += 1
            cut += result.trace.truncated
            short += result.trace.cut_short
            defaulted += result.defaulted > 0
            sharpness = reranker.config.sharpness if trace else None
            line = json.dumps(record(result, sharpness), ensure_ascii=False)
            if file is not None:
                text = run_lines(result.example.id, [r.id for r in result]) if _is_run(out) else f"{line}\n"
                print(text, end="", file=file, flush=True)
            if as_json or file is None:
                bar.print(line if as_json else show(result, sharpness, alone=alone))
    for text in notes_of(llm):
        say(text)
    if cut:
        limit = reranker.config.document_tokens
        why = f"to {limit} tokens, or to what the model reads" if limit else "to fit what the model reads"
        say(f"{cut:,} {'text was' if cut == 1 else 'texts were'} cut {why}")
    if defaulted:
        lists = "list has" if defaulted == 1 else "lists have"
        say(f"{defaulted:,} {lists} turns whose answer named no candidate: there the order stays as listed (--trace)")
    if short:
        say(budget_note(short))
    return done, len(errors)


def _read(
    query: str, history: list[str], docs: list[str], tasks: str | None, told: Mapping[str, Any]
) -> tuple[list[RankingExample], list[BadLine]]:
    from r1ranker.reranker import make_example

    if tasks is not None:
        if query or history or docs:
            raise InputError("--input stands beside --query, --history or --doc: give either a file or one list")
        if given := [key for key, value in told.items() if value]:
            option = given[0].replace("_", "-")
            raise InputError(f'--{option} is for --doc: write "{given[0]}" into the lines of the file')
        return _read_stdin() if tasks == "-" else _read_file(Path(tasks))
    if not query.strip() and not history:
        raise InputError("there is nothing to rank for: give --query, or --history, or a file with --input")
    if not docs:
        raise InputError("there is nothing to rank: give each candidate with --doc, or a file with --input")
    documents, past = [_text(d) for d in docs], [_text(h) for h in history]
    return [make_example(_text(query), documents, history=past, **told)], []


def _text(argument: str) -> str:
    """An argument whose bytes are no UTF-8 gets a replacement character for each."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_file(path: Path) -> tuple[list[RankingExample], list[BadLine]]:
    from r1ranker.datasets import read_examples

    if _is_run(path):
        raise InputError(
            f"{path} is a run, which has no texts: r1ranker data build trec --source DIR --option run={path} --out "
            "lists.jsonl makes lists of it"
        )
    return read_examples(path)


def _read_stdin() -> tuple[list[RankingExample], list[BadLine]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stdin.jsonl"
        path.write_bytes(sys.stdin.buffer.read())
        try:
            examples, bad = _read_file(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "stdin")) from error
    return examples, [replace(line, file="stdin") for line in bad]


def _is_run(out: Path | None) -> bool:
    return out is not None and out.suffix in (".run", ".trec")


@contextmanager
def _sink(out: Path | None, tasks: str | None) -> Iterator[TextIO | None]:
    """The open output file. It is tried before the model is loaded, and emptied by the first result."""
    if out is not None and tasks not in (None, "-") and out.exists() and out.samefile(Path(str(tasks))):
        raise InputError(f"--out is the input, {out}: choose another file")
    try:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
        opened = nullcontext() if out is None else out.open("a", encoding="utf-8")
    except OSError as error:
        from r1ranker.files import write_problem

        raise R1RankerError(write_problem(out or Path(), error)) from error
    with opened as file:
        yield file

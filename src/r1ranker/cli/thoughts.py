"""`r1ranker thoughts`: a bank of what a model reasoned on training lists, to be shown to other models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1ranker.cli import options
from r1ranker.cli.console import Bar, loading, say, turns
from r1ranker.cli.errors import on_interrupt, require_writable
from r1ranker.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Record thoughts for other models to be shown.")


@app.callback()
def _group() -> None:
    """Record thoughts for other models to be shown."""  # with it, a single command keeps its name


@app.command(
    epilog=options.examples(
        "r1ranker thoughts record --model runs/mine/model --dataset rec-movie --limit 200 --out bank.jsonl",
        "r1ranker evaluate --model openai:gpt-4o-mini --dataset rec-movie --thoughts bank.jsonl",
    )
)
def record(
    model: options.Model,
    dataset: Annotated[str, typer.Option("--dataset", "-D", help="A data set's name, or a .jsonl file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The bank, as JSON lines.")],
    source: options.Source = None,
    option: options.DataOptions = None,
    answer_form: options.Form = None,
    layout: options.LayoutOption = None,
    max_tokens: options.MaxTokens = None,
    constrained: options.Constrained = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Training examples, the first ones.", show_default="all"),
    ] = None,
    per_query: Annotated[
        int, typer.Option("--per-query", min=1, help="Thoughts of one query at most: those with the fewest choices.")
    ] = 2,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Lists under way at once; fewer take less memory.")
    ] = 32,
    device: options.Device = "auto",
) -> None:
    """Let a model think about training lists, and keep the thoughts that led to right exclusions.

    Test lists are never looked at. What is kept of the lists that were finished is written even if you stop.
    """
    data = options.load_data(dataset, source, options.key_values(option or []))
    for text in data.notes:
        say(f"  {text}")
    examples = data.train[:limit]
    if not examples:
        raise InputError(
            f"'{data.name}' has no training examples, and thoughts on test lists would tell what is tested: "
            "for a file give --option test_fraction=0.2"
        )
    require_writable(out.parent)

    from r1ranker.llm.base import CountingLLM, notes_of
    from r1ranker.modelfolder import short_name
    from r1ranker.reranker import UNTRAINED, Reranker, locate, with_settings
    from r1ranker.rollout import rollout
    from r1ranker.thoughts import record as recorded_of
    from r1ranker.types import Trace

    settings = options.given(answer_form=answer_form, layout=layout, max_tokens=max_tokens, constrained=constrained) | {
        "kind": "iterative",
        "thinking": True,
    }
    with loading():
        place, own = locate(model)
        asked = with_settings(own or UNTRAINED, settings)
        reranker = Reranker.load(place, device=device, **asked.model_dump())
    if own is not None and not own.thinking:
        say(f"{short_name(model)} was trained without thinking: what it thinks was not trained")
    finished: dict[int, Trace] = {}
    failed: list[InputError] = []
    try:
        with (
            on_interrupt(lambda: f"stopped after {len(finished):,} of {len(examples):,} lists"),
            Bar(short_name(model), turns(reranker.ranker, examples)) as bar,
        ):
            llm = CountingLLM(reranker.llm, bar.update)
            finished.update(
                rollout(
                    reranker.ranker,
                    examples,
                    llm,
                    reranker.sampling,
                    concurrency=concurrency,
                    on_error=lambda _, error: failed.append(error),
                )
            )
    finally:
        pairs = ((examples[k], finished[k]) for k in sorted(finished))
        recorded = recorded_of(pairs, short_name(model), per_query)
        if recorded.bank.thoughts:
            recorded.bank.save(out)
        for text in (*notes_of(reranker.llm), *map(str, failed[:1])):
            say(text)
        if failed:
            say(f"{len(failed):,} of {len(examples):,} lists could not be ranked")
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in recorded.left_out.items()) or "none"
        say(f"{len(recorded.bank.thoughts):,} of {recorded.turns:,} turns' thoughts are kept; left out: {left_out}")
    if not recorded.bank.thoughts:
        raise InputError(
            f"nothing is written to {out}, for no thought is worth keeping: take a model that was trained to think, "
            "or more lists"
        )
    print(out)

"""Where output goes: results to stdout; progress, notes and complaints to stderr."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from r1ranker.schedules import ScheduledRanker
    from r1ranker.types import RankingExample

err = Console(stderr=True, highlight=False)
WIDE = 140
_LOG_SECONDS = 20.0


def out() -> Console:
    """The console for results; wide where they go to a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(WIDE, console.width))


def say(text: str) -> None:
    """A note on stderr."""
    err.print(text, markup=False, soft_wrap=True)


def quiet() -> None:
    """Keep libraries from talking over the results. Settings a user has made stay."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")


@contextmanager
def loading() -> Iterator[None]:
    """What is printed while something loads or is fetched is no result: it goes to stderr."""
    with redirect_stdout(sys.stderr):
        yield


class Bar:
    """A progress bar with the time left; where stderr is no terminal, a line every twenty seconds."""

    def __init__(self, what: str, total: int, *, start: int | None = 0, transient: bool = False) -> None:
        """start: what is done already; None: one less than the first update says (a run that is resumed)."""
        self.what, self.total = what, total
        self._begin = time.monotonic()
        self._told = self._begin
        self._start = start
        self._progress: Progress | None = None
        if err.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=err,
                speed_estimate_period=300,
                transient=transient,
                redirect_stdout=False,  # to stderr it would be; `print` below keeps results off the bar's line
            )
            self._task = self._progress.add_task(what, total=total, note="")

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, done: int, note: str = "") -> None:
        """Say how far things are."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._start is None:
            self._start = done - 1
        if now - self._told >= _LOG_SECONDS and done < self.total:
            self._told = now
            left = (now - self._begin) / max(1, done - self._start) * (self.total - done)
            say(f"{self.what}: {done:,} of {self.total:,}, {clock(left)} left" + (f", {note}" if note else ""))

    def print(self, text: str) -> None:
        """A result on stdout, clear of the bar where both are on the same terminal."""
        if self._progress is not None and sys.stdout.isatty():
            err.print(text, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)


def clock(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def turns(ranker: ScheduledRanker, examples: Sequence[RankingExample]) -> int:
    """How many LLM calls the ranker makes for these examples, as far as it can be told before."""
    return sum(ranker.calls(len(e.candidates)) for e in examples)


def budget_note(count: int) -> str:
    """What to say of so many lists whose budget ended before their ranking."""
    lists = "list was" if count == 1 else "lists were"
    return f"{count:,} {lists} not ranked to the end within the budget"

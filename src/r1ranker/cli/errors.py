"""What the command line says when something goes wrong: one message and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from r1ranker.errors import R1RankerError
from r1ranker.files import write_problem

INTERRUPTED = 130
TERMINATED = 143
_USAGE: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "unable to allocate")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence that says what was kept."""

    exit_code = INTERRUPTED


class Terminated(Interrupted):
    """SIGTERM, by which schedulers and containers end a job: taken as Ctrl-C is, with an exit code of its own."""

    exit_code = TERMINATED


@contextmanager
def on_interrupt(kept: Callable[[], str]) -> Iterator[None]:
    """Give a Ctrl-C inside the block the sentence `kept()`."""
    try:
        yield
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted) and error.args:  # said further in
            raise
        raise (Terminated if isinstance(error, Terminated) else Interrupted)(kept()) from error


@contextmanager
def on_sigterm() -> Iterator[None]:
    """Within, SIGTERM raises `Terminated`, so that work is kept as after a Ctrl-C. Another's handler stays."""
    ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_: int, __: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class GuardedGroup(TyperGroup):
    """The outermost group: turns whatever a command raises into a message on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. With --debug, what it raises keeps its traceback."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, _USAGE):
            raise
        except KeyboardInterrupt as error:
            complain(str(error) or "stopped")
            raise typer.Exit(exit_code_of(error)) from None
        except Exception as error:  # the last line of defence against a traceback
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever read our output has left: the framework ends quietly
            if ctx.params.get("debug"):
                traceback.print_exc()
            else:
                complain(f"error: {explain(error)}")
            raise typer.Exit(1) from None


def exit_code_of(error: KeyboardInterrupt) -> int:
    """What a command that was stopped exits with: 128 and the signal's number."""
    return error.exit_code if isinstance(error, Interrupted) else INTERRUPTED


def explain(error: BaseException) -> str:
    """One message for a user, with the remedy where it is known."""
    if isinstance(error, R1RankerError):
        return str(error)
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, MemoryError) or any(word in text.lower() for word in _MEMORY_WORDS):
        return (
            "the memory is full: rank fewer or shorter candidates at once, take a smaller model or, in training, "
            f"lower train.micro_tokens and train.states_per_step ({first})"
        )
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" to write {error.filename}" if error.filename else ""
            return f"no space left{where}: free some space or choose another folder"
        if error.filename:
            return f"cannot use {error.filename} ({error.strerror or first})"
    if isinstance(error, ImportError):
        return f"a package is missing or broken ({first}): 'r1ranker doctor' says what to install"
    return f"this should not have happened ({type(error).__name__}: {first}); run 'r1ranker --debug …' to see where"


def complain(text: str) -> None:
    """A line on stderr; a stderr that is closed is no reason to fail again."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process


def require_writable(folder: Any) -> None:
    """Make a folder and try it, before anything long begins. Raises R1RankerError if it cannot be written."""
    probe = folder / ".r1ranker-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise R1RankerError(write_problem(folder, error)) from error

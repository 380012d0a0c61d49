"""Small helpers for files: atomic writes, checksums, gzipped text, and a lock between processes."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from r1ranker.errors import InputError, R1RankerError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_STALE_SECONDS = 1800.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What flock says on a file system that knows no locks."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part. str is written as UTF-8.

    Raises R1RankerError where the file cannot be written (no space, no permission); the old file stays.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise R1RankerError(write_problem(path, error)) from error
    finally:
        with suppress(OSError):  # whatever hinders this has hindered the writing too, and been told
            part.unlink(missing_ok=True)


def write_problem(path: Path, error: OSError) -> str:
    """One sentence that says why `path` cannot be written, and the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left to write {path}: free some space or choose another folder"
    return f"cannot write {path} ({error.strerror or error}): choose a folder that you may write to"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill: it stands at `out` when the block ends, and nowhere if that fails. Raises OSError."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made = Path(scratch) / out.name
        made.mkdir()
        yield made
        os.replace(made, out)


def share_weights(folder: Path) -> None:
    """Give a folder's safetensors files the mode of its first JSON file: they are written for the owner alone."""
    like = min(folder.glob("*.json"))
    for path in folder.glob("*.safetensors"):
        shutil.copymode(like, path)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def open_text(path: Path, newline: str | None = None, errors: str = "strict") -> Iterator[TextIO]:
    """Open a UTF-8 text file for reading, gzipped where its name ends in `.gz`; a byte order mark is skipped.

    errors: what becomes of bytes that are no UTF-8, as for `open`.

    Raises InputError, naming the file, where it is missing, unreadable, broken gzip or not UTF-8 (also while
    it is being read inside the `with` block).
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", errors=errors, newline=newline) as text:
                yield text
        else:
            with path.open(encoding="utf-8-sig", errors=errors, newline=newline) as text:
                yield text
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}): fetch it again") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): check the path") from error


@contextmanager
def file_lock(path: Path, waiting: Callable[[], None] = lambda: None, poll: float = 0.2) -> Iterator[None]:
    """Hold a lock that other processes respect; `waiting` is called once if it is taken, and may raise: not to wait.

    Uses flock, which the system releases when a process dies; a file system that knows no locks holds nobody up.
    Without flock, the lock is the existence of the file, and a file older than half an hour is taken for one that a
    dead process left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while (handle := _try_lock(path)) is None:
        if not told:
            waiting()
            told = True
        time.sleep(poll)
    try:
        yield
    finally:
        os.close(handle)
        if fcntl is None:
            path.unlink(missing_ok=True)


def _try_lock(path: Path) -> int | None:
    """An open file descriptor that holds the lock, or None while someone else holds it."""
    if fcntl is not None:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
        return handle
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except FileExistsError:
        try:
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass  # its owner has just released it
        return None

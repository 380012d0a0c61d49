from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from r1ranker import files
from r1ranker.errors import InputError, R1RankerError
from r1ranker.files import file_lock, new_folder, open_text, sha256, share_weights, write_atomic


def test_write_atomic_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "eins\n")
    write_atomic(path, "zwei ä\n")
    assert path.read_bytes() == "zwei ä\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(R1RankerError, match=r"no space left to write .*a\.txt: free some space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(R1RankerError, match=r"cannot write .*file/a\.txt"):
        write_atomic(tmp_path / "file" / "a.txt", "x")


def test_a_new_folder_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "new"
    with new_folder(out) as made:
        (made / "a.txt").write_text("x")
        assert not out.exists()
    assert (os.listdir(out.parent), os.listdir(out)) == (["new"], ["a.txt"])

    def fail() -> None:
        with new_folder(tmp_path / "deep" / "other") as made:
            (made / "a.txt").write_text("x")
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        fail()
    assert os.listdir(out.parent) == ["new"]


def test_weights_may_be_read_by_whom_the_rest_of_their_folder_may(tmp_path: Path) -> None:
    for name, mode in (("config.json", 0o640), ("model.safetensors", 0o600), ("more.safetensors", 0o600), ("x", 0o600)):
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(mode)
    share_weights(tmp_path)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "config.json": 0o640,
        "model.safetensors": 0o640,
        "more.safetensors": 0o640,
        "x": 0o600,
    }


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_open_text_reads_plain_and_gzip_and_skips_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfh\xc3\xa9\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("hé\n".encode()))
    for name in ("a.txt", "a.txt.gz"):
        with open_text(tmp_path / name) as text:
            assert text.read() == "hé\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gz", b"not gzip", "a.gz is not a whole gzip file"),
        ("b.gz", gzip.compress(bytes(range(256)) * 99, mtime=0)[:-20], "b.gz is not"),
        ("c.txt", b"caf\xe9", "c.txt is not UTF-8 text"),
        ("d.gz", gzip.compress(b"caf\xe9", mtime=0), "d.gz is not UTF-8 text"),
    ],
)
def test_broken_files_are_input_errors(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message), open_text(tmp_path / name) as text:
        text.read()


def test_missing_files_and_folders_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"), open_text(tmp_path / "no"):
        pass
    with pytest.raises(InputError, match="cannot read"), open_text(tmp_path):
        pass


@pytest.mark.parametrize("flock", [True, False])
def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: bool) -> None:
    if flock and files.fcntl is None:
        pytest.skip("this system has no flock")
    if not flock:
        monkeypatch.setattr(files, "fcntl", None)
    lock, events = tmp_path / "a.lock", []

    def second() -> None:
        with file_lock(lock, lambda: events.append("waits"), poll=0.01):
            events.append("second")

    with file_lock(lock):
        thread = threading.Thread(target=second)
        thread.start()
        while not events:
            time.sleep(0.005)
        time.sleep(0.05)
        events.append("first")
    thread.join(5)
    assert events == ["waits", "first", "second"]


@pytest.mark.parametrize("flock", [True, False])
def test_who_does_not_want_to_wait_for_a_lock_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: bool
) -> None:
    if flock and files.fcntl is None:
        pytest.skip("this system has no flock")
    if not flock:
        monkeypatch.setattr(files, "fcntl", None)
    lock = tmp_path / "a.lock"

    def refuse() -> None:
        raise R1RankerError("taken")

    with file_lock(lock, refuse):
        for _ in range(2):
            with pytest.raises(R1RankerError, match="taken"), file_lock(lock, refuse):
                pytest.fail("it is held twice")
    with file_lock(lock, refuse):
        assert lock.exists()


@pytest.mark.skipif(files.fcntl is None, reason="this system has no flock")
def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    code = f"""
import pathlib, time
from r1ranker.files import file_lock
with file_lock(pathlib.Path({str(lock)!r})):
    print("held", flush=True)
    time.sleep(60)
"""

    def refuse() -> None:
        raise R1RankerError("taken")

    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(R1RankerError, match="taken"), file_lock(lock, refuse):
            pytest.fail("it is held twice")
        process.kill()
    with file_lock(lock, refuse):
        assert lock.exists()


@pytest.mark.skipif(files.fcntl is None, reason="this system has no flock")
def test_a_file_system_without_locks_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = errno.ENOSYS

    def without(_handle: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.fcntl, "flock", without)
    with file_lock(tmp_path / "a.lock") as held:
        assert held is None
    code = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), file_lock(tmp_path / "a.lock"):
        pytest.fail("another error is told")


def test_a_lock_file_that_a_dead_process_left_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    lock = tmp_path / "a.lock"
    lock.write_text("")
    os.utime(lock, (1, 1))
    with file_lock(lock, poll=0.01):
        assert lock.exists()
    assert not lock.exists()

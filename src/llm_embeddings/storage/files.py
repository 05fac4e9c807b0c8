"""Files that must be there after a crash, and that one process writes at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout


def sync(file: IO[bytes]) -> None:
    """What was written to a file is on disk when this returns."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """A rename is on disk once its directory is. Windows has no such call."""
    if sys.platform == "win32":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or as it was, a crash of the machine included."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        sync(file)
    partial.replace(path)
    sync_directory(path.parent)


def lock_of(path: Path) -> Path:
    """The file beside a file by which a process holds it; empty, and left there afterwards."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(path: Path, what: Path) -> Iterator[None]:
    """Hold a file for this process alone; the system lets go of it when the process ends.

    Args:
        path: The file; it need not exist, its directory must.
        what: What it stands for, named in the error.

    Raises:
        OSError: the lock file cannot be written.
        ValueError: another process has it.
    """
    lock = FileLock(lock_of(path), thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ValueError(f"another process is writing {what}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def waited(path: Path) -> Iterator[None]:
    """Hold a file for this process, once others let go of it; where nothing can be held, for all.

    Args:
        path: The file; neither it nor its directory need exist.
    """
    lock = FileLock(lock_of(path), thread_local=False)
    with suppress(OSError, NotImplementedError):  # no place, or no locks there
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

"""Files that must be there after a crash, and that one process writes at a time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO, BinaryIO


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


def locked(path: Path, what: Path) -> BinaryIO:
    """Open a file to append, for this process alone; the lock goes when the process does.

    Args:
        path: The file, made if missing.
        what: What it stands for, named in the error.

    Raises:
        ValueError: another process has it.
    """
    file = path.open("a+b")
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ValueError(f"another process is writing {what}") from error
    return file

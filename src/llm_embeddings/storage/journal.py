"""JSON lines that one process appends to: a kill costs at most the line that was being written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .files import lock_of, locked, sync


class JournalFile:
    """A file of lines, held by one process at a time.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, what: Path, *, sync_seconds: float = 0.0) -> None:
        """Open a file or begin one.

        Args:
            path: The file; its directory must exist.
            what: What it belongs to, named when another process writes it.
            sync_seconds: How old a line may be that a power failure costs; a kill costs none that
                was written.

        Raises:
            OSError: the file cannot be written.
            ValueError: another process writes it.
        """
        self.path = path
        self._sync_seconds, self._synced = sync_seconds, float("-inf")
        with ExitStack() as stack:
            stack.enter_context(locked(path, what))
            self._file = stack.enter_context(path.open("a+b"))
            self._open = stack.pop_all()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines and where each begins."""
        self._file.seek(0)
        return whole_lines(self._file)

    def truncate(self, end: int) -> None:
        """Drop all that lies behind a place."""
        self._file.truncate(end)

    def append(self, values: Mapping[str, Any]) -> int:
        """Write a line.

        Returns:
            Where it begins.

        Raises:
            OSError: the disk is full.
        """
        place = self._file.seek(0, os.SEEK_END)
        line = json.dumps(values, ensure_ascii=False)
        self._file.write(line.encode(errors="surrogatepass") + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced >= self._sync_seconds:
            self._sync()
        return place

    def at(self, place: int) -> Any:
        """What was written in the line that begins at a place."""
        self._file.seek(place)
        return json.loads(self._file.readline())

    def close(self) -> None:
        """Put all of it on the disk and let go of it."""
        with self._open:
            self._sync()

    def remove(self) -> None:
        """Remove the file, then let go of it."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        with suppress(PermissionError):  # of Windows, which removes it in the next line
            lock_of(self.path).unlink(missing_ok=True)
        self._open.close()

    def _sync(self) -> None:
        sync(self._file)
        self._synced = time.monotonic()


def whole_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines up to one that is being written, or was cut off by a kill, and where each begins."""
    place = 0
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield place, line
        place += len(line)


def check_settings(
    where: object, before: Mapping[str, Any], now: Mapping[str, Any], remedy: str
) -> None:
    """Compare settings with those that something was begun with.

    Args:
        where: What was begun.
        before: Its settings.
        now: Those that must not differ.
        remedy: Why that is, or what to do.

    Raises:
        ValueError: one differs; it is named.
    """
    for name, value in now.items():
        if before.get(name) != value:
            raise ValueError(
                f"{where} was begun with {name} = {before.get(name)!r:.200}, and now it is "
                f"{value!r:.200}: {remedy}"
            )

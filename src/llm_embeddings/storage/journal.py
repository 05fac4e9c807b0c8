"""JSON lines that one process appends to: a kill costs at most the line that was being written.

Each line ends with its checksum. A journal whose first line has none is an earlier version's.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .files import lock_of, locked, sync

_SEAL = re.compile(rb', "seal": (\d+)\}\n$')


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

    def lines(self) -> Iterator[tuple[int, int, Any]]:
        """Where each whole line begins and ends and what was written in it: `written_lines`."""
        self._file.seek(0)
        return written_lines(self._file, self.path)

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
        line = json.dumps(values, ensure_ascii=False).encode(errors="surrogatepass")
        self._file.write(b'%b, "seal": %d}\n' % (line[:-1], zlib.crc32(line)))
        self._file.flush()
        if time.monotonic() - self._synced >= self._sync_seconds:
            self._sync()
        return place

    def at(self, place: int) -> Any:
        """What was written in the line that begins at a place.

        Raises:
            ValueError: it has changed on the disk since it was read.
        """
        return line_at(self._file, place, self.path)

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


def written_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, Any]]:
    """Where each line begins and ends and what was written; None = a disk has changed the line.

    They stop before one that is being written, or was cut off by a kill.

    Args:
        file: The journal from its beginning.
        path: Its name for errors.

    Raises:
        ValueError: a line of a journal without checksums is no JSON.
    """
    place, sealed = 0, False
    for line in file:
        if not line.endswith(b"\n"):
            return
        seal = _SEAL.search(line)
        sealed = sealed or (place == 0 and seal is not None)
        if seal is not None:
            values = _unsealed(line, seal)
        else:
            values = None if sealed else _parsed(line, path)
        end = place + len(line)
        yield place, end, values
        place = end


def line_at(file: BinaryIO, place: int, path: Path) -> Any:
    """What was written in the line that begins at a place.

    Raises:
        ValueError: a disk has changed the line.
    """
    file.seek(place)
    line = file.readline()
    seal = _SEAL.search(line)
    values = _parsed(line, path) if seal is None else _unsealed(line, seal)
    if values is None:
        raise ValueError(f"{path} has changed on the disk at byte {place:,}: begin again")
    return values


def _unsealed(line: bytes, seal: re.Match[bytes]) -> Any:
    body = line[: seal.start()] + b"}"
    return json.loads(body) if zlib.crc32(body) == int(seal[1]) else None


def _parsed(line: bytes, path: Path) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} holds {line!r:.80}, which no run wrote: name another file or directory"
        ) from error


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

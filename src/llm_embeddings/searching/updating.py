"""Brings an index up to date with the files on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .chunks import Chunk, chunk
from .decoding import Unreadable
from .index import Entry, Index, Known
from .readers import content_format, read_content
from .sources import File, Scan, Skipped

# Passages per call of the encoder and per transaction: at most these are lost by a kill.
_BATCH = 256

EncodePassages = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class WatchUpdate:
    """Functions that are called while an update goes on, to show how far it is.

    Attributes:
        done: Called with each file that has been dealt with: it is in the index, or left out.
        skipped: Called with each file that cannot be read, unless it could not last time, for the
            same reason.
        note: Called with each file that was read, but perhaps in another way than was meant.
    """

    done: Callable[[File], None] = lambda file: None
    skipped: Callable[[Skipped], None] = lambda skip: None
    note: Callable[[File, str], None] = lambda file, note: None


_NOBODY = WatchUpdate()


@dataclass(slots=True)
class Changes:
    """What an update did.

    Attributes:
        files: Ids of contents by path, of the files of the scan that can be searched.
        read: How many files were new or changed.
        embedded: How many passages were new.
        dropped: How many files had vanished.
        skipped: All files that are left out.
        news: Those of the scan's `skipped` that were not left out for the same reason last time.
    """

    files: dict[str, int] = field(default_factory=dict)
    read: int = 0
    embedded: int = 0
    dropped: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    news: list[Skipped] = field(default_factory=list)


def changed(scan: Scan, known: dict[str, Known]) -> list[File]:
    """The files of a scan that are new or have changed since the index read them."""
    return [
        file
        for file in scan.files
        if (row := known.get(file.path)) is None
        or (row.size, row.mtime_ns) != (file.size, file.mtime_ns)
    ]


def update(
    index: Index, scan: Scan, encode: EncodePassages, watch: WatchUpdate = _NOBODY
) -> Changes:
    """Embed what is new, and drop what is gone.

    Passages are committed in batches as soon as they are embedded.

    Args:
        index: The index.
        scan: The files on disk.
        encode: Passages -> unit vectors `[n, dim]`, float32.
        watch: Told how far it is.

    Returns:
        What was done.
    """
    before = index.files()
    changes = Changes(skipped=list(scan.skipped))
    waiting = _Batch(index, encode, changes, watch.done)
    for file in changed(scan, before):
        changes.read += 1
        try:
            data = _bytes(file)
            digest, kind = hashlib.sha256(data).digest(), content_format(file.path)
            if index.link(file, digest, kind):
                watch.done(file)
                continue
            content = read_content(data, kind)
            if content.note:
                watch.note(file, content.note)
            waiting.put(file, digest, kind, chunk(content.sections))
        except Unreadable as reason:
            if file.path not in before or before[file.path].skipped != str(reason):
                watch.skipped(Skipped(file, str(reason)))
            index.skip(replace(file, mtime_ns=-1) if reason.passing else file, str(reason))
            watch.done(file)
    waiting.flush()
    _forget(index, scan, before, changes)
    _sum_up(index, scan, before, changes)
    return changes


class _Batch:
    """Files whose passages wait to be embedded together."""

    def __init__(
        self, index: Index, encode: EncodePassages, changes: Changes, done: Callable[[File], None]
    ) -> None:
        self._index = index
        self._encode = encode
        self._changes = changes
        self._done = done
        self._files: list[tuple[File, bytes, str, list[Chunk]]] = []

    def put(self, file: File, digest: bytes, kind: str, chunks: list[Chunk]) -> None:
        """Add a file; embed all that wait once there are enough passages."""
        self._files.append((file, digest, kind, chunks))
        if sum(len(chunks) for *_, chunks in self._files) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Embed the passages of all waiting files, and add them to the index."""
        passages = [part.passage for *_, chunks in self._files for part in chunks]
        if not passages:
            return
        vectors = self._encode(passages)
        ends = np.cumsum([len(chunks) for *_, chunks in self._files])[:-1]
        parts = np.split(vectors, ends)
        self._index.add(Entry(*file, part) for file, part in zip(self._files, parts, strict=True))
        self._changes.embedded += len(passages)
        for file, *_ in self._files:
            self._done(file)
        self._files.clear()


def _bytes(file: File) -> bytes:
    """The bytes of a file.

    Raises:
        Unreadable: the system cannot read it.
    """
    try:
        return Path(file.path).read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror or type(error).__name__})"
        raise Unreadable(reason, passing=True) from error


def _forget(index: Index, scan: Scan, before: dict[str, Known], changes: Changes) -> None:
    """Drop files below the scanned paths that are not on disk any more.

    A file that is on disk but not in the scan, because of another --glob, stays in the index.
    """
    there = {file.path for file in scan.files} | {skip.file.path for skip in scan.skipped}
    gone = [
        path
        for path in before
        if path not in there and _below(path, scan.roots) and not os.path.lexists(path)
    ]
    changes.dropped = len(gone)
    if gone or changes.read:
        index.drop(gone)


def _below(path: str, roots: list[str]) -> bool:
    """Whether a path is one of the roots or lies in one."""
    return any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def _sum_up(index: Index, scan: Scan, before: dict[str, Known], changes: Changes) -> None:
    """Fill in which files of the scan can be searched and which cannot; store new reasons."""
    after = index.files() if changes.read else before
    for file in scan.files:
        row = after.get(file.path)
        if row is not None and row.content is not None:
            changes.files[file.path] = row.content
        elif row is not None:
            changes.skipped.append(Skipped(file, row.skipped))
    changes.skipped.sort(key=lambda skip: skip.file.shown)
    changes.news = [
        skip
        for skip in scan.skipped
        if skip.file.path not in before or before[skip.file.path].skipped != skip.reason
    ]
    if changes.news:
        index.leave_out((skip.file, skip.reason) for skip in changes.news)

"""Brings an index up to date with what lies on disk."""

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
from .readers import kind_of, read
from .sources import File, Scan, Skipped

# Passages per call of the encoder and per transaction: what a kill can cost.
_BATCH = 256

Encode = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Watch:
    """What is called while an update goes on, so that nothing is lost when it is ended.

    Attributes:
        done: With each file that is in the index or left out now.
        skipped: With each that could not be read, if it was not left out for that last time.
        note: With each that was read, but perhaps not as it was meant.
    """

    done: Callable[[File], None] = lambda file: None
    skipped: Callable[[Skipped], None] = lambda skip: None
    note: Callable[[File, str], None] = lambda file, note: None


_NOBODY = Watch()


@dataclass(slots=True)
class Changes:
    """What an update did.

    Attributes:
        files: The files of the scan that can be searched, with the ids of their contents.
        read: How many were new or changed.
        embedded: How many passages were new.
        dropped: How many had vanished.
        skipped: Everything that is left out.
        news: Those of the scan's `skipped` that were not left out for the same reason last time.
    """

    files: dict[str, int] = field(default_factory=dict)
    read: int = 0
    embedded: int = 0
    dropped: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    news: list[Skipped] = field(default_factory=list)


def changed(scan: Scan, known: dict[str, Known]) -> list[File]:
    """The files of a scan that the index does not know as they are now."""
    return [
        file
        for file in scan.files
        if (row := known.get(file.path)) is None
        or (row.size, row.mtime_ns) != (file.size, file.mtime_ns)
    ]


def update(index: Index, scan: Scan, encode: Encode, watch: Watch = _NOBODY) -> Changes:
    """Embed what is new, forget what is gone.

    Every `_BATCH` passages are kept as soon as they are embedded.

    Args:
        index: The index.
        scan: What is on disk.
        encode: Passages to unit vectors `[n, dim]`.
        watch: Who wants to know.
    """
    before = index.files()
    changes = Changes(skipped=list(scan.skipped))
    waiting = _Batch(index, encode, changes, watch.done)
    for file in changed(scan, before):
        changes.read += 1
        try:
            data = _bytes(file)
            digest, kind = hashlib.sha256(data).digest(), kind_of(file.path)
            if index.link(file, digest, kind):
                watch.done(file)
                continue
            document = read(data, kind)
            if document.note:
                watch.note(file, document.note)
            waiting.put(file, digest, kind, chunk(document.sections))
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
        self, index: Index, encode: Encode, changes: Changes, done: Callable[[File], None]
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
        """Embed and keep what waits."""
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
    try:
        return Path(file.path).read_bytes()
    except OSError as error:
        reason = f"cannot be read ({error.strerror or type(error).__name__})"
        raise Unreadable(reason, passing=True) from error


def _forget(index: Index, scan: Scan, before: dict[str, Known], changes: Changes) -> None:
    """Drop files below the roots that are on disk no more.

    A file that is there but not in the scan, by another --glob, stays: it cost time to embed.
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
    return any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def _sum_up(index: Index, scan: Scan, before: dict[str, Known], changes: Changes) -> None:
    """Sort the scan into what can be searched and what cannot; remember the reasons."""
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

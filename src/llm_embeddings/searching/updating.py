"""Brings an index up to date with the files on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .chunks import Chunk, chunk
from .decoding import Unreadable
from .index import Index
from .readers import ALL, Reading, content_format, read_content
from .rows import Entry, Known, Part
from .sources import File, Scan, Skipped

# Passages per call of the encoder and per transaction: at most these are lost by a kill, however
# long the file is that they stand in.
_BATCH = 256

EncodePassages = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class WatchUpdate:
    """Functions that are called while an update goes on, to show how far it is.

    Attributes:
        embedded: Called with the passages of a batch that is in the index, and the bytes of files
            that they are.
        spared: Called with bytes of files of which nothing has to be embedded: they are left out,
            or the index has their passages.
        skipped: Called with each file that cannot be read, unless it could not last time, for the
            same reason.
        note: Called with each file that was read, but perhaps in another way than was meant.
    """

    embedded: Callable[[list[str], float], None] = lambda passages, size: None
    spared: Callable[[float], None] = lambda size: None
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
        resumed: How many passages an interrupted update had embedded already.
        dropped: How many files had vanished.
        skipped: All files that are left out.
        news: Those of the scan's `skipped` that were not left out for the same reason last time.
    """

    files: dict[str, int] = field(default_factory=dict)
    read: int = 0
    embedded: int = 0
    resumed: int = 0
    dropped: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    news: list[Skipped] = field(default_factory=list)


def changed(scan: Scan, known: Mapping[str, Known], reading: Reading = ALL) -> list[File]:
    """The files of a scan that are new, or have changed since the index read them, or their reader.

    Args:
        scan: The files on disk.
        known: What the index remembers.
        reading: How files are read.
    """
    return [
        file
        for file in scan.files
        if (row := known.get(file.path)) is None
        or (row.size, row.mtime_ns) != (file.size, file.mtime_ns)
        or row.reader != reading.key(content_format(file.path))
    ]


def update(
    index: Index,
    scan: Scan,
    encode: EncodePassages,
    watch: WatchUpdate = _NOBODY,
    reading: Reading = ALL,
) -> Changes:
    """Embed what is new, and drop what is gone.

    Passages are committed in batches as soon as they are embedded.

    Args:
        index: The index.
        scan: The files on disk.
        encode: Passages -> unit vectors `[n, dim]`, float32.
        watch: Told how far it is.
        reading: How files are read.

    Returns:
        What was done.
    """
    index.searches(scan.roots)
    before = index.files()
    changes = Changes(skipped=list(scan.skipped))
    waiting = _Batch(index, encode, changes, watch)
    for file in changed(scan, before, reading):
        changes.read += 1
        kind = content_format(file.path)
        key = reading.key(kind)
        try:
            file, data, remark = _read(file)
            if remark:
                watch.note(file, remark)
            digest = hashlib.sha256(data).digest()
            if index.link(file, digest, key):
                watch.spared(file.size)
                continue
            content = read_content(data, kind, reading)
            if content.note:
                watch.note(file, content.note)
            waiting.put(file, digest, key, chunk(content.sections))
        except Unreadable as reason:
            if file.path not in before or before[file.path].skipped != str(reason):
                watch.skipped(Skipped(file, str(reason)))
            there = replace(file, mtime_ns=-1) if reason.passing else file
            index.skip(there, str(reason), key)
            watch.spared(file.size)
    waiting.flush()
    _forget(index, scan, before, changes)
    _sum_up(index, scan, before, changes)
    return changes


@dataclass(slots=True)
class _Waiting:
    """A content on its way into the index, and the vectors of its first passages."""

    files: list[File]
    digest: bytes
    kind: str
    chunks: list[Chunk]
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    done: int = 0


class _Batch:
    """Contents whose passages wait to be embedded together."""

    def __init__(
        self, index: Index, encode: EncodePassages, changes: Changes, watch: WatchUpdate
    ) -> None:
        self._index = index
        self._encode = encode
        self._changes = changes
        self._watch = watch
        self._waiting: dict[tuple[bytes, str], _Waiting] = {}
        self._passages = 0

    def put(self, file: File, digest: bytes, kind: str, chunks: list[Chunk]) -> None:
        """Add a file; embed as many passages as make full batches."""
        if (same := self._waiting.get((digest, kind))) is not None:
            same.files.append(file)
            return
        new = _Waiting([file], digest, kind, chunks)
        begun = self._index.begun(digest, kind)
        if (done := sum(map(len, begun))) <= len(chunks):
            new.vectors, new.done = begun, done
            self._changes.resumed += done
            self._watch.spared(file.size * done / max(1, len(chunks)))
        self._waiting[digest, kind] = new
        self._passages += len(chunks) - new.done
        while self._passages >= _BATCH:
            self._embed()

    def flush(self) -> None:
        """Embed the passages of all that wait."""
        while self._waiting:
            self._embed()

    def _embed(self) -> None:
        """Embed the next passages, and commit them."""
        room, taken, passages = _BATCH, [], []
        for content in self._waiting.values():
            chosen = content.chunks[content.done : content.done + room]
            taken.append((content, len(chosen)))
            passages += [chunk.passage for chunk in chosen]
            room -= len(chosen)
            if content.done + len(chosen) < len(content.chunks):
                break
        vectors = self._encode(passages) if passages else np.empty((0, 0), np.float32)
        ends = np.cumsum([count for _, count in taken])[:-1]
        complete, begun, size = [], None, 0.0
        for (content, count), part in zip(taken, np.split(vectors, ends), strict=True):
            first, content.done = content.done, content.done + count
            if count:
                content.vectors.append(part)
            size += sum(file.size for file in content.files) * count / max(1, len(content.chunks))
            if content.done == len(content.chunks):
                complete.append(content)
            else:
                begun = Part(content.digest, content.kind, first, part)
        entries = list(map(_entry, complete))
        try:
            self._index.add(entries, begun)
        except KeyboardInterrupt:  # what has been embedded is kept all the same
            self._index.add(entries, begun)
            raise
        self._passages -= len(passages)
        self._changes.embedded += len(passages)
        for content in complete:
            del self._waiting[content.digest, content.kind]
        self._watch.embedded(passages, size)


def _entry(content: _Waiting) -> Entry:
    vectors = np.concatenate(content.vectors)
    return Entry(content.files, content.digest, content.kind, content.chunks, vectors)


def _read(file: File) -> tuple[File, bytes, str]:
    """A file as it is by now, its bytes, and a remark if somebody wrote it meanwhile.

    It keeps the size and time from before it was read, so that what came later is found next time.

    Raises:
        Unreadable: the system cannot read it.
    """
    path = Path(file.path)
    try:
        before = path.stat()
        data = path.read_bytes()
        after = path.stat()
    except OSError as error:
        reason = f"cannot be read ({error.strerror or type(error).__name__})"
        raise Unreadable(reason, passing=True) from error
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    there = replace(file, size=before.st_size, mtime_ns=before.st_mtime_ns)
    return there, data, "" if same else "changed while it was read: search again for the rest"


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
        index.settle()


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

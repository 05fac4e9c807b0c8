"""The index on disk: one SQLite file, so that a kill or a second process leaves it whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .chunks import LIMIT, OVERLAP, Chunk
from .places import FILE, claim, is_damage
from .sources import File

# Passages that were read or cut otherwise do not mix: raise the number when that changes.
_FORMAT = f"1:{LIMIT}:{OVERLAP}"
_SECONDS_TO_WAIT = 60.0
_BLOCK = 16384
_FULL = 1  # auto_vacuum: the file shrinks when something is dropped
_TABLES = """
CREATE TABLE facts (key TEXT NOT NULL, maker TEXT NOT NULL);
CREATE TABLE contents (id INTEGER PRIMARY KEY, hash BLOB NOT NULL, kind TEXT NOT NULL,
                       vectors BLOB NOT NULL, UNIQUE (hash, kind));
CREATE TABLE chunks (content INTEGER NOT NULL, number INTEGER NOT NULL, first INTEGER NOT NULL,
                     last INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL,
                     PRIMARY KEY (content, number)) WITHOUT ROWID;
CREATE TABLE files (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                    content INTEGER, skipped TEXT NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What the index remembers of a file: its content's id, or why it has none."""

    size: int
    mtime_ns: int
    content: int | None
    skipped: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to keep, with the vectors `[n, dim]` of its passages."""

    file: File
    digest: bytes
    kind: str
    chunks: list[Chunk]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """A passage and its cosine with the query; `paths` are the files that hold it."""

    score: float
    paths: list[str]
    kind: str
    chunk: Chunk


class Index:
    """Passages and float16 vectors of files.

    Vectors are kept by content: a file that is moved, copied or only touched is not embedded again.
    """

    def __init__(
        self, directory: Path, fingerprint: str, maker: str, *, rebuild: bool = False
    ) -> None:
        """Open the index in a directory, or begin one in a new or empty directory.

        Args:
            directory: Where it is.
            fingerprint: What decides the vectors; another one than the index's is refused.
            maker: The model, for the message then.
            rebuild: Throw away what is there and begin anew.

        Raises:
            ValueError: the directory is another program's, or the index another model's.
            OSError: the directory cannot be written.
            sqlite3.Error: see `places.explain`.
        """
        self._directory = directory
        self._facts = (f"{_FORMAT}:{fingerprint}", maker)
        claim(directory)
        self._connection = _connect(directory)
        try:
            self._begin(rebuild=rebuild)
        except sqlite3.DatabaseError as error:
            self.close()
            if not (rebuild and is_damage(error)):
                raise
            (directory / FILE).unlink()
            self._connection = _connect(directory)
            self._begin(rebuild=False)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def files(self) -> dict[str, Known]:
        """All files by absolute path."""
        rows = self._connection.execute("SELECT path, size, mtime_ns, content, skipped FROM files")
        return {os.fsdecode(path): Known(*row) for path, *row in rows}

    def link(self, file: File, digest: bytes, kind: str) -> bool:
        """Remember that a file holds a content that is known; False if it is not."""
        with self._transaction("IMMEDIATE"):
            content = self._content(digest, kind)
            if content is not None:
                self._put(file, content, "")
            return content is not None

    def add(self, entries: Iterable[Entry]) -> None:
        """Keep files with their passages: all of them or, when something fails, none."""
        with self._transaction("IMMEDIATE"):
            for entry in entries:
                content = self._content(entry.digest, entry.kind)
                self._put(entry.file, self._insert(entry) if content is None else content, "")

    def skip(self, file: File, reason: str) -> None:
        """Remember that a file cannot be read as it is now, and why."""
        with self._transaction("IMMEDIATE"):
            self._put(file, None, reason)

    def leave_out(self, files: Iterable[tuple[File, str]]) -> None:
        """Remember files that were not looked into, and why; what is known of them stays."""
        with self._transaction("IMMEDIATE"):
            self._connection.executemany(
                "INSERT INTO files VALUES (?, ?, -1, NULL, ?) ON CONFLICT (path) DO UPDATE SET "
                "skipped = excluded.skipped, mtime_ns = iif(content IS NULL, -1, mtime_ns)",
                ((os.fsencode(file.path), file.size, reason) for file, reason in files),
            )

    def drop(self, paths: Iterable[str]) -> None:
        """Forget files, and contents that no file holds any more."""
        with self._transaction("IMMEDIATE"):
            self._connection.executemany(
                "DELETE FROM files WHERE path = ?", ((os.fsencode(path),) for path in paths)
            )
            self._connection.execute(
                "DELETE FROM contents WHERE id NOT IN "
                "(SELECT content FROM files WHERE content IS NOT NULL)"
            )
            self._connection.execute(
                "DELETE FROM chunks WHERE content NOT IN (SELECT id FROM contents)"
            )

    def best(
        self, query: NDArray[np.float32], top: int, files: dict[str, int]
    ) -> tuple[list[Found], int]:
        """The passages nearest to a query, best first, and how many were compared.

        Args:
            query: `[dim]`, of length 1.
            top: How many.
            files: Paths to search, with the ids of their contents.
        """
        paths: dict[int, list[str]] = {}
        for path, content in files.items():
            paths.setdefault(content, []).append(path)
        compared = 0
        best: list[tuple[float, int, int]] = []
        with self._transaction("DEFERRED"):
            for contents, numbers, vectors in self._blocks(paths.keys(), len(query)):
                scores = vectors.astype(np.float32) @ query
                compared += len(scores)
                places = np.argsort(-scores, kind="stable")[:top]
                rows = zip(scores[places], contents[places], numbers[places], strict=True)
                best += [(-float(score), int(content), int(n)) for score, content, n in rows]
                best = sorted(best)[:top]
            return [self._found(*hit, paths) for hit in best], compared

    def _blocks(
        self, wanted: Iterable[int], dimension: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]]:
        """Ids of contents, numbers of passages in them, and vectors `[m, dim]`, in pieces."""
        wanted = set(wanted)
        contents: list[int] = []
        blobs: list[NDArray[np.float16]] = []
        size = 0
        for content, blob in self._connection.execute("SELECT id, vectors FROM contents"):
            if content not in wanted:
                continue
            contents.append(content)
            blobs.append(np.frombuffer(blob, "<f2").reshape(-1, dimension))
            size += len(blobs[-1])
            if size >= _BLOCK:
                yield _joined(contents, blobs)
                contents, blobs, size = [], [], 0
        if blobs:
            yield _joined(contents, blobs)

    def _found(
        self, distance: float, content: int, number: int, paths: dict[int, list[str]]
    ) -> Found:
        query = (
            "SELECT kind, first, last, heading, text FROM chunks JOIN contents ON content = id "
            "WHERE content = ? AND number = ?"
        )
        kind, *chunk = self._connection.execute(query, (content, number)).fetchone()
        return Found(-distance, paths[content], kind, Chunk(*chunk))

    @contextmanager
    def _transaction(self, kind: str, *, check: bool = True) -> Iterator[None]:
        """All or nothing; waits for another process's transaction to end.

        Raises:
            ValueError: another process has rebuilt the index with another model meanwhile.
        """
        self._connection.execute(f"BEGIN {kind}")
        try:
            if check:
                self._check()
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _begin(self, *, rebuild: bool) -> None:
        """Make the tables where there are none, and check whose they are."""
        if self._connection.execute("PRAGMA auto_vacuum").fetchone() != (_FULL,):
            self._connection.execute(f"PRAGMA auto_vacuum = {_FULL}")
        with self._transaction("IMMEDIATE", check=False):
            names = "SELECT name FROM sqlite_master WHERE type = 'table'"
            tables = [name for (name,) in self._connection.execute(names)]
            for name in tables if rebuild else ():
                self._connection.execute(f"DROP TABLE {name}")
            if rebuild or not tables:
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO facts VALUES (?, ?)", self._facts)
            self._check()

    def _check(self) -> None:
        key, maker = self._connection.execute("SELECT key, maker FROM facts").fetchone()
        if key != self._facts[0]:
            whose = "another version of it" if maker == self._facts[1] else maker
            raise ValueError(
                f"the index in {self._directory} was made by {whose}, not by {self._facts[1]}: "
                "--rebuild makes it anew, another --index keeps both"
            )

    def _content(self, digest: bytes, kind: str) -> int | None:
        query = "SELECT id FROM contents WHERE hash = ? AND kind = ?"
        row = self._connection.execute(query, (digest, kind)).fetchone()
        return None if row is None else int(row[0])

    def _insert(self, entry: Entry) -> int:
        cursor = self._connection.execute(
            "INSERT INTO contents (hash, kind, vectors) VALUES (?, ?, ?)",
            (entry.digest, entry.kind, entry.vectors.astype("<f2").tobytes()),
        )
        content = int(cursor.lastrowid or 0)
        self._connection.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)",
            (
                (content, number, chunk.first, chunk.last, chunk.heading, chunk.text)
                for number, chunk in enumerate(entry.chunks)
            ),
        )
        return content

    def _put(self, file: File, content: int | None, skipped: str) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            (os.fsencode(file.path), file.size, file.mtime_ns, content, skipped),
        )


def _connect(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / FILE, timeout=_SECONDS_TO_WAIT, isolation_level=None)


def _joined(
    contents: list[int], blobs: list[NDArray[np.float16]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]:
    sizes = [len(vectors) for vectors in blobs]
    numbers = np.concatenate([np.arange(size) for size in sizes])
    return np.repeat(contents, sizes), numbers, np.concatenate(blobs)

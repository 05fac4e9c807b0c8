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

from ..storage.sqlite import Database, transaction
from .chunks import Chunk
from .places import FILE, claim
from .schema import FORMAT, KIND, sealed, unsealed
from .sources import File

_BLOCK = 16384


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
            ValueError: the directory is another program's, the index another model's, or its file
                cannot be used.
            OSError: the directory cannot be written.
        """
        self._directory = directory
        self._facts = (f"{FORMAT}:{fingerprint}", maker)
        claim(directory)
        self._file = Database(directory / FILE, KIND, rebuild=rebuild)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def files(self) -> dict[str, Known]:
        """All files by absolute path; without rows that cannot be as they were written."""
        query = """SELECT path, size, mtime_ns, content, skipped FROM files WHERE
            typeof(path) = 'blob' AND (content IS NULL OR content IN (SELECT id FROM contents))"""
        with self._file.used() as sql:
            return {os.fsdecode(path): Known(*row) for path, *row in sql.execute(query)}

    def link(self, file: File, digest: bytes, kind: str) -> bool:
        """Remember that a file holds a content that is known; False if it is not."""
        with self._transaction() as sql:
            content = _content(sql, digest, kind)
            if content is not None:
                _put(sql, file, content, "")
            return content is not None

    def add(self, entries: Iterable[Entry]) -> None:
        """Keep files with their passages: all of them or, when something fails, none."""
        with self._transaction() as sql:
            for entry in entries:
                content = _content(sql, entry.digest, entry.kind)
                _put(sql, entry.file, _insert(sql, entry) if content is None else content, "")

    def skip(self, file: File, reason: str) -> None:
        """Remember that a file cannot be read as it is now, and why."""
        with self._transaction() as sql:
            _put(sql, file, None, reason)

    def leave_out(self, files: Iterable[tuple[File, str]]) -> None:
        """Remember files that were not looked into, and why; what is known of them stays."""
        with self._transaction() as sql:
            sql.executemany(
                "INSERT INTO files VALUES (?, ?, -1, NULL, ?) ON CONFLICT (path) DO UPDATE SET "
                "skipped = excluded.skipped, mtime_ns = iif(content IS NULL, -1, mtime_ns)",
                ((os.fsencode(file.path), file.size, reason) for file, reason in files),
            )

    def drop(self, paths: Iterable[str]) -> None:
        """Forget files, and contents that no file holds any more."""
        with self._transaction() as sql:
            sql.executemany(
                "DELETE FROM files WHERE path = ?", ((os.fsencode(path),) for path in paths)
            )
            sql.execute(
                "DELETE FROM contents WHERE id NOT IN "
                "(SELECT content FROM files WHERE content IS NOT NULL)"
            )
            sql.execute("DELETE FROM chunks WHERE content NOT IN (SELECT id FROM contents)")

    def best(
        self, query: NDArray[np.float32], top: int, files: dict[str, int]
    ) -> tuple[list[Found], int]:
        """The passages nearest to a query, best first, and how many were compared.

        Args:
            query: `[dim]`, of length 1.
            top: How many hits are wanted.
            files: Paths to search, with the ids of their contents.

        Raises:
            ValueError: vectors are not as they were written; the next update makes them again.
        """
        damaged: list[int] = []
        paths: dict[int, list[str]] = {}
        for path, content in files.items():
            paths.setdefault(content, []).append(path)
        compared = 0
        best: list[tuple[float, int, int]] = []
        with self._transaction("DEFERRED") as sql:
            for contents, numbers, vectors in _blocks(sql, paths.keys(), len(query), damaged):
                scores = vectors.astype(np.float32) @ query
                compared += len(scores)
                places = np.argsort(-scores, kind="stable")[:top]
                rows = zip(scores[places], contents[places], numbers[places], strict=True)
                best += [(-float(score), int(content), int(n)) for score, content, n in rows]
                best = sorted(best)[:top]
            if not damaged:
                return [_found(sql, *hit, paths) for hit in best], compared
        self._forget(damaged)
        names = sorted(name for content in damaged for name in paths[content])
        raise ValueError(
            f"the index in {self._directory} is damaged: the vectors of {len(names)} files are not "
            f"those that were written ({', '.join(names[:3])}). Search again: they are made anew"
        )

    def _forget(self, contents: Iterable[int]) -> None:
        """Take contents for new when their files are next looked at."""
        with self._transaction() as sql:
            sql.executemany(
                "UPDATE files SET content = NULL, mtime_ns = -1 WHERE content = ?",
                ((content,) for content in contents),
            )
        self.drop(())

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """All or nothing; waits for another process's transaction to end.

        Raises:
            ValueError: another process has rebuilt the index with another model meanwhile.
        """
        with self._file.used() as sql, transaction(sql, kind):
            self._check(sql)
            yield sql

    def _begin(self) -> None:
        """Say in a new index what decides its vectors, or compare with what an old one says."""
        with self._file.used() as sql, transaction(sql):
            note = "INSERT INTO facts SELECT ?, ? WHERE NOT EXISTS (SELECT * FROM facts)"
            sql.execute(note, self._facts)
            self._check(sql)

    def _check(self, sql: sqlite3.Connection) -> None:
        nobody = ("", "a process that is rebuilding it")
        key, maker = sql.execute("SELECT key, maker FROM facts").fetchone() or nobody
        if key != self._facts[0]:
            whose = "another version of it" if maker == self._facts[1] else maker
            raise ValueError(
                f"the index in {self._directory} was made by {whose}, not by {self._facts[1]}: "
                "--rebuild makes it anew, another --index keeps both"
            )


def _blocks(
    sql: sqlite3.Connection, wanted: Iterable[int], dimension: int, damaged: list[int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]]:
    """Ids of contents, numbers of passages in them, and vectors `[m, dim]`, in pieces.

    Contents whose vectors are damaged are left out and added to `damaged`.
    """
    wanted = set(wanted)
    contents: list[int] = []
    blobs: list[NDArray[np.float16]] = []
    size = 0
    for content, digest, kind, block in sql.execute("SELECT id, hash, kind, vectors FROM contents"):
        if content not in wanted:
            continue
        vectors = unsealed(block, digest, kind, dimension)
        if vectors is None:
            damaged.append(content)
            continue
        contents.append(content)
        blobs.append(vectors)
        size += len(blobs[-1])
        if size >= _BLOCK:
            yield _joined(contents, blobs)
            contents, blobs, size = [], [], 0
    if blobs:
        yield _joined(contents, blobs)


def _found(
    sql: sqlite3.Connection,
    distance: float,
    content: int,
    number: int,
    paths: dict[int, list[str]],
) -> Found:
    query = (
        "SELECT kind, first, last, heading, text FROM chunks JOIN contents ON content = id "
        "WHERE content = ? AND number = ?"
    )
    row = sql.execute(query, (content, number)).fetchone()
    if row is None:
        raise ValueError("the index has lost a passage: --rebuild makes it anew")
    kind, *chunk = row
    return Found(-distance, paths[content], kind, Chunk(*chunk))


def _content(sql: sqlite3.Connection, digest: bytes, kind: str) -> int | None:
    query = "SELECT id FROM contents WHERE hash = ? AND kind = ?"
    row = sql.execute(query, (digest, kind)).fetchone()
    return None if row is None else int(row[0])


def _insert(sql: sqlite3.Connection, entry: Entry) -> int:
    cursor = sql.execute(
        "INSERT INTO contents (hash, kind, vectors) VALUES (?, ?, ?)",
        (entry.digest, entry.kind, sealed(entry.vectors, entry.digest, entry.kind)),
    )
    content = int(cursor.lastrowid or 0)
    sql.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)",
        (
            (content, number, chunk.first, chunk.last, chunk.heading, chunk.text)
            for number, chunk in enumerate(entry.chunks)
        ),
    )
    return content


def _put(sql: sqlite3.Connection, file: File, content: int | None, skipped: str) -> None:
    sql.execute(
        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
        (os.fsencode(file.path), file.size, file.mtime_ns, content, skipped),
    )


def _joined(
    contents: list[int], blobs: list[NDArray[np.float16]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]:
    sizes = [len(vectors) for vectors in blobs]
    numbers = np.concatenate([np.arange(size) for size in sizes])
    return np.repeat(contents, sizes), numbers, np.concatenate(blobs)

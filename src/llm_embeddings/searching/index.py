"""The index on disk: one SQLite file, so that a kill or a second process leaves it whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..storage.blocks import unseal
from ..storage.sqlite import Database, transaction
from .chunks import Chunk
from .hits import Found, Query, forget_words, index_words, rank
from .places import FILE, claim
from .schema import KIND, begin, blocks_of, sealed
from .sources import File


@dataclass(frozen=True, slots=True)
class Known:
    """What the index remembers of a file: its content's id, or why it has none, and its reader."""

    size: int
    mtime_ns: int
    content: int | None
    skipped: str
    reader: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A content to keep, the files that hold it, and the vectors `[n, dim]` of its passages."""

    files: list[File]
    digest: bytes
    kind: str
    chunks: list[Chunk]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """Vectors `[m, dim]` of passages `first` to `first + m` of a content that is not complete."""

    digest: bytes
    kind: str
    first: int
    vectors: NDArray[np.float32]


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
        claim(directory)
        self._file = Database(directory / FILE, KIND, rebuild=rebuild)
        try:
            with self._file.used() as sql, transaction(sql):
                self._facts = begin(sql, fingerprint, maker)
                self._check(sql)
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
        query = """SELECT path, size, mtime_ns, content, skipped, reader FROM files WHERE
            typeof(path) = 'blob' AND (content IS NULL OR content IN (SELECT id FROM contents))"""
        with self._file.used() as sql:
            return {os.fsdecode(path): Known(*row) for path, *row in sql.execute(query)}

    def link(self, file: File, digest: bytes, kind: str) -> bool:
        """Remember that a file holds a content that is known; False if it is not."""
        with self._transaction() as sql:
            content = _content(sql, digest, kind)
            if content is not None:
                _put(sql, file, content, "", kind)
            return content is not None

    def begun(self, digest: bytes, kind: str) -> list[NDArray[np.float32]]:
        """Vectors `[m, dim]` of the first passages of a content that was interrupted, in parts."""
        query = (
            "SELECT first, passages, vectors FROM unfinished WHERE hash = ? AND kind = ? "
            "ORDER BY first"
        )
        found: list[NDArray[np.float32]] = []
        end = 0
        with self._transaction("DEFERRED") as sql:
            for first, passages, blob in sql.execute(query, (digest, kind)):
                # Another process may have cut the same content elsewhere.
                numbers = unseal(blob, digest, f"{kind} {first}", older=False)
                if first == end and numbers is not None:
                    found.append(np.frombuffer(numbers, "<f2").reshape(passages, -1).astype("<f4"))
                    end += passages
        return found

    def add(self, entries: Iterable[Entry], part: Part | None = None) -> None:
        """Keep files with their passages: all of them or, when something fails, none.

        Args:
            entries: Contents and the files that hold them.
            part: The vectors of some passages of a content that is not complete yet.
        """
        with self._transaction() as sql:
            for entry in entries:
                content = _content(sql, entry.digest, entry.kind)
                if content is None:
                    content = _insert(sql, entry)
                for file in entry.files:
                    _put(sql, file, content, "", entry.kind)
            if part is not None:
                block = sealed(part.vectors, part.digest, f"{part.kind} {part.first}")
                row = (part.digest, part.kind, part.first, len(part.vectors), block)
                sql.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?, ?, ?)", row)

    def skip(self, file: File, reason: str, kind: str) -> None:
        """Remember that a file cannot be read as it is now, and why."""
        with self._transaction() as sql:
            _put(sql, file, None, reason, kind)

    def searches(self, roots: Iterable[str]) -> None:
        """Remember what is searched with this index."""
        with self._transaction() as sql:
            rows = [(os.fsencode(root),) for root in roots]
            sql.executemany("INSERT OR IGNORE INTO roots VALUES (?)", rows)

    def leave_out(self, files: Iterable[tuple[File, str]]) -> None:
        """Remember files that were not looked into, and why; what is known of them stays."""
        with self._transaction() as sql:
            sql.executemany(
                "INSERT INTO files VALUES (?, ?, -1, NULL, ?, '') ON CONFLICT (path) DO UPDATE SET "
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
            forget_words(sql)
            sql.execute("DELETE FROM chunks WHERE content NOT IN (SELECT id FROM contents)")
            # An update that comes here is complete: what was begun and is still there is of
            # contents that no file has any more, or of another process, which has it in memory.
            sql.execute("DELETE FROM unfinished")

    def best(self, query: Query, top: int, files: Mapping[str, int]) -> tuple[list[Found], int]:
        """The passages that fit a query best, best first, and how many were compared.

        Args:
            query: The query.
            top: How many hits are wanted.
            files: Paths to search, with the ids of their contents.

        Raises:
            ValueError: vectors are not as they were written; the next update makes them again.
        """
        damaged: list[int] = []
        paths: dict[int, list[str]] = {}
        for path, content in files.items():
            paths.setdefault(content, []).append(path)
        with self._transaction("DEFERRED") as sql:
            blocks = blocks_of(sql, paths.keys(), len(query.vector), damaged)
            found = rank(sql, query, blocks, top, paths)
        if not damaged:
            return found
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

    def _check(self, sql: sqlite3.Connection) -> None:
        nobody = ("", "a process that is rebuilding it")
        key, maker = sql.execute("SELECT key, maker FROM facts").fetchone() or nobody
        if key != self._facts[0]:
            whose = "another version of it" if maker == self._facts[1] else maker
            raise ValueError(
                f"the index in {self._directory} was made by {whose}, not by {self._facts[1]}: "
                "--rebuild makes it anew, another --index keeps both"
            )


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
    index_words(sql, content, entry.chunks)
    gone = "DELETE FROM unfinished WHERE hash = ? AND kind = ?"
    sql.execute(gone, (entry.digest, entry.kind))
    return content


def _put(
    sql: sqlite3.Connection, file: File, content: int | None, skipped: str, reader: str
) -> None:
    sql.execute(
        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
        (os.fsencode(file.path), file.size, file.mtime_ns, content, skipped, reader),
    )

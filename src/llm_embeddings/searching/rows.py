"""Rows of an index, each with a checksum: what a disk has changed is neither shown nor believed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..storage.blocks import row_checksum, seal, unseal
from .chunks import Chunk
from .sources import File

SEALS = (
    "ALTER TABLE files ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE chunks ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE contents ADD COLUMN passages INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE roots ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
)
_PASSAGES = """
SELECT number, first, last, heading, text, seal FROM chunks WHERE content = ? ORDER BY number
"""


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


def sealed(vectors: NDArray[np.float32], digest: bytes, kind: str) -> bytes:
    """Vectors of a content's passages as they lie in the file."""
    return seal(vectors.astype("<f2").tobytes(), digest, kind)


def unsealed(block: bytes, digest: bytes, kind: str, dimension: int) -> NDArray[np.float16] | None:
    """Vectors `[m, dim]` out of the file; None = they are not those that were written."""
    numbers = unseal(block, digest, kind)
    if numbers is None or len(numbers) % (2 * dimension):
        return None
    return np.frombuffer(numbers, "<f2").reshape(-1, dimension)


def content_id(sql: sqlite3.Connection, digest: bytes, kind: str) -> int | None:
    """The id of a content; None = the index does not have it."""
    query = "SELECT id FROM contents WHERE hash = ? AND kind = ?"
    for (content,) in sql.execute(query, (digest, kind)).fetchall():
        # The answer came from SQLite's index of hashes alone: the row has to say so, too.
        row = "SELECT hash, kind FROM contents WHERE id = ?"
        if sql.execute(row, (content,)).fetchone() == (digest, kind):
            return int(content)
    return None


def insert_content(sql: sqlite3.Connection, entry: Entry) -> int:
    """Write a content and its passages; returns its id."""
    vectors = sealed(entry.vectors, entry.digest, entry.kind)
    count = len(entry.chunks)
    cursor = sql.execute(
        "INSERT INTO contents (hash, kind, vectors, passages) VALUES (?, ?, ?, ?)",
        (entry.digest, entry.kind, vectors, count),
    )
    content = int(cursor.lastrowid or 0)
    rows = (
        (number, part.first, part.last, part.heading, part.text)
        for number, part in enumerate(entry.chunks)
    )
    sql.executemany(
        "INSERT INTO chunks (content, number, first, last, heading, text, seal) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        ((content, *row, row_checksum(entry.digest, entry.kind, count, *row)) for row in rows),
    )
    return content


def put_part(sql: sqlite3.Connection, part: Part) -> None:
    """Write the vectors of some passages of a content that is not complete."""
    place = f"{part.kind} {part.first} {len(part.vectors)}"
    row = (part.digest, part.kind, part.first, len(part.vectors))
    block = sealed(part.vectors, part.digest, place)
    sql.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?, ?, ?, ?)", (*row, block))


def begun_parts(sql: sqlite3.Connection, digest: bytes, kind: str) -> list[NDArray[np.float32]]:
    """Vectors `[m, dim]` of the first passages of a content that is not complete, in parts."""
    query = (
        "SELECT first, passages, vectors FROM unfinished WHERE hash = ? AND kind = ? ORDER BY first"
    )
    found: list[NDArray[np.float32]] = []
    end = 0
    for first, passages, block in sql.execute(query, (digest, kind)):
        # Another process may have cut the same content elsewhere.
        numbers = unseal(block, digest, f"{kind} {first} {passages}", older=False)
        if first == end and numbers is not None:
            found.append(np.frombuffer(numbers, "<f2").reshape(passages, -1).astype("<f4"))
            end += passages
    return found


def passage(sql: sqlite3.Connection, content: int, number: int) -> tuple[str, Chunk] | None:
    """Kind and passage; None = it is not there as it was written."""
    statement = (
        "SELECT hash, kind, passages, number, first, last, heading, text, seal FROM chunks "
        "JOIN contents ON content = id WHERE content = ? AND number = ?"
    )
    row = sql.execute(statement, (content, number)).fetchone()
    if row is None or row_checksum(*row[:-1]) != row[-1]:
        return None
    return row[1], Chunk(*row[4:8])


def all_passages(sql: sqlite3.Connection, damaged: list[int]) -> Iterator[tuple[int, list[Chunk]]]:
    """Contents and their passages; those that are not as they were written go to `damaged`."""
    for content, *head in sql.execute("SELECT id, hash, kind, passages FROM contents").fetchall():
        rows = sql.execute(_PASSAGES, (content,)).fetchall()
        if len(rows) == head[-1] and all(row_checksum(*head, *r[:-1]) == r[-1] for r in rows):
            yield content, [Chunk(*row[1:5]) for row in rows]
        else:
            damaged.append(content)


def put_file(
    sql: sqlite3.Connection, file: File, content: int | None, skipped: str, reader: str
) -> None:
    """Write what is known of a file."""
    row = (os.fsencode(file.path), file.size, file.mtime_ns, content, skipped, reader)
    digest = "SELECT hash FROM contents WHERE id = ?"
    (found,) = sql.execute(digest, (content,)).fetchone() or (None,)
    sql.execute(
        "INSERT OR REPLACE INTO files (path, size, mtime_ns, content, skipped, reader, seal) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*row, row_checksum(*row, found)),
    )


def known_files(sql: sqlite3.Connection) -> tuple[dict[str, Known], list[int]]:
    """All files by path, and the numbers of rows that are not as they were written."""
    query = (
        "SELECT files.rowid, path, size, mtime_ns, content, skipped, reader, hash, seal FROM files "
        "LEFT JOIN contents ON content = id"
    )
    found: dict[bytes, tuple[int, Known]] = {}
    damaged = []
    for number, *row, seal_ in sql.execute(query):
        path = row[0]
        if row_checksum(*row) != seal_ or (row[3] is not None and row[6] is None):
            damaged.append(number)
        elif path in found:  # SQLite's index of paths has changed: which row is the newer one?
            damaged += [number, found[path][0]]
        else:
            found[path] = number, Known(*row[1:6])
    gone = set(damaged)
    return {
        os.fsdecode(path): known for path, (number, known) in found.items() if number not in gone
    }, sorted(gone)


def move_files(sql: sqlite3.Connection, old: str, new: str) -> None:
    """Let the files of a folder be known by the place that it was moved to."""
    if not _has_seals(sql):
        query, start = "SELECT path FROM files", os.fsencode(old)
        paths = [path for (path,) in sql.execute(query) if path.startswith(start)]
        moved = [(os.fsencode(new) + path[len(start) :], path) for path in paths]
        sql.executemany("UPDATE OR REPLACE files SET path = ? WHERE path = ?", moved)
        return
    for path, known in known_files(sql)[0].items():
        if path.startswith(old):
            sql.execute("DELETE FROM files WHERE path = ?", (os.fsencode(path),))
            file = File(new + path[len(old) :], "", known.size, known.mtime_ns)
            put_file(sql, file, known.content, known.skipped, known.reader)


def roots_of(sql: sqlite3.Connection) -> tuple[str, ...]:
    """What an index searches; nothing of one of version 0.1.0, which does not say."""
    if sql.execute("SELECT 1 FROM sqlite_master WHERE name = 'roots'").fetchone() is None:
        return ()
    if not _has_seals(sql):
        return tuple(os.fsdecode(path) for (path,) in sql.execute("SELECT path FROM roots"))
    rows = sql.execute("SELECT path, seal FROM roots").fetchall()
    return tuple(os.fsdecode(path) for path, seal_ in rows if row_checksum(path) == seal_)


def _has_seals(sql: sqlite3.Connection) -> bool:
    """Whether a version that seals rows has written the index."""
    return any(row[1] == "seal" for row in sql.execute("PRAGMA table_info(files)"))


def put_roots(sql: sqlite3.Connection, roots: Sequence[str]) -> None:
    """Remember what is searched with the index."""
    paths = map(os.fsencode, roots)
    if not _has_seals(sql):
        sql.executemany("INSERT OR REPLACE INTO roots VALUES (?)", ((path,) for path in paths))
        return
    rows = [(path, row_checksum(path)) for path in paths]
    sql.executemany("INSERT OR REPLACE INTO roots (path, seal) VALUES (?, ?)", rows)


def seal_all(sql: sqlite3.Connection) -> None:
    """Put seals on the rows of an index that an earlier version wrote, as they are."""
    sql.execute(
        "UPDATE contents SET passages = (SELECT count(*) FROM chunks WHERE content = contents.id)"
    )
    seal_chunk = "UPDATE chunks SET seal = ? WHERE content = ? AND number = ?"
    for content, *head in sql.execute("SELECT id, hash, kind, passages FROM contents").fetchall():
        rows = [row[:-1] for row in sql.execute(_PASSAGES, (content,)).fetchall()]
        seals = ((row_checksum(*head, *row), content, row[0]) for row in rows)
        sql.executemany(seal_chunk, seals)
    query = "SELECT path, size, mtime_ns, content, skipped, reader FROM files"
    for path, size, mtime, *rest in sql.execute(query).fetchall():
        put_file(sql, File(os.fsdecode(path), "", size, mtime), *rest)
    put_roots(sql, [os.fsdecode(path) for (path,) in sql.execute("SELECT path FROM roots")])

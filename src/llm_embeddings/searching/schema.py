"""The tables of an index, how one of an earlier version gets those it lacks, how vectors lie."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..ranking import fulltext
from ..storage.blocks import seal, unseal
from ..storage.sqlite import Kind
from .chunks import LIMIT, OVERLAP, Chunk
from .hits import index_words

# Passages that were cut otherwise do not mix, and earlier versions must not write into an index
# whose words they would not keep in step: raise the number when either changes.
FORMAT, _OLDER = f"2:{LIMIT}:{OVERLAP}", f"1:{LIMIT}:{OVERLAP}"
_BLOCK = 16384
_LATER = (
    fulltext.SCHEMA,
    # Vectors of `passages` passages of a file, from number `first` on, while it is being embedded.
    """CREATE TABLE unfinished (
        hash BLOB NOT NULL, kind TEXT NOT NULL, first INTEGER NOT NULL, passages INTEGER NOT NULL,
        vectors BLOB NOT NULL, PRIMARY KEY (hash, kind, first))""",
    "ALTER TABLE files ADD COLUMN reader TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE roots (path BLOB PRIMARY KEY)",
)
KIND = Kind(
    name="a search index",
    remedy="--rebuild makes it anew",
    tables=frozenset({"facts", "contents", "chunks", "files"}),
    schema=(
        "CREATE TABLE facts (key TEXT NOT NULL, maker TEXT NOT NULL)",
        """CREATE TABLE contents (
            id INTEGER PRIMARY KEY, hash BLOB NOT NULL, kind TEXT NOT NULL,
            vectors BLOB NOT NULL, UNIQUE (hash, kind))""",
        """CREATE TABLE chunks (
            content INTEGER NOT NULL, number INTEGER NOT NULL, first INTEGER NOT NULL,
            last INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL,
            PRIMARY KEY (content, number)) WITHOUT ROWID""",
        """CREATE TABLE files (
            path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
            content INTEGER, skipped TEXT NOT NULL)""",
        *_LATER,
    ),
    pragmas=("auto_vacuum = FULL",),  # the file shrinks when something is dropped
)


def begin(sql: sqlite3.Connection, fingerprint: str, maker: str) -> tuple[str, str]:
    """Say in a new index what decides its vectors, and bring one of an earlier version up to date.

    An index of another model is left as it is.

    Args:
        sql: In a transaction.
        fingerprint: What decides vectors.
        maker: The model's name.

    Returns:
        What the index has to say of itself: key and maker.
    """
    facts = (f"{FORMAT}:{fingerprint}", maker)
    sql.execute("INSERT INTO facts SELECT ?, ? WHERE NOT EXISTS (SELECT * FROM facts)", facts)
    if sql.execute("SELECT key FROM facts").fetchone()[0] == f"{_OLDER}:{fingerprint}":
        _upgrade(sql)
        sql.execute("UPDATE facts SET key = ?", facts[:1])
    return facts


def _upgrade(sql: sqlite3.Connection) -> None:
    """Add what version 1 lacks, out of the passages that it has: no file is read for it."""
    for statement in _LATER:
        sql.execute(statement)
    sql.execute(
        "UPDATE files SET reader = (SELECT kind FROM contents WHERE id = content) "
        "WHERE content IS NOT NULL"
    )
    for (content,) in sql.execute("SELECT id FROM contents").fetchall():
        passages = "SELECT first, last, heading, text FROM chunks WHERE content = ? ORDER BY number"
        rows = sql.execute(passages, (content,)).fetchall()
        index_words(sql, content, (Chunk(*row) for row in rows))


def sealed(vectors: NDArray[np.float32], digest: bytes, kind: str) -> bytes:
    """Vectors of a content's passages as they lie in the file."""
    return seal(vectors.astype("<f2").tobytes(), digest, kind)


def unsealed(block: bytes, digest: bytes, kind: str, dimension: int) -> NDArray[np.float16] | None:
    """Vectors `[m, dim]` out of the file; None = they are not those that were written."""
    numbers = unseal(block, digest, kind)
    if numbers is None or len(numbers) % (2 * dimension):
        return None
    return np.frombuffer(numbers, "<f2").reshape(-1, dimension)


def blocks_of(
    sql: sqlite3.Connection, wanted: Iterable[int], dimension: int, damaged: list[int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]]:
    """Ids of contents, numbers of passages in them, and vectors `[m, dim]`, in pieces.

    Contents whose vectors are damaged are left out and added to `damaged`.
    """
    wanted = set(wanted)
    contents: list[int] = []
    blobs: list[NDArray[np.float16]] = []
    size = 0
    query = "SELECT id, hash, kind, vectors FROM contents ORDER BY id"
    for content, digest, kind, block in sql.execute(query):
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


def _joined(
    contents: list[int], blobs: list[NDArray[np.float16]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]:
    sizes = [len(vectors) for vectors in blobs]
    numbers = np.concatenate([np.arange(size) for size in sizes])
    return np.repeat(contents, sizes), numbers, np.concatenate(blobs)

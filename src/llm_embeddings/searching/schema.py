"""The tables of an index, how one of an earlier version gets what it lacks; vectors in pieces."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..ranking.sealed_words import SCHEMA, SealedWords
from ..storage.blocks import unseal
from ..storage.sqlite import Kind
from .chunks import LIMIT, OVERLAP
from .rows import SEALS, Part, put_part, seal_all, unsealed

# Passages that were cut otherwise do not mix, and earlier versions must not write into an index
# whose words they would not keep in step: raise the number when either changes.
FORMAT, _SECOND, _FIRST = (f"{number}:{LIMIT}:{OVERLAP}" for number in (3, 2, 1))
_BLOCK = 16384
_LATER = (
    SCHEMA[0],
    # Vectors of `passages` passages of a file, from number `first` on, while it is being embedded.
    """CREATE TABLE unfinished (
        hash BLOB NOT NULL, kind TEXT NOT NULL, first INTEGER NOT NULL, passages INTEGER NOT NULL,
        vectors BLOB NOT NULL, PRIMARY KEY (hash, kind, first))""",
    "ALTER TABLE files ADD COLUMN reader TEXT NOT NULL DEFAULT ''",
    "CREATE TABLE roots (path BLOB PRIMARY KEY)",
)
_LATEST = (*SEALS, *SCHEMA[1:])
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
        *_LATEST,
    ),
    pragmas=("auto_vacuum = FULL",),  # the file shrinks when something is dropped
)


def begin(
    sql: sqlite3.Connection, words: SealedWords, fingerprint: str, maker: str
) -> tuple[str, str]:
    """Say in a new index what decides its vectors, and bring one of an earlier version up to date.

    An index of another model is left as it is.

    Args:
        sql: In a transaction.
        words: Its index of words.
        fingerprint: What decides vectors.
        maker: The model's name.

    Returns:
        What the index has to say of itself: key and maker.
    """
    facts = (f"{FORMAT}:{fingerprint}", maker)
    (key,) = sql.execute("SELECT key FROM facts").fetchone() or (None,)
    if key is None:
        sql.execute("INSERT INTO facts VALUES (?, ?)", facts)
        words.make(sql, ())
    elif key in (f"{_FIRST}:{fingerprint}", f"{_SECOND}:{fingerprint}"):
        _upgrade(sql, first=key.startswith(_FIRST))
        words.doubt(sql)
        sql.execute("UPDATE facts SET key = ?", facts[:1])
    return facts


def is_newer(key: str) -> bool:
    """Whether a later version of this package has written an index, by the key in it."""
    number = key.partition(":")[0]
    return number.isdigit() and int(number) > int(FORMAT.partition(":")[0])


def _upgrade(sql: sqlite3.Connection, *, first: bool) -> None:
    """Add what an earlier version lacks, out of what it has: no file is read for it."""
    for statement in (*(_LATER if first else ()), *_LATEST):
        sql.execute(statement)
    if first:
        sql.execute(
            "UPDATE files SET reader = (SELECT kind FROM contents WHERE id = content) "
            "WHERE content IS NOT NULL"
        )
    seal_all(sql)
    query = "SELECT hash, kind, first, passages, vectors FROM unfinished"
    for digest, kind, number, passages, block in sql.execute(query).fetchall():
        numbers = unseal(block, digest, f"{kind} {number}", older=False)
        if numbers is not None:
            vectors = np.frombuffer(numbers, "<f2").reshape(passages, -1).astype("<f4")
            put_part(sql, Part(digest, kind, number, vectors))


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

"""The tables of an index, and how the vectors in them are written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..storage.blocks import seal, unseal
from ..storage.sqlite import Kind
from .chunks import LIMIT, OVERLAP

# Passages that were read or cut otherwise do not mix: raise the number when that changes.
FORMAT = f"1:{LIMIT}:{OVERLAP}"
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
    ),
    pragmas=("auto_vacuum = FULL",),  # the file shrinks when something is dropped
)


def sealed(vectors: NDArray[np.float32], digest: bytes, kind: str) -> bytes:
    """Vectors of a content's passages as they lie in the file."""
    return seal(vectors.astype("<f2").tobytes(), digest, kind)


def unsealed(block: bytes, digest: bytes, kind: str, dimension: int) -> NDArray[np.float16] | None:
    """Vectors `[m, dim]` out of the file; None = they are not those that were written."""
    numbers = unseal(block, digest, kind)
    if numbers is None or len(numbers) % (2 * dimension):
        return None
    return np.frombuffer(numbers, "<f2").reshape(-1, dimension)

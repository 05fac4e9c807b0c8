"""Vectors kept between calls, runs and processes, in one SQLite file.

What is kept is the pooled state, before it is normalised, cut or quantised: one entry serves calls
with any of these options. A key names all that decides the state: weights, tokenizer, dtype,
recipe, role, instruction, limit and text. What it does not name only rounds otherwise: the device
and the texts that shared a pass.
"""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..faces import init_checked
from ..storage.blocks import seal, unseal
from ..storage.sqlite import Database, Kind, transaction
from ..vectors import Vectors

_AT_ONCE = 500  # SQLite's least limit of variables is 999
_LEAST_BYTES = 2**20
_KEPT_SHARE = 0.9  # of the bound, after entries have been dropped
_SECONDS_PER_DAY = 86400
_KIND = Kind(
    name="a cache of vectors",
    remedy="delete it or name another file",
    tables=frozenset({"vectors"}),
    schema=(
        "CREATE TABLE vectors (key BLOB PRIMARY KEY, used INTEGER NOT NULL, vector BLOB NOT NULL)",
        "CREATE INDEX used ON vectors (used)",
    ),
    application=0x6C6C6D65,  # "llme"
    version=2,
    older=frozenset((1,)),  # has states without seals
    pragmas=("journal_mode = WAL",),
    each=("synchronous = NORMAL",),  # in WAL mode safe from kills
)


@init_checked
class VectorCache:
    """Pooled states by key; threads, forked children and other processes may use the same file.

    Example:
        >>> encoder = Encoder.from_pretrained(vector_cache="vectors.sqlite")  # doctest: +SKIP
        >>> encoder.vector_cache.hit_rate  # doctest: +SKIP

    Attributes:
        path: The file; SQLite keeps `-wal` and `-shm` beside it while it is open.
        max_bytes: Bound of its size. Beyond it the entries go that were not used for longest,
            counted in days, and of those of one day the oldest.
        hits: States found, by this object.
        misses: States asked for and not found.
    """

    def __init__(self, path: str | Path, *, max_bytes: int = 8 * 2**30) -> None:
        """Open a file or begin one. It must not lie on a network file system.

        Args:
            path: The file; its directory must exist.
            max_bytes: Bound of its size, a mebibyte or more.

        Raises:
            FileNotFoundError: the directory does not exist.
            ValueError: the file is no cache, of another version, or damaged; or the bound is.
        """
        self.path, self.max_bytes = Path(path).expanduser(), max_bytes
        if max_bytes < _LEAST_BYTES:
            raise ValueError(f"max_bytes={max_bytes} is less than a mebibyte, {_LEAST_BYTES}")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}, where the cache goes, does not exist")
        self.hits = self.misses = 0
        self._file = Database(self.path, _KIND)
        self._older = self._file.version in _KIND.older

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.max_bytes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Entries in the file."""
        with self._file.used() as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def __repr__(self) -> str:
        return f"VectorCache({str(self.path)!r}, hits={self.hits}, misses={self.misses})"

    @property
    def hit_rate(self) -> float:
        """Share of the states asked for that were there; 0 before the first."""
        return self.hits / max(1, self.hits + self.misses)

    @property
    def nbytes(self) -> int:
        """Bytes of the file that are in use."""
        with self._file.used() as connection:
            return _size(connection)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """States `[dim]`, float32, of the keys that are there.

        One that is not as it was written counts as not there.

        Raises:
            ValueError: the file is damaged.
        """
        found: dict[bytes, Vectors] = {}
        old: list[tuple[bytes]] = []
        today = _today()
        with self._file.used() as connection:
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, used, vector FROM vectors WHERE key IN ({marks})"
                for key, used, block in connection.execute(query, part):
                    numbers = unseal(block, key, older=self._older)
                    if numbers is None or len(numbers) % 4:
                        continue
                    found[key] = np.frombuffer(numbers, "<f4")
                    if used != today:
                        old.append((key,))
            hits = sum(key in found for key in keys)
            self.hits, self.misses = self.hits + hits, self.misses + len(keys) - hits
        if old:
            self._write(f"UPDATE vectors SET used = {today} WHERE key = ?", old)
        return found

    def put(self, states: Mapping[bytes, Vectors]) -> None:
        """Keep states `[dim]`. Where the disk or another process forbids it, warn and go on."""
        today = _today()
        rows = [
            (key, today, seal(np.asarray(state, "<f4").tobytes(), key))
            for key, state in states.items()
        ]
        if rows:
            self._write("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def clear(self) -> None:
        """Drop all entries."""
        with self._file.used() as connection:
            connection.execute("DELETE FROM vectors")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement; if the disk is full or the file locked, warn: no vector may be lost."""
        with self._file.used() as connection:
            try:
                with transaction(connection):
                    connection.executemany(statement, rows)
                    self._drop_oldest(connection)
            except sqlite3.OperationalError as error:
                warnings.warn(
                    f"{len(rows)} vectors are not kept in {self.path}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _drop_oldest(self, connection: sqlite3.Connection) -> None:
        size = _size(connection)
        if size <= self.max_bytes:
            return
        count = connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
        surplus = max(1, int(count * (1 - _KEPT_SHARE * self.max_bytes / size)))
        connection.execute(
            "DELETE FROM vectors WHERE rowid IN "
            "(SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?)",
            (surplus,),
        )


def _reopened(path: Path, max_bytes: int) -> VectorCache:
    return VectorCache(path, max_bytes=max_bytes)


def _size(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _today() -> int:
    return int(time.time()) // _SECONDS_PER_DAY

"""The SQLite file of an index: one row per document, with its vector."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..ranking import fulltext
from ..storage.blocks import seal, unseal
from ..storage.sqlite import Database, Kind, transaction
from ..vectors import Vectors
from .documents import Document, Row, digest_of

_KIND = Kind(
    name="an index of documents",
    remedy="delete it or name another",
    tables=frozenset({"facts", "documents"}),
    schema=(
        "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE TABLE IF NOT EXISTS documents (
            id TEXT PRIMARY KEY, parent TEXT NOT NULL, digest TEXT NOT NULL,
            text TEXT NOT NULL, metadata TEXT NOT NULL, vector BLOB NOT NULL)""",
        "CREATE INDEX IF NOT EXISTS parents ON documents (parent)",
        fulltext.SCHEMA,
    ),
)
# Version 1 has no index of words, and would not keep one in step.
VERSION, _OLDER = "2", "1"
_COLUMNS = "SELECT id, digest, text, vector, metadata FROM documents"


class DamagedRows(ValueError):
    """Vectors or texts are not those that were written.

    Attributes:
        whole: Documents whose texts are as they were, so that their vectors can be made again.
        lost: Ids of the others.
    """

    def __init__(self, where: str, whole: list[Document], lost: list[str]) -> None:
        """Say what to do about it."""
        self.whole, self.lost = whole, lost
        names = [*lost, *(one.id for one in whole)]
        super().__init__(
            f"{where} is damaged: {len(names)} documents are not those that were written "
            f"({', '.join(map(repr, names[:3]))}). Add them again, or delete them"
        )


def _numbers(row: tuple[str, str, str, bytes]) -> bytes | None:
    """The vector in a row of id, digest, text and vector; None = one of these has changed."""
    name, digest, text, block = row
    return unseal(block, name, digest, text)


def _remove(sql: sqlite3.Connection, numbers: Collection[int]) -> None:
    fulltext.remove(sql, numbers)
    sql.executemany("DELETE FROM documents WHERE rowid = ?", ((number,) for number in numbers))


def _upgrade(sql: sqlite3.Connection, facts: Mapping[str, str]) -> dict[str, str]:
    """Index the words of the texts that a file of version 1 holds; what it says of itself then."""
    sql.execute(fulltext.SCHEMA)
    fulltext.add(sql, sql.execute("SELECT rowid, text FROM documents").fetchall())
    sql.execute("UPDATE facts SET value = ? WHERE name = 'version'", (facts["version"],))
    return dict(facts)


class Table:
    """Rows in a file or in memory; what one call changes is committed at once or not at all."""

    def __init__(self, path: str | Path | None, facts: Mapping[str, str]) -> None:
        """Open a file or begin one.

        Args:
            path: The file; None = in memory.
            facts: What decides vectors; the same for all that are in the file. "version" is
                `VERSION`.

        Raises:
            ValueError: the file is no index, cannot be used, or was made with other facts.
        """
        self.name = "this index" if path is None else str(Path(path).expanduser())
        self._file = Database(None if path is None else Path(path).expanduser(), _KIND)
        with self._file.used() as sql, transaction(sql):
            sql.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", facts.items())
            known = dict(sql.execute("SELECT name, value FROM facts"))
            if known == {**facts, "version": _OLDER}:
                known = _upgrade(sql, facts)
        for name, value in facts.items():
            if known.get(name) != value:
                self.close()
                raise ValueError(
                    f"{self.name} was made with {name} {known.get(name)} and this is {name} "
                    f"{value}: "
                    "use the encoder and options it was made with, or another file. Version 0.1 "
                    "named every model otherwise"
                )

    def __len__(self) -> int:
        with self._file.used() as sql:
            return int(sql.execute("SELECT count(*) FROM documents").fetchone()[0])

    def digests(self, ids: Iterable[str]) -> dict[str, str]:
        """Digests of documents that are there as they were written, by id."""
        with self._file.used() as sql:
            rows = [sql.execute(f"{_COLUMNS} WHERE id = ?", (i,)).fetchone() for i in ids]
        there = [row for row in rows if row is not None and _numbers(row[:4]) is not None]
        return {row[0]: row[1] for row in there}

    def put(self, rows: Sequence[Row], parents: Iterable[str]) -> None:
        """Write rows; those without a vector keep the one that is there.

        Args:
            rows: New rows, and rows whose metadata alone may have changed.
            parents: All other rows of these documents are removed.
        """
        with self._file.used() as sql, transaction(sql):
            names = {row.document.id for row in rows}
            query = "SELECT rowid, id FROM documents WHERE parent = ?"
            old = [row for parent in parents for row in sql.execute(query, (parent,))]
            _remove(sql, [number for number, name in old if name not in names])
            for row in rows:
                one, facts = row.document, json.dumps(row.document.metadata)
                if row.vector is None:
                    change = "UPDATE documents SET metadata = ? WHERE id = ?"
                    sql.execute(change, (facts, one.id))
                    continue
                numbers = np.asarray(row.vector, "<f4").tobytes()
                vector = seal(numbers, one.id, row.digest, one.text)
                replaced = sql.execute("SELECT rowid FROM documents WHERE id = ?", (one.id,))
                _remove(sql, [number for (number,) in replaced.fetchall()])
                added = sql.execute(
                    "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                    (one.id, row.parent, row.digest, one.text, facts, vector),
                )
                fulltext.add(sql, [(added.lastrowid or 0, one.text)])

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents and chunks of documents; returns how many."""
        pairs = [(name, name) for name in ids]
        with self._file.used() as sql, transaction(sql):
            query = "SELECT rowid FROM documents WHERE id = ? OR parent = ?"
            gone = {number for pair in pairs for (number,) in sql.execute(query, pair)}
            _remove(sql, gone)
        return len(gone)

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """Documents that are there, by id.

        Raises:
            DamagedRows: one is not as it was written.
        """
        with self._file.used() as sql:
            rows = [sql.execute(f"{_COLUMNS} WHERE id = ?", (i,)).fetchone() for i in ids]
        return {row[0]: self._document(row) for row in rows if row is not None}

    def all(self) -> list[Document]:
        """All documents, in the order they came.

        Raises:
            DamagedRows: one is not as it was written.
        """
        with self._file.used() as sql:
            rows = sql.execute(f"{_COLUMNS} ORDER BY rowid").fetchall()
        return list(map(self._document, rows))

    def _document(self, row: tuple[str, str, str, bytes, str]) -> Document:
        name, _, text, _, metadata = row
        if _numbers(row[:4]) is None:
            raise DamagedRows(self.name, [], [name])
        return Document(name, text, json.loads(metadata))

    def vectors(self, dimension: int) -> tuple[list[str], NDArray[np.int64], Vectors]:
        """All ids, numbers `[n]` and vectors `[n, dimension]`, in the order they came.

        Raises:
            DamagedRows: some are not as they were written.
        """
        query = "SELECT id, digest, text, vector, rowid FROM documents ORDER BY rowid"
        blocks, whole, lost = [], [], []
        with self._file.used() as sql:
            rows = sql.execute(query).fetchall()
        for row in rows:
            numbers = _numbers(row[:4])
            if numbers is not None and len(numbers) == 4 * dimension:
                blocks.append(numbers)
            elif isinstance(row[2], str) and digest_of(row[2]) == row[1]:
                whole.append(Document(row[0], row[2]))
            else:
                lost.append(str(row[0]))
        if whole or lost:
            raise DamagedRows(self.name, whole, lost)
        matrix = np.frombuffer(b"".join(blocks), "<f4").reshape(-1, dimension)
        return [row[0] for row in rows], np.array([row[4] for row in rows], np.int64), matrix

    def words(self, query: str, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """BM25 of the documents with some numbers, ascending, `[n]`; 0 where no word is shared."""
        with self._file.used() as sql:
            return fulltext.scores(sql, query, numbers)

    def mend(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write vectors `[n, dimension]` of documents anew, whose texts are as they were."""
        with self._file.used() as sql, transaction(sql):
            for one, vector in zip(documents, vectors, strict=True):
                numbers = np.asarray(vector, "<f4").tobytes()
                block = seal(numbers, one.id, digest_of(one.text), one.text)
                sql.execute("UPDATE documents SET vector = ? WHERE id = ?", (block, one.id))

    def save(self, path: Path) -> None:
        """Copy the file; the copy is there whole or not at all."""
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        copy = sqlite3.connect(part)
        try:
            with self._file.used() as sql:
                sql.backup(copy)
        finally:
            copy.close()
        part.replace(path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

"""The SQLite file of an index: one row per document, with its vector."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ranking import fulltext
from ..ranking.sealed_words import SCHEMA, SealedWords
from ..storage.blocks import row_checksum, seal, unseal
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
        _SEALS := "ALTER TABLE documents ADD COLUMN seal INTEGER NOT NULL DEFAULT 0",
        *SCHEMA,
    ),
)
# Version 1 has no index of words, version 2 seals vectors alone; neither would keep them in step.
VERSION, _SECOND, _FIRST = "3", "2", "1"
_COLUMNS = "SELECT id, parent, digest, text, metadata, seal, vector, rowid FROM documents"


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


def _sealed(row: tuple[Any, ...]) -> bool:
    """Whether what a row of `_COLUMNS` says of a document is as it was written."""
    return bool(row_checksum(*row[:5]) == row[5])


def _numbers(row: tuple[Any, ...]) -> bytes | None:
    """The vector in a row of `_COLUMNS`; None = something in the row has changed."""
    name, _, digest, text = row[:4]
    return unseal(row[6], name, digest, text) if _sealed(row) else None


def _bytes_of(name: str) -> bytes:
    """An id as it lies in the file, also one that a disk has changed."""
    return name.encode(errors="surrogateescape")


def _upgrade(sql: sqlite3.Connection, words: SealedWords) -> None:
    """Add what an earlier version lacks, out of what it has: nothing is embedded for it."""
    for statement in (_SEALS, *SCHEMA):
        sql.execute(statement)
    rows = sql.execute("SELECT rowid, id, parent, digest, text, metadata FROM documents").fetchall()
    seals = ((row_checksum(*row), number) for number, *row in rows)
    sql.executemany("UPDATE documents SET seal = ? WHERE rowid = ?", seals)
    sql.execute("UPDATE facts SET value = ? WHERE name = 'version'", (VERSION,))
    words.doubt(sql)


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
        self._words, self._ordered = SealedWords(), path is None
        self._file = Database(None if path is None else Path(path).expanduser(), _KIND)
        with self._file.used() as sql, transaction(sql):
            known = dict(sql.execute("SELECT name, value FROM facts"))
            if not known:
                sql.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
                self._words.make(sql, ())
                known = dict(facts)
            elif any(known == {**facts, "version": older} for older in (_SECOND, _FIRST)):
                _upgrade(sql, self._words)
                known = dict(facts)
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
        there = [row for row in self._rows(ids) if _numbers(row) is not None]
        return {row[0]: row[2] for row in there}

    def put(self, rows: Sequence[Row], parents: Iterable[str]) -> None:
        """Write rows; those without a vector keep the one that is there.

        Args:
            rows: New rows, and rows whose metadata alone may have changed.
            parents: All other rows of these documents are removed.
        """
        self._check_order()
        with self._file.used() as sql, transaction(sql):
            names = {row.document.id for row in rows}
            query = "SELECT rowid, id FROM documents WHERE parent = ?"
            old = [row for parent in parents for row in sql.execute(query, (parent,))]
            self._remove(sql, [number for number, name in old if name not in names])
            for row in rows:
                one, facts = row.document, json.dumps(row.document.metadata)
                said = one.id, row.parent, row.digest, one.text, facts
                if row.vector is None:
                    change = "UPDATE documents SET parent = ?, metadata = ?, seal = ? WHERE id = ?"
                    sql.execute(change, (row.parent, facts, row_checksum(*said), one.id))
                    continue
                numbers = np.asarray(row.vector, "<f4").tobytes()
                vector = seal(numbers, one.id, row.digest, one.text)
                replaced = sql.execute("SELECT rowid FROM documents WHERE id = ?", (one.id,))
                self._remove(sql, [number for (number,) in replaced.fetchall()])
                added = sql.execute(
                    "INSERT INTO documents (id, parent, digest, text, metadata, vector, seal) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*said, vector, row_checksum(*said)),
                )
                self._words.add(sql, [(added.lastrowid or 0, one.text)])

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents and chunks of documents; returns how many."""
        self._check_order()
        names = [_bytes_of(name) for name in ids]
        with self._file.used() as sql, transaction(sql):
            query = "SELECT rowid FROM documents WHERE {} = CAST(? AS TEXT)"
            gone = {
                number
                for column in ("id", "parent")
                for name in names
                for (number,) in sql.execute(query.format(column), (name,))
            }
            self._remove(sql, gone)
        return len(gone)

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """Documents that are there, by id.

        Raises:
            DamagedRows: one is not as it was written.
        """
        return {row[0]: self._document(row) for row in self._rows(ids)}

    def at(self, numbers: Iterable[int]) -> dict[int, Document]:
        """Documents that are there, by number.

        Raises:
            DamagedRows: one is not as it was written.
        """
        query = f"{_COLUMNS} WHERE rowid = ?"
        with self._file.used() as sql:
            rows = [sql.execute(query, (number,)).fetchone() for number in numbers]
        return {row[7]: self._document(row) for row in rows if row is not None}

    def all(self) -> list[Document]:
        """All documents, in the order they came.

        Raises:
            DamagedRows: one is not as it was written.
        """
        with self._file.used() as sql:
            rows = sql.execute(f"{_COLUMNS} ORDER BY rowid").fetchall()
        return list(map(self._document, rows))

    def _rows(self, ids: Iterable[str]) -> list[tuple[Any, ...]]:
        """Rows of `_COLUMNS` that are there, by ids."""
        query = f"{_COLUMNS} WHERE id = CAST(? AS TEXT)"
        with self._file.used() as sql:
            rows = [sql.execute(query, (_bytes_of(name),)).fetchone() for name in ids]
        return [row for row in rows if row is not None]

    def _document(self, row: tuple[Any, ...]) -> Document:
        if not _sealed(row):
            raise DamagedRows(self.name, [], [str(row[0])])
        return Document(row[0], row[3], json.loads(row[4]))

    def vectors(self, dimension: int) -> tuple[NDArray[np.int64], Vectors]:
        """All numbers `[n]` and vectors `[n, dimension]`, in the order they came.

        Raises:
            DamagedRows: some are not as they were written.
        """
        self._check_order()
        blocks, whole, lost = [], [], []
        with self._file.used() as sql:
            rows = sql.execute(f"{_COLUMNS} ORDER BY rowid").fetchall()
        for row in rows:
            numbers = _numbers(row)
            if numbers is not None and len(numbers) == 4 * dimension:
                blocks.append(numbers)
            elif _sealed(row) and digest_of(row[3]) == row[2]:
                whole.append(Document(row[0], row[3]))
            else:
                lost.append(str(row[0]))
        if whole or lost:
            raise DamagedRows(self.name, whole, lost)
        matrix = np.frombuffer(b"".join(blocks), "<f4").reshape(-1, dimension)
        return np.array([row[7] for row in rows], np.int64), matrix

    def words(self, query: str, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """BM25 of the documents with some numbers, ascending, `[n]`; 0 where no word is shared.

        Raises:
            DamagedRows: the index of words has to be made again, and a text is not as it was.
        """
        self._settle()
        with self._file.used() as sql:
            return fulltext.scores(sql, query, numbers)

    def _settle(self) -> None:
        """Seal the index of words; make it again if it is not as it was written."""
        with self._file.used() as sql:
            if self._words.sealed(sql):
                return
            with transaction(sql):
                if self._words.whole(sql):
                    self._words.seal(sql)
                    return
                rows = sql.execute(f"{_COLUMNS} ORDER BY rowid").fetchall()
                self._words.make(sql, ((row[7], self._document(row).text) for row in rows))

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
                self._words.seal(sql)
                sql.backup(copy)
        finally:
            copy.close()
        part.replace(path)

    def close(self) -> None:
        """Close the file."""
        with suppress(ValueError), self._file.used() as sql, transaction(sql):
            self._words.seal(sql)
        self._file.close()

    def _check_order(self) -> None:
        """Check once that SQLite finds all rows, so that none is left out or there twice."""
        if not self._ordered:
            self._file.check_order("documents")
            self._ordered = True

    def _remove(self, sql: sqlite3.Connection, numbers: Collection[int]) -> None:
        self._words.remove(sql, numbers)
        rows = ((number,) for number in numbers)
        sql.executemany("DELETE FROM documents WHERE rowid = ?", rows)

"""The SQLite file of an index: one row per document, with its vector."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..inputs import check_texts
from ..storage.blocks import seal, unseal
from ..storage.sqlite import Database, Kind, transaction
from ..tokens import without_lone_surrogates
from ..vectors import Vectors

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
    ),
)
_COLUMNS = "SELECT id, digest, text, vector, metadata FROM documents"


@dataclass(frozen=True, slots=True)
class Document:
    """A text in an index.

    Attributes:
        id: Its name.
        text: The text.
        metadata: What the caller wants to know of it; JSON.
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A document on its way into the file.

    Attributes:
        document: The document.
        parent: The document it is a chunk of, or its own id.
        digest: Says whether the vector of a row with this id is still that of the document.
        vector: `[dim]`, float32, unit length; None = not needed, or not there yet.
    """

    document: Document
    parent: str
    digest: str
    vector: Vectors | None = None


def documents_of(
    texts: Sequence[str],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
) -> tuple[list[str], list[Document]]:
    """The id of each text, and each document once; checked before any of them is embedded.

    Arguments and errors are those of `DocumentIndex.add`.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string: pass a list of documents")
    strings = list(map(without_lone_surrogates, check_texts(texts)[0]))
    names = [digest_of(text)[:16] for text in strings] if ids is None else list(ids)
    facts = [{} for _ in strings] if metadata is None else [dict(one) for one in metadata]
    if not len(strings) == len(names) == len(facts):
        raise ValueError(
            f"{len(strings)} texts, {len(names)} ids and {len(facts)} metadata: give one of each "
            "per text"
        )
    seen: dict[str, Document] = {}
    for name, text, fact in zip(names, strings, facts, strict=True):
        if not isinstance(name, str):
            raise TypeError(f"id {name!r} is {type(name).__name__}, not a string")
        if name in seen and seen[name].text != text:
            raise ValueError(f"id {name!r} is given to two texts")
        try:
            json.dumps(fact)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metadata of {name!r} are not JSON: {error}") from error
        seen[name] = Document(name, text, fact)
    return names, list(seen.values())


def digest_of(text: str) -> str:
    """A name for exactly this text."""
    return hashlib.sha256(text.encode()).hexdigest()


def chunk_rows(whole: Document, spans: Sequence[tuple[int, int]], *, late: bool) -> list[Row]:
    """Rows of a document's chunks; with `late`, their digests depend on the whole document."""
    context = digest_of(whole.text) if late else ""
    rows = []
    for number, (start, end) in enumerate(spans):
        text = whole.text[start:end]
        metadata = {**whole.metadata, "parent": whole.id, "start": start, "end": end}
        digest = digest_of(f"{context} {start} {end}\n{text}") if late else digest_of(text)
        rows.append(Row(Document(f"{whole.id}#{number}", text, metadata), whole.id, digest))
    return rows


def span_of(row: Row) -> tuple[int, int]:
    """Begin and end of a chunk in its document, in characters."""
    return row.document.metadata["start"], row.document.metadata["end"]


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


class Table:
    """Rows in a file or in memory; what one call changes is committed at once or not at all."""

    def __init__(self, path: str | Path | None, facts: Mapping[str, str]) -> None:
        """Open a file or begin one.

        Args:
            path: The file; None = in memory.
            facts: What decides vectors; the same for all that are in the file.

        Raises:
            ValueError: the file is no index, cannot be used, or was made with other facts.
        """
        self.name = "this index" if path is None else str(Path(path).expanduser())
        self._file = Database(None if path is None else Path(path).expanduser(), _KIND)
        with self._file.used() as sql, transaction(sql):
            sql.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", facts.items())
            known = dict(sql.execute("SELECT name, value FROM facts"))
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
            query = "SELECT id FROM documents WHERE parent = ?"
            old = [row for parent in parents for row in sql.execute(query, (parent,))]
            gone = [row for row in old if row[0] not in names]
            sql.executemany("DELETE FROM documents WHERE id = ?", gone)
            for row in rows:
                one, facts = row.document, json.dumps(row.document.metadata)
                if row.vector is None:
                    change = "UPDATE documents SET metadata = ? WHERE id = ?"
                    sql.execute(change, (facts, one.id))
                    continue
                numbers = np.asarray(row.vector, "<f4").tobytes()
                vector = seal(numbers, one.id, row.digest, one.text)
                sql.execute(
                    "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)",
                    (one.id, row.parent, row.digest, one.text, facts, vector),
                )

    def delete(self, ids: Iterable[str]) -> int:
        """Remove documents and chunks of documents; returns how many."""
        pairs = [(name, name) for name in ids]
        with self._file.used() as sql, transaction(sql):
            before = sql.total_changes
            sql.executemany("DELETE FROM documents WHERE id = ? OR parent = ?", pairs)
            return sql.total_changes - before

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

    def vectors(self, dimension: int) -> tuple[list[str], Vectors]:
        """All ids and their vectors, `[n, dimension]`, in the order they came.

        Raises:
            DamagedRows: some are not as they were written.
        """
        query = "SELECT id, digest, text, vector FROM documents ORDER BY rowid"
        blocks, whole, lost = [], [], []
        with self._file.used() as sql:
            rows = sql.execute(query).fetchall()
        for row in rows:
            numbers = _numbers(row)
            if numbers is not None and len(numbers) == 4 * dimension:
                blocks.append(numbers)
            elif isinstance(row[2], str) and digest_of(row[2]) == row[1]:
                whole.append(Document(row[0], row[2]))
            else:
                lost.append(str(row[0]))
        if whole or lost:
            raise DamagedRows(self.name, whole, lost)
        matrix = np.frombuffer(b"".join(blocks), "<f4").reshape(-1, dimension)
        return [row[0] for row in rows], matrix

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

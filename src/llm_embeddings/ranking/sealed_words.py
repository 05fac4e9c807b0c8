"""The index of words of a file and its checksum: one that a disk has changed is made again.

A checksum of all of it is kept while nobody writes. Whoever writes takes it away, and puts another
one there when it is done; what a process left without a checksum, as when it was killed, is made
again from the texts.
"""

from __future__ import annotations

import sqlite3
import uuid
import zlib
from collections.abc import Iterable
from typing import Any

from . import fulltext

SCHEMA = (
    fulltext.SCHEMA,
    "CREATE TABLE word_seals (seal INTEGER, writer TEXT NOT NULL)",
)
_SEARCHED = tuple(f"{fulltext.TABLE}_{name}" for name in ("data", "idx", "docsize"))
_ROWS = (
    f"SELECT name, sql FROM sqlite_master WHERE name LIKE '{fulltext.TABLE}%' ORDER BY name",
    *(f"SELECT * FROM {fulltext.TABLE}_{name}" for name in ("data", "idx", "docsize", "content")),
    f"SELECT * FROM {fulltext.TABLE}_config WHERE k = 'version'",
)


class SealedWords:
    """The index of words of one file, as one process uses it; each call is within a transaction."""

    def __init__(self) -> None:
        self._writer = uuid.uuid4().hex
        self._checked: int | None = None

    def add(self, sql: sqlite3.Connection, texts: Iterable[tuple[int, str]]) -> None:
        """Index texts by numbers that are not in the index."""
        if self._taken(sql):
            fulltext.add(sql, texts)

    def remove(self, sql: sqlite3.Connection, numbers: Iterable[int]) -> None:
        """Forget texts."""
        if self._taken(sql):
            fulltext.remove(sql, numbers)

    def whole(self, sql: sqlite3.Connection) -> bool:
        """Whether the index is as it was written; all of it is read if another process wrote it."""
        seal, writer = _state(sql)
        if seal is None:
            return bool(writer == self._writer)
        if seal != self._checked and seal == _checksum(sql):
            self._checked = seal
        return bool(seal == self._checked)

    def sealed(self, sql: sqlite3.Connection) -> bool:
        """Whether the index is as it was written, and nobody has begun to write since."""
        return _state(sql)[0] is not None and self.whole(sql)

    def seal(self, sql: sqlite3.Connection) -> None:
        """Put the checksum there, if this process has written."""
        if _state(sql) == (None, self._writer):
            sql.execute("SAVEPOINT written")  # SQLite holds words back until there is one
            sql.execute("RELEASE written")
            self._checked = _checksum(sql)
            _note(sql, self._checked, "")

    def make(self, sql: sqlite3.Connection, texts: Iterable[tuple[int, str]]) -> None:
        """Throw the index away and make it of texts and their numbers."""
        sql.execute(f"DROP TABLE IF EXISTS {fulltext.TABLE}")
        sql.execute(fulltext.SCHEMA)
        fulltext.add(sql, texts)
        _note(sql, None, self._writer)
        self.seal(sql)

    def doubt(self, sql: sqlite3.Connection) -> None:
        """The index has to be made again, whatever is in it."""
        _note(sql, None, "")

    def _taken(self, sql: sqlite3.Connection) -> bool:
        """Take the checksum away; False = the index has to be made again, so it is left alone."""
        whole = self.whole(sql)
        if _state(sql) != (None, self._writer):
            _note(sql, None, self._writer if whole else "")
        return whole


def _state(sql: sqlite3.Connection) -> tuple[Any, Any]:
    """The checksum, None while somebody writes; and who that is."""
    found: tuple[Any, Any] | None = sql.execute("SELECT seal, writer FROM word_seals").fetchone()
    return found or (None, "")


def _note(sql: sqlite3.Connection, seal: int | None, writer: str) -> None:
    sql.execute("DELETE FROM word_seals")
    sql.execute("INSERT INTO word_seals VALUES (?, ?)", (seal, writer))


def _checksum(sql: sqlite3.Connection) -> int:
    """Of all rows in which SQLite keeps the index; -1 = they are not in order or unreadable."""
    try:
        return _of_rows(sql)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
            return -1
        raise


def _of_rows(sql: sqlite3.Connection) -> int:
    for table in _SEARCHED:
        if sql.execute(f"PRAGMA integrity_check({table})").fetchone() != ("ok",):
            return -1
    found = 0
    for query in _ROWS:
        for row in sql.execute(query):
            for value in row:
                data = value if isinstance(value, bytes) else ascii(value).encode()
                found = zlib.crc32(data, zlib.crc32(b"%d " % len(data), found))
    return found

"""SQLite files that threads, forked children and other processes share, and that kills leave whole.

Whose a file is gets checked before anything is changed in it. What is wrong with a file is said by
a `ValueError` that names it and what to do.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SECONDS_TO_WAIT = 60.0  # for another process's transaction
_CONTENTS = """
SELECT application_id, user_version, name FROM pragma_application_id, pragma_user_version
LEFT JOIN sqlite_master ON type = 'table' AND name NOT LIKE 'sqlite_%'
"""
_TABLES = """
SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
ORDER BY sql NOT LIKE 'CREATE VIRTUAL%'
"""
_DAMAGED = sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT


class DamagedError(ValueError):
    """The file is no SQLite file, or a broken one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What tells the files of one kind from others, and how a file of it begins.

    Attributes:
        name: What errors call such a file, as in "a cache of vectors".
        remedy: What to do about a file that is damaged or of another version.
        tables: Names of all its tables.
        schema: Statements that make them.
        application: SQLite's `application_id` in its files; 0 = only the tables tell them.
        version: SQLite's `user_version` in its files.
        older: Versions that are read and written as they are.
        pragmas: Pragmas of a new file, run before its tables are made.
        each: Pragmas run at each connection.
    """

    name: str
    remedy: str
    tables: frozenset[str]
    schema: tuple[str, ...]
    application: int = 0
    version: int = 0
    older: frozenset[int] = frozenset()
    pragmas: tuple[str, ...] = ()
    each: tuple[str, ...] = ()


class Database:
    """An open file, or one in memory: a connection that one thread uses at a time.

    Attributes:
        path: The file; None = in memory.
    """

    def __init__(self, path: Path | None, kind: Kind, *, rebuild: bool = False) -> None:
        """Open a file or begin one.

        Args:
            path: The file; None = in memory.
            kind: What it has to be.
            rebuild: Throw away what is in it.

        Raises:
            ValueError: it is of another kind or version, or cannot be used.
        """
        self.path, self._kind = path, kind
        try:
            self._open(rebuild=rebuild)
        except DamagedError:
            if path is None or not rebuild:
                raise
            path.unlink()
            self._open()

    @contextmanager
    def used(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread; each statement is a transaction, see `transaction`.

        Raises:
            ValueError: SQLite reports an error meanwhile.
        """
        if self._process != os.getpid() and self.path is not None:
            self._inherited = self._connection  # closing it here could take the parent's log away
            self._open()
        with self._lock, self._explained():
            yield self._connection

    @property
    def version(self) -> int:
        """The version that the file was begun with."""
        with self.used():
            return self._contents()[1]

    def check_order(self, table: str) -> None:
        """Check that SQLite finds the rows of a table; its indexes are mended, not its values.

        Raises:
            DamagedError: it does not.
        """
        with self.used() as sql:
            found = _disorder(sql, table)
            if found:
                with suppress(sqlite3.IntegrityError):
                    sql.execute(f"REINDEX {table}")
                found = _disorder(sql, table)
        if found:
            words = f"{self.path} cannot be read as {self._kind.name} ({found[0]})"
            raise DamagedError(f"{words}: {self._kind.remedy}")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._finalizer()

    def _open(self, *, rebuild: bool = False) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()
        with self._explained(), ExitStack() as undo:
            self._connection = sqlite3.connect(
                self.path or ":memory:",
                timeout=_SECONDS_TO_WAIT,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.text_factory = _text
            self._finalizer = weakref.finalize(self, _close, self._connection, self._process)
            undo.callback(self._finalizer)
            self._begin(rebuild=rebuild)
            undo.pop_all()

    def _begin(self, *, rebuild: bool) -> None:
        """Make the tables where there are none; other processes may be doing the same."""
        execute, kind = self._connection.execute, self._kind
        if rebuild or self._is_new():
            for pragma in kind.pragmas:
                execute(f"PRAGMA {pragma}")
            with transaction(self._connection):
                # A virtual table takes those in which it keeps its rows with it.
                for (name,) in execute(_TABLES).fetchall() if rebuild else ():
                    execute(f"DROP TABLE IF EXISTS {name}")
                if rebuild or self._is_new():
                    for statement in kind.schema:
                        execute(statement)
                    execute(f"PRAGMA application_id = {kind.application}")
                    execute(f"PRAGMA user_version = {kind.version}")
        for pragma in kind.each:
            execute(f"PRAGMA {pragma}")

    def _is_new(self) -> bool:
        """Whether there is nothing in the file; checks whose it is otherwise."""
        kind = self._kind
        application, version, tables = self._contents()
        if tables < kind.tables and (application, version) == (0, 0):
            return True
        known = bool(kind.application) or tables >= kind.tables
        if application != kind.application or not known:
            raise ValueError(f"{self.path} is not {kind.name}: name another file")
        if version != kind.version and version not in kind.older:
            raise ValueError(
                f"{self.path} is {kind.name} of version {version}, and this package writes "
                f"{kind.version}: {kind.remedy}"
            )
        return False

    def _contents(self) -> tuple[int, int, set[str]]:
        """Application, version and tables, in one statement: others may be beginning the file."""
        found = self._connection.execute(_CONTENTS).fetchall()
        return found[0][0], found[0][1], {name for _, _, name in found if name is not None}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors with the file's name and what to do."""
        try:
            yield
        except UnicodeDecodeError as error:  # the names of its tables have changed
            words = f"{self.path} cannot be read as {self._kind.name}"
            raise DamagedError(f"{words}: {self._kind.remedy}") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details above it
            if code in _DAMAGED:
                words = f"{self.path} cannot be read as {self._kind.name} ({error})"
                raise DamagedError(f"{words}: {self._kind.remedy}") from error
            words = f"{self.path or 'what is in memory'}: {error}"
            if code == sqlite3.SQLITE_BUSY:
                words = f"another process has been writing {self.path} for a minute: try again"
            elif code == sqlite3.SQLITE_FULL:
                words = f"no space left for {self.path}: what is finished is kept"
            elif code == sqlite3.SQLITE_CANTOPEN:
                words += ". Its directory must exist and be writable"
            raise ValueError(words) from error


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All of the statements or none.

    Args:
        connection: From `Database.used`.
        kind: "IMMEDIATE" waits for other writers now; "DEFERRED", which only reads, for none.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _disorder(sql: sqlite3.Connection, table: str) -> list[str]:
    """What SQLite says of a table and its indexes, but for the types of values."""
    said = [str(words) for (words,) in sql.execute(f"PRAGMA integrity_check({table})")]
    return [words for words in said if words != "ok" and " value in " not in words]


def _text(value: bytes) -> str:
    """A text; one that a disk has changed may be no UTF-8, and is left to whoever checks it."""
    return value.decode(errors="surrogateescape")


def _close(connection: sqlite3.Connection, process: int) -> None:
    """Close a connection where it was opened: a forked child must not."""
    if process == os.getpid():
        connection.close()

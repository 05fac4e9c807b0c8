"""What the SQLite files of caches and indexes share."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from llm_embeddings.rag.table import Table
from llm_embeddings.searching.index import Index
from llm_embeddings.searching.places import FILE
from llm_embeddings.storage.sqlite import Database, Kind, transaction

KIND = Kind("a list", "delete it", frozenset({"items"}), ("CREATE TABLE items (name TEXT)",))


def foreign(path: Path, *statements: str) -> bytes:
    """A file of another program; its bytes."""
    connection = sqlite3.connect(path)
    for statement in ("CREATE TABLE customers (name TEXT)", *statements):
        connection.execute(statement)
    connection.close()
    return path.read_bytes()


def insert(file: Database, *statements: str) -> None:
    """Execute statements in one transaction."""
    with file.used() as sql, transaction(sql):
        for statement in statements:
            sql.execute(statement)


def test_another_programs_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    before = foreign(path)
    with pytest.raises(ValueError, match=r"file\.db is not an index of documents: name another"):
        Table(path, {})
    assert path.read_bytes() == before
    Index(tmp_path / "index", "m", "m").close()
    path = tmp_path / "index" / FILE
    path.unlink()
    before = foreign(path, "PRAGMA user_version = 3")
    with pytest.raises(ValueError, match=r"index\.sqlite is not a search index: name another"):
        Index(tmp_path / "index", "m", "m")
    assert path.read_bytes() == before
    Index(tmp_path / "index", "m", "m", rebuild=True).close()
    Index(tmp_path / "index", "m", "m").close()


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    Table(tmp_path / "file.db", {}).close()
    with sqlite3.connect(tmp_path / "file.db") as later:
        later.execute("PRAGMA user_version = 7")
    later.close()
    with pytest.raises(ValueError, match=r"of version 7, and this package writes 0: delete it"):
        Table(tmp_path / "file.db", {})


def test_a_transaction_is_whole_or_not_there(tmp_path: Path) -> None:
    file = Database(tmp_path / "file.db", KIND)
    twice = "INSERT INTO items VALUES ('a'), ('a')", "INSERT INTO absent VALUES ('a')"
    with pytest.raises(ValueError, match=r"file\.db: no such table"):
        insert(file, *twice)
    insert(file, "INSERT INTO items VALUES ('b')")
    file.close()
    with Database(tmp_path / "file.db", KIND).used() as sql:
        assert sql.execute("SELECT name FROM items").fetchall() == [("b",)]


def test_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"none/file\.db: unable to open .* must exist"):
        Database(tmp_path / "none" / "file.db", KIND)
    monkeypatch.setattr("llm_embeddings.storage.sqlite._SECONDS_TO_WAIT", 0.01)
    file, other = Database(tmp_path / "file.db", KIND), Database(tmp_path / "file.db", KIND)
    busy = r"another process has been writing .*file\.db"
    with file.used() as sql, transaction(sql), pytest.raises(ValueError, match=busy):
        insert(other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a POSIX call")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_leaves_its_parents_connection_alone(tmp_path: Path) -> None:
    files = Database(tmp_path / "file.db", KIND), Database(None, KIND)
    for file in files:
        insert(file, "INSERT INTO items VALUES ('parent')")
    child = os.fork()
    if not child:
        found = []
        for file in files:
            with file.used() as sql:
                found += sql.execute("SELECT name FROM items").fetchall()
            file.close()
        os._exit(found != [("parent",)] * 2)
    assert os.waitpid(child, 0)[1] == 0
    for file in files:
        with file.used() as sql:
            assert sql.execute("SELECT count(*) FROM items").fetchone() == (1,)

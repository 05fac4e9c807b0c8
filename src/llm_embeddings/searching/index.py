"""The index on disk: one SQLite file, so that a kill or a second process leaves it whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..ranking.sealed_words import SealedWords
from ..storage.sqlite import Database, transaction
from .hits import Found, Query, numbered, orphans, rank
from .places import FILE, claim
from .rows import (
    Entry,
    Known,
    Part,
    all_passages,
    begun_parts,
    content_id,
    insert_content,
    known_files,
    put_file,
    put_part,
    put_roots,
)
from .schema import KIND, begin, blocks_of, is_newer
from .sources import File


class Index:
    """Passages and float16 vectors of files.

    Vectors are kept by content: a file that is moved, copied or only touched is not embedded again.
    """

    def __init__(
        self, directory: Path, fingerprint: str, maker: str, *, rebuild: bool = False
    ) -> None:
        """Open the index in a directory, or begin one in a new or empty directory.

        Args:
            directory: Where it is.
            fingerprint: What decides the vectors; another one than the index's is refused.
            maker: The model, for the message then.
            rebuild: Throw away what is there and begin anew.

        Raises:
            ValueError: the directory is another program's, the index another model's, or its file
                cannot be used.
            OSError: the directory cannot be written.
        """
        self._directory = directory
        claim(directory)
        self._words = SealedWords()
        self._file = Database(directory / FILE, KIND, rebuild=rebuild)
        try:
            with self._file.used() as sql, transaction(sql):
                self._facts = begin(sql, self._words, fingerprint, maker)
                self._check(sql)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def files(self) -> dict[str, Known]:
        """All files by absolute path; those not known as they were written are forgotten."""
        with self._file.used() as sql:
            found, damaged = known_files(sql)
        if damaged:
            for table in ("contents", "files"):
                self._file.check_order(table)
            with self._transaction() as sql:
                rows = [(number,) for number in damaged]
                sql.executemany("DELETE FROM files WHERE rowid = ?", rows)
        return found

    def link(self, file: File, digest: bytes, kind: str) -> bool:
        """Remember that a file holds a content that is known; False if it is not."""
        with self._transaction() as sql:
            content = content_id(sql, digest, kind)
            if content is not None:
                put_file(sql, file, content, "", kind)
            return content is not None

    def begun(self, digest: bytes, kind: str) -> list[NDArray[np.float32]]:
        """Vectors `[m, dim]` of the first passages of a content that was interrupted, in parts."""
        with self._transaction("DEFERRED") as sql:
            return begun_parts(sql, digest, kind)

    def add(self, entries: Iterable[Entry], part: Part | None = None) -> None:
        """Keep files with their passages: all of them or, when something fails, none.

        Args:
            entries: Contents and the files that hold them.
            part: The vectors of some passages of a content that is not complete yet.
        """
        with self._transaction() as sql:
            for entry in entries:
                content = content_id(sql, entry.digest, entry.kind)
                if content is None:
                    content = insert_content(sql, entry)
                    self._words.add(sql, numbered(content, entry.chunks))
                    gone = "DELETE FROM unfinished WHERE hash = ? AND kind = ?"
                    sql.execute(gone, (entry.digest, entry.kind))
                for file in entry.files:
                    put_file(sql, file, content, "", entry.kind)
            if part is not None:
                put_part(sql, part)

    def skip(self, file: File, reason: str, kind: str) -> None:
        """Remember that a file cannot be read as it is now, and why."""
        with self._transaction() as sql:
            put_file(sql, file, None, reason, kind)

    def searches(self, roots: Iterable[str]) -> None:
        """Remember what is searched with this index."""
        with self._transaction() as sql:
            put_roots(sql, list(roots))

    def leave_out(self, files: Iterable[tuple[File, str]]) -> None:
        """Remember files that were not looked into, and why; what is known of them stays."""
        with self._transaction() as sql:
            known = known_files(sql)[0]
            for file, reason in files:
                before = known.get(file.path)
                if before is None or before.content is None:
                    put_file(sql, replace(file, mtime_ns=-1), None, reason, "")
                else:
                    there = replace(file, size=before.size, mtime_ns=before.mtime_ns)
                    put_file(sql, there, before.content, reason, before.reader)

    def drop(self, paths: Iterable[str]) -> None:
        """Forget files, and contents that no file holds any more."""
        with self._transaction() as sql:
            sql.executemany(
                "DELETE FROM files WHERE path = ?", ((os.fsencode(path),) for path in paths)
            )
            sql.execute(
                "DELETE FROM contents WHERE id NOT IN "
                "(SELECT content FROM files WHERE content IS NOT NULL)"
            )
            self._words.remove(sql, orphans(sql))
            sql.execute("DELETE FROM chunks WHERE content NOT IN (SELECT id FROM contents)")
            # An update that comes here is complete: what was begun and is still there is of
            # contents that no file has any more, or of another process, which has it in memory.
            sql.execute("DELETE FROM unfinished")

    def best(self, query: Query, top: int, files: Mapping[str, int]) -> tuple[list[Found], int]:
        """The passages that fit a query best, best first, and how many were compared.

        Args:
            query: The query.
            top: How many hits are wanted.
            files: Paths to search, with the ids of their contents.

        Raises:
            ValueError: something is not as it was written; the next update makes it again.
        """
        if query.mode != "vector":
            self.settle()
        damaged: list[int] = []
        paths: dict[int, list[str]] = {}
        for path, content in files.items():
            paths.setdefault(content, []).append(path)
        with self._transaction("DEFERRED") as sql:
            blocks = blocks_of(sql, paths.keys(), len(query.vector), damaged)
            found = rank(sql, query, blocks, top, paths, damaged)
        self._forget(damaged)
        return found

    def settle(self) -> None:
        """Make the index of words again if it is not as it was written; seal it if it is.

        Raises:
            ValueError: passages are not as they were written; the next update makes them again.
        """
        with self._transaction("DEFERRED") as sql:
            if self._words.sealed(sql):
                return
        damaged: list[int] = []
        with self._transaction() as sql:
            if self._words.whole(sql):
                self._words.seal(sql)
            else:
                whole = all_passages(sql, damaged)
                self._words.make(sql, (one for found in whole for one in numbered(*found)))
        self._forget(damaged)

    def _forget(self, damaged: list[int]) -> None:
        """Take contents for new when their files are next looked at.

        Raises:
            ValueError: there are some.
        """
        if not damaged:
            return
        names: list[str] = []
        with self._transaction() as sql:
            self._words.doubt(sql)
            for content in damaged:
                rows = sql.execute("SELECT path FROM files WHERE content = ?", (content,))
                names += [os.fsdecode(path) for (path,) in rows]
                sql.execute("DELETE FROM files WHERE content = ?", (content,))
        self.drop(())
        raise ValueError(
            f"the index in {self._directory} is damaged: the passages of {len(names)} files are "
            f"not those that were written ({', '.join(sorted(names)[:3])}). Search again: they are "
            "made anew"
        )

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """All or nothing; waits for another process's transaction to end.

        Raises:
            ValueError: another process has rebuilt the index with another model meanwhile.
        """
        with self._file.used() as sql, transaction(sql, kind):
            self._check(sql)
            yield sql

    def _check(self, sql: sqlite3.Connection) -> None:
        nobody = ("", "a process that is rebuilding it")
        key, maker = sql.execute("SELECT key, maker FROM facts").fetchone() or nobody
        if key != self._facts[0]:
            if is_newer(key):
                raise ValueError(
                    f"the index in {self._directory} was made by a later version of this package: "
                    "pip install -U llm-embeddings; or --rebuild makes it anew, another --index "
                    "keeps both"
                )
            whose = "another version of it" if maker == self._facts[1] else maker
            raise ValueError(
                f"the index in {self._directory} was made by {whose}, not by {self._facts[1]}: "
                "--rebuild makes it anew, another --index keeps both"
            )

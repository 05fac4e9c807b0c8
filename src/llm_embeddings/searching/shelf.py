"""The indexes in the user's cache: listed, forgotten, and kept when their folder moves."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from .places import FILE, claim, is_index, shelf
from .rows import move_files, put_roots, roots_of
from .schema import is_newer

_COMPARED = 20  # files by which a folder that has moved is recognised


@dataclass(frozen=True, slots=True)
class Shelved:
    """An index in the cache.

    Attributes:
        directory: Where it lies.
        roots: What is searched with it; empty of an index of version 0.1.0.
        maker: Its model.
        files: How many files it knows the text of.
        passages: Their passages.
        size: Bytes on disk.
        used: When it was last written, in seconds since 1970.
    """

    directory: Path
    roots: tuple[str, ...]
    maker: str
    files: int
    passages: int
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Damaged:
    """An index in the cache that cannot be read.

    Attributes:
        directory: Where it lies.
        reason: SQLite's words.
    """

    directory: Path
    reason: str


def shelved() -> Iterator[Shelved | Damaged]:
    """All indexes in the cache."""
    if not shelf().is_dir():
        return
    for directory in sorted(shelf().iterdir()):
        if not is_index(directory) or not (directory / FILE).is_file():
            continue
        try:
            yield _shelved(directory)
        except sqlite3.Error as error:
            yield Damaged(directory, str(error))


def _shelved(directory: Path) -> Shelved:
    file = directory / FILE
    with closing(_opened(file)) as sql:
        maker = sql.execute("SELECT maker FROM facts").fetchone()
        files = sql.execute("SELECT count(*) FROM files WHERE content IS NOT NULL").fetchone()
        passages = sql.execute("SELECT count(*) FROM chunks").fetchone()
        return Shelved(
            directory,
            roots_of(sql),
            maker[0] if maker else "nobody yet",
            files[0],
            passages[0],
            sum(part.stat().st_size for part in directory.rglob("*") if part.is_file()),
            file.stat().st_mtime,
        )


def forget(directory: Path) -> None:
    """Remove an index.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the directory is not an index.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no index in {directory}: --list shows those there are")
    claim(directory)
    shutil.rmtree(directory)


def take_over(directory: Path, roots: Sequence[Path]) -> Path | None:
    """Let a folder that was moved have the index that it had where it was.

    An index is taken if what it searched is gone from its old place and the files it knows of are
    here, by name, size and time.

    Args:
        directory: Where the folder's index would be begun.
        roots: The folder, alone.

    Returns:
        Where the folder was; None if there is nothing to take.
    """
    if directory.exists() or len(roots) != 1 or not roots[0].is_dir() or not shelf().is_dir():
        return None
    new = os.path.normpath(roots[0].absolute())
    for other in sorted(shelf().iterdir()):
        if not is_index(other) or not (other / FILE).is_file():
            continue
        with suppress(sqlite3.Error), closing(_opened(other / FILE)) as sql:
            (key,) = sql.execute("SELECT key FROM facts").fetchone() or ("",)
            before = () if is_newer(key) else roots_of(sql)
            if len(before) == 1 and not os.path.lexists(before[0]) and _same(sql, before[0], new):
                break
    else:
        return None
    with closing(sqlite3.connect(other / FILE)) as sql, sql:
        move_files(sql, before[0], new)
        sql.execute("DELETE FROM roots")
        put_roots(sql, [new])
    other.replace(directory)
    return Path(before[0])


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)


def _same(sql: sqlite3.Connection, old: str, new: str) -> bool:
    """Whether most of some files that were below the one folder are below the other."""
    query = (
        "SELECT path, size, mtime_ns FROM files WHERE content IS NOT NULL ORDER BY random() LIMIT ?"
    )
    known = sql.execute(query, (_COMPARED,)).fetchall()
    same = 0
    for path, size, time in known:
        place = os.fsdecode(path)
        with suppress(OSError):
            status = Path(new + place[len(old) :]).stat() if place.startswith(old) else None
            same += status is not None and (status.st_size, status.st_mtime_ns) == (size, time)
    return bool(known) and same * 2 > len(known)

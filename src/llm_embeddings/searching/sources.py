"""Paths -> the files to search, and the files left out, with the reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath

from .places import is_index
from .readers import FORMATS

# Directories without documents of the user; hidden directories are left out too.
IGNORED_DIRECTORIES = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was found on disk.

    Attributes:
        path: Absolute path, by which the index knows it.
        shown: Its path as the user would write it.
        size: Size in bytes.
        mtime_ns: When it was last changed, in nanoseconds since 1970.
    """

    path: str
    shown: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or directory that is not searched.

    Attributes:
        file: The file.
        reason: Why it is not searched.
        by_name: Whether it was not tried at all, because its suffix is not one that is read.
    """

    file: File
    reason: str
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found under some paths.

    Attributes:
        roots: The paths, absolute.
        files: Files to search.
        skipped: Files and directories that are not searched.
    """

    roots: list[str]
    files: list[File]
    skipped: list[Skipped]


def scan(paths: Sequence[Path], *, globs: Sequence[str] = (), max_bytes: int, index: Path) -> Scan:
    """Find the files under paths; a path that is a file itself is taken whatever its name.

    Args:
        paths: Files and directories.
        globs: Patterns of names or relative paths; files that match are taken, instead of those
            with a known suffix.
        max_bytes: Size of the largest file that is taken.
        index: A directory that is not searched, even if it lies in one of `paths`.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise FileNotFoundError(
                f"{str(path)!r} does not exist (the query comes last, in quotes)"
            )
    found = Scan([_absolute(path) for path in paths], [], [])
    seen: set[str] = set()
    for path in paths:
        for shown, name in _walk(path, _absolute(index), found.skipped):
            absolute = _absolute(shown)
            if absolute in seen:
                continue
            seen.add(absolute)
            _sort(absolute, shown, name, globs, max_bytes, found)
    return found


def _walk(root: Path, index: str, skipped: list[Skipped]) -> Iterator[tuple[str, str]]:
    """Files below a path, sorted: path as shown, and path relative to `root` ("" for itself)."""
    if not root.is_dir():
        yield str(root), ""
        return
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        if is_index(Path(folder)):
            reason = "a search index: its files are not searched"
            skipped.append(Skipped(File(_absolute(folder), folder, 0, 0), reason))
            continue
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(_missing(folder, error))
            continue
        folders = []
        for entry in inside:
            if entry.name.startswith(".") or entry.name in IGNORED_DIRECTORIES:
                continue
            if not _is_directory(entry):
                yield os.path.normpath(entry.path), os.path.relpath(entry.path, root)
            elif entry.is_symlink():
                reason = "a link to a directory: name it to search it"
                skipped.append(Skipped(File(_absolute(entry.path), entry.path, 0, 0), reason))
            elif _absolute(entry.path) != index:
                folders.append(entry.path)
        waiting.extend(reversed(folders))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: `_sort` reports it
        return False


def _sort(
    path: str, shown: str, name: str, globs: Sequence[str], max_bytes: int, found: Scan
) -> None:
    """Add one file to those to search or to those skipped."""
    if name and globs and not any(_matches(name, glob) for glob in globs):
        return
    try:
        status = Path(path).stat()
    except OSError as error:
        found.skipped.append(_missing(shown, error))
        return
    file = File(path, shown, status.st_size, status.st_mtime_ns)
    suffix = PurePath(name).suffix.lower()
    if not stat.S_ISREG(status.st_mode):
        found.skipped.append(Skipped(file, "not a regular file"))
    elif name and not globs and suffix not in FORMATS:
        found.skipped.append(Skipped(file, f"{suffix} is not searched unless asked", by_name=True))
    elif status.st_size > max_bytes:
        found.skipped.append(Skipped(file, f"larger than --max-file-size {max_bytes / 1e6:g}"))
    else:
        found.files.append(file)


def _matches(name: str, glob: str) -> bool:
    """Whether a relative path, or its last part, matches a pattern."""
    name = PurePath(name).as_posix()
    return fnmatch(name, glob) or fnmatch(name.rpartition("/")[2], glob)


def _absolute(path: str | Path) -> str:
    # Not `resolve`, which would replace a link by what it leads to.
    return os.path.normpath(Path(path).absolute())


def _missing(shown: str, error: OSError) -> Skipped:
    """A file that the system cannot read."""
    reason = f"cannot be read ({error.strerror or type(error).__name__})"
    return Skipped(File(_absolute(shown), shown, 0, 0), reason)

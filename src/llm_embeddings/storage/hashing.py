"""Hashes of much data, and notes of those that were made of files, which hold until these change.

A hash is SHA-256 over the SHA-256 of each block of 4 MiB, so that all cores share the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .blocks import changed_values, seal_values
from .files import waited

BLOCK = 2**22
_MOST_THREADS = 16
_MOST_BYTES = 2**18  # of a note
_SETTLED_SECONDS = 2.0  # the coarsest clock of a file system in use


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was seen; whoever writes to it changes one of the numbers.

    Attributes:
        path: The file, links followed.
        size: In bytes.
        modified: Time of the last write, in nanoseconds.
        changed: Time of the last change of anything, which no program can set back; in nanoseconds.
        inode: Number of the file.
        settled: Whether it had rested for so long that its times tell any later write.
    """

    path: str
    size: int
    modified: int
    changed: int
    inode: int
    settled: bool


def stamp(path: Path) -> Stamp:
    """A file as it is.

    Raises:
        OSError: there is no such file.
    """
    real = path.resolve()
    seen = real.stat()
    age = time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns)
    return Stamp(
        str(real),
        seen.st_size,
        seen.st_mtime_ns,
        seen.st_ctime_ns,
        seen.st_ino,
        age > _SETTLED_SECONDS * 1e9,
    )


def hash_blocks(digest: Callable[[Any], bytes], blocks: Iterable[Any]) -> str:
    """The hash of blocks in their order, 64 hex digits.

    Args:
        digest: SHA-256 of a block; called by several threads.
        blocks: What it is called with.
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        return hashlib.sha256(b"".join(pool.map(digest, blocks))).hexdigest()


def noted(files: Iterable[Stamp], facts: Mapping[str, Any]) -> str | None:
    """The hash that was noted of what is made of files as they were seen; None = there is none.

    Args:
        files: The files.
        facts: What else decides it; JSON.
    """
    what = _what(files, facts)
    try:
        note = json.loads(_own_bytes(_place(what)))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(note, dict) or "seal" not in note or changed_values(note):
        return None
    found = note.pop("hash", None)
    del note["seal"]
    fits = isinstance(found, str) and re.fullmatch(r"[0-9a-f]{64,128}", found) and note == what
    return found if fits else None


def note(files: Iterable[Stamp], facts: Mapping[str, Any], found: str) -> None:
    """Note a hash in the user's cache directory; where that cannot be written, do nothing.

    The hash is 64 hex digits; up to 64 more may say what else was found with it. Nothing is noted
    either if a file has been written to since, or just before it was seen.
    """
    files = list(files)
    what = _what(files, facts)
    with contextlib.suppress(OSError):
        if not all(file.settled and stamp(Path(file.path)) == file for file in files):
            return
        place = _place(what)
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent)  # for this user alone
        part = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(seal_values({**what, "hash": found})) + "\n")
            part.replace(place)
        except BaseException:
            part.unlink()
            raise


def noted_once(files: Iterable[Stamp], facts: Mapping[str, Any], find: Callable[[], str]) -> str:
    """What is noted, or else what `find` gives, noted; other processes of this user wait for it."""
    files = list(files)
    with waited(_place(_what(files, facts))):
        known = noted(files, facts)
        if known is not None:
            return known
        found = find()
        note(files, facts, found)
        return found


def _own_bytes(path: Path) -> bytes:
    """The bytes of a plain file of this user, which others cannot write.

    Raises:
        OSError: it is not there, or not such a file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        writable = stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
        foreign = hasattr(os, "getuid") and (writable or status.st_uid != os.getuid())
        if foreign or not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{path} is not this user's own file")
        return os.read(handle, _MOST_BYTES)
    finally:
        os.close(handle)


def _what(files: Iterable[Stamp], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is noted beside a hash, as JSON gives it back."""
    what = {"format": 2, "files": [asdict(file) for file in files], "facts": facts}
    found: dict[str, Any] = json.loads(json.dumps(what, default=str))
    return found


def _place(what: Mapping[str, Any]) -> Path:
    """The file of a note, where the Hugging Face libraries keep what can be made again.

    One of files with the same paths takes the place of the note before it.
    """
    from huggingface_hub.constants import HF_ASSETS_CACHE

    key = [what["facts"], [file["path"] for file in what["files"]]]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    return Path(HF_ASSETS_CACHE) / "llm-embeddings" / "hashes" / f"{name}.json"

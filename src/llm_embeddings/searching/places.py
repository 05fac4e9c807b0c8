"""Where an index lies, and whose directory it is."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

FILE = "index.sqlite"
SKIPPED = "skipped.txt"
# Backup programs know a cache by this file and its first line (bford.info/cachedir).
TAG = "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# A search index of llm-embeddings.\n"


def default_directory(paths: Sequence[Path]) -> Path:
    """The index of these paths in the user's cache: one for each set of paths.

    The cache is `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on
    Windows.
    """
    resolved = sorted({os.path.realpath(path) for path in paths})
    digest = hashlib.sha256(b"\0".join(map(os.fsencode, resolved))).hexdigest()[:10]
    name = re.sub(r"[^\w.-]+", "-", Path(resolved[0]).name).strip("-.")[:40] or "root"
    return shelf() / f"{name}-{digest}"


def claim(directory: Path) -> None:
    """Mark a new or empty directory as ours.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    inside = sorted(path.name for path in directory.iterdir())
    tag = directory / TAG
    if is_index(directory):
        return
    # An empty tag is one that a process of ours is about to write, or was killed writing.
    if inside and not (tag.is_file() and not tag.stat().st_size):
        names = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise ValueError(
            f"{directory} is not an index of llm-embeddings (it holds {names}): "
            "give --index a new or empty directory"
        )
    tag.write_text(_TAG_TEXT, encoding="utf-8")


def is_index(directory: Path) -> bool:
    """Whether a directory is marked as ours."""
    try:
        return (directory / TAG).read_text(encoding="utf-8", errors="replace") == _TAG_TEXT
    except OSError:
        return False


def shelf() -> Path:
    """The directory in the user's cache that holds the default indexes."""
    return _cache() / "llm-embeddings" / "search"


def _cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

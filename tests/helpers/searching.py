"""A folder to search, and an index of it that needs no model."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_embeddings.searching.index import Index
from llm_embeddings.searching.places import FILE
from llm_embeddings.searching.sources import scan
from llm_embeddings.searching.updating import Changes, WatchUpdate, update

STORY = "# Kitchen\n\nWe bake bread.\n\n## Oven\n\nHeat it well.\n\n## Yeast\n\nLet it rise.\n"


def write_folder(parent: Path) -> Path:
    """Two files with four passages."""
    folder = parent / "notes"
    folder.mkdir()
    (folder / "kitchen.md").write_text(STORY)
    (folder / "garden.txt").write_text("Water the roses.\n\nCut the hedge in autumn.\n")
    return folder


def words_to_vectors(texts: list[str]) -> NDArray[np.float32]:
    """A stand-in for a model: texts that share words have a high cosine."""
    vectors = np.full((len(texts), 64), 1e-3, np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.strip("#.,").encode()) % 64] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def refresh(
    folder: Path,
    directory: Path,
    *,
    encode: Any = words_to_vectors,
    maker: str = "m",
    rebuild: bool = False,
    globs: tuple[str, ...] = (),
    max_bytes: int = 100_000,
    told: list[str] | None = None,
) -> Changes:
    """One update of an index over a folder; `told` gets the names of what is worth a word."""
    told = [] if told is None else told
    watch = WatchUpdate(
        skipped=lambda skip: told.append(f"{Path(skip.file.path).name}: {skip.reason}"),
        note=lambda file, note: told.append(f"{Path(file.path).name}: {note}"),
    )
    found = scan([folder], globs=globs, max_bytes=max_bytes, index=directory)
    with Index(directory, maker, maker, rebuild=rebuild) as index:
        return update(index, found, encode, watch)


def dump(directory: Path) -> list[Any]:
    """All that an index holds, without its ids and times; finished words are in step with it."""
    with sqlite3.connect(directory / FILE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        passages = "SELECT (content << 32) + number FROM chunks ORDER BY 1"
        words = connection.execute("SELECT rowid FROM words ORDER BY 1").fetchall()
        (seal,) = connection.execute("SELECT seal FROM word_seals").fetchone()
        assert seal is None or words == connection.execute(passages).fetchall()
        rows = connection.execute(
            "SELECT path, skipped, hash, vectors, number, first, last, text FROM files "
            "LEFT JOIN contents ON files.content = contents.id "
            "LEFT JOIN chunks ON chunks.content = contents.id ORDER BY path, number"
        ).fetchall()
    connection.close()
    return rows

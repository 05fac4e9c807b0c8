"""What a disk has changed in an index is neither shown nor believed: it is made again."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.searching import dump, refresh, words_to_vectors
from numpy.typing import NDArray

from llm_embeddings.ranking.fusion import SearchMode
from llm_embeddings.searching.hits import Query
from llm_embeddings.searching.index import Index
from llm_embeddings.searching.places import FILE

MODES: tuple[SearchMode, ...] = ("vector", "words", "hybrid")


def found(folder: Path, directory: Path, encode: Any) -> list[Any]:
    """Hits of each mode after an update."""
    changes = refresh(folder, directory, encode=encode)
    vector = words_to_vectors(["bread hedge"])[0]
    with Index(directory, "m", "m") as index:
        return [index.best(Query("bread hedge", vector, m), 9, changes.files) for m in MODES]


def everything(folder: Path, directory: Path, embedded: list[str]) -> list[Any]:
    """What an update and then a search finds in each mode; a second time where it has to be."""

    def encode(texts: list[str]) -> NDArray[np.float32]:
        embedded.extend(texts)
        return words_to_vectors(texts)

    try:
        return found(folder, directory, encode)
    except ValueError as error:
        if "Search again: they are made anew" not in str(error):
            raise
    return found(folder, directory, encode)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE chunks SET text = 'We eat bread.' WHERE text LIKE '%bread%'",
        "UPDATE chunks SET text = CAST(x'ff' AS TEXT) WHERE text LIKE '%bread%'",
        "UPDATE chunks SET first = first + 1",
        "UPDATE chunks SET heading = 'Cellar'",
        "DELETE FROM chunks WHERE number = 1",
        "UPDATE contents SET kind = 'other'",
        "UPDATE contents SET passages = passages - 1",
        "UPDATE files SET path = CAST(replace(path, 'kitchen', 'cellar') AS BLOB)",
        "UPDATE files SET content = 3 - content",
        "UPDATE contents SET id = 9 WHERE id = 1",
    ],
)
def test_what_a_disk_has_changed_is_read_again(folder: Path, directory: Path, damage: str) -> None:
    wanted = everything(folder, directory, [])
    with sqlite3.connect(directory / FILE) as sql:
        assert sql.execute(damage).rowcount > 0
    sql.close()
    assert everything(folder, directory, []) == wanted
    assert everything(folder, directory, embedded := []) == wanted
    assert embedded == []
    fresh = directory.with_name("fresh")
    refresh(folder, fresh)
    assert dump(directory) == dump(fresh)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE words_data SET block = zeroblob(length(block)) WHERE id > 10",
        "UPDATE words_content SET c0 = 'hedge'",
        "DELETE FROM words_docsize WHERE id > (1 << 32)",
        "DELETE FROM words",
        "UPDATE word_seals SET seal = seal + 1",
        "DELETE FROM word_seals",
    ],
)
def test_words_that_a_disk_has_changed_are_indexed_again(
    folder: Path, directory: Path, damage: str
) -> None:
    wanted = everything(folder, directory, [])
    with sqlite3.connect(directory / FILE) as sql:
        sql.execute(damage)
    sql.close()
    assert everything(folder, directory, embedded := []) == wanted
    assert embedded == [], "nothing but words was made again"
    assert len(dump(directory)) == 4

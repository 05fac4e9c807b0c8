"""BM25 in a SQLite file: texts are found by their words as soon as they are committed.

SQLite's FTS5 keeps the index and ranks (BM25 with k1 1.2 and b 0.75). Words are those of `bm25.py`,
English ones by their stem (Porter's), all without accents.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .bm25 import UNSPACED, words

TABLE = "words"
SCHEMA = (
    f"CREATE VIRTUAL TABLE IF NOT EXISTS {TABLE} USING fts5(body, tokenize = "
    "\"porter unicode61 remove_diacritics 2 categories 'L* N* M* Co'\")"
)


def add(sql: sqlite3.Connection, texts: Iterable[tuple[int, str]]) -> None:
    """Index texts by numbers that are not in the index."""
    rows = ((number, " ".join(words(text))) for number, text in texts)
    sql.executemany(f"INSERT INTO {TABLE} (rowid, body) VALUES (?, ?)", rows)


def remove(sql: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Forget texts."""
    sql.executemany(f"DELETE FROM {TABLE} WHERE rowid = ?", ((number,) for number in numbers))


def scores(
    sql: sqlite3.Connection, query: str, numbers: NDArray[np.int64], *, unfinished: bool = False
) -> NDArray[np.float32]:
    """BM25 of texts for a query.

    Args:
        sql: The connection.
        query: The query.
        numbers: Of the texts, ascending, `[n]`.
        unfinished: Whether the last word may be the beginning of one, as while it is being typed.

    Returns:
        `[n]`; 0 where a text shares no word with the query.
    """
    found = np.zeros(len(numbers), np.float32)
    asked = words(query)
    terms = [f'"{word}"{"*" if _is_half(word) else ""}' for word in asked]
    if unfinished and terms and query[-1:].isalnum():
        terms[-1] = f'"{asked[-1]}"*'
    if not terms or not len(numbers):
        return found
    statement = f"SELECT rowid, -bm25({TABLE}) FROM {TABLE} WHERE {TABLE} MATCH ?"
    rows = sql.execute(statement, (" OR ".join(terms),)).fetchall()
    if rows:
        matching, values = map(np.array, zip(*rows, strict=True))
        places = np.minimum(np.searchsorted(numbers, matching), len(numbers) - 1)
        there = numbers[places] == matching
        found[places[there]] = values[there]
    return found


def _is_half(word: str) -> bool:
    """Whether a word is one character of a script that is indexed in pairs of characters."""
    return len(word) == 1 and UNSPACED.match(word) is not None

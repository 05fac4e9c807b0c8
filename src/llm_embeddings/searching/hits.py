"""A query and what is found for it in an index: passages in order, by vectors, words or both."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ranking import fulltext
from ..ranking.fusion import SearchMode, fuse
from ..ranking.nearest import best
from .chunks import Chunk
from .rows import passage

# Contents, numbers of their passages, and the vectors of these, in pieces.
Blocks = Iterable[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float16]]]
# A passage has one number in the index of words: its content's id above these bits.
_PASSAGE_BITS = 32


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Attributes:
        text: The query.
        vector: Its vector, `[dim]`, of length 1.
        mode: What ranks passages: "vector" by cosine, "words" by BM25, "hybrid" by both.
        unfinished: Whether its last word may be the beginning of one.
    """

    text: str
    vector: NDArray[np.float32]
    mode: SearchMode = "hybrid"
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that was found.

    Attributes:
        score: What it is ranked by: cosine, BM25, or `fuse` of both.
        paths: The files that hold it.
        kind: Their format.
        chunk: The passage.
        cosine: With the query; None if only words rank.
        words: BM25; None if only vectors rank.
    """

    score: float
    paths: list[str]
    kind: str
    chunk: Chunk
    cosine: float | None = None
    words: float | None = None


def rank(
    sql: sqlite3.Connection,
    query: Query,
    blocks: Blocks,
    top: int,
    paths: Mapping[int, list[str]],
    damaged: list[int],
) -> tuple[list[Found], int]:
    """The passages that fit a query best, best first, and how many were compared.

    Args:
        sql: The index.
        query: The query.
        blocks: The vectors of all passages to compare, by ascending ids of contents.
        top: How many hits are wanted.
        paths: Files by the id of their content.
        damaged: Gets the contents of hits whose passages are not as they were written.
    """
    numbers, cosines = _cosines(query, blocks)
    words = None
    if query.mode == "vector":
        scores = cosines
    else:
        words = fulltext.scores(sql, query.text, numbers, unfinished=query.unfinished)
        scores = words if query.mode == "words" else fuse(cosines, words)
    places = best(scores[None], min(top, len(scores)))[0]
    if query.mode == "words":
        places = places[scores[places] > 0]
    found = []
    for place in places:
        content, number = divmod(int(numbers[place]), 1 << _PASSAGE_BITS)
        there = passage(sql, content, number)
        if there is None:
            damaged.append(content)
            continue
        kind, chunk = there[0].partition(":")[0], there[1]
        cosine = None if query.mode == "words" else float(cosines[place])
        bm25 = None if words is None else float(words[place])
        found.append(Found(float(scores[place]), paths[content], kind, chunk, cosine, bm25))
    return found, len(numbers)


def numbered(content: int, chunks: Iterable[Chunk]) -> Iterator[tuple[int, str]]:
    """The passages of a content with their numbers in the index of words."""
    first = content << _PASSAGE_BITS
    return ((first + number, part.passage) for number, part in enumerate(chunks))


def orphans(sql: sqlite3.Connection) -> list[int]:
    """Numbers in the index of words of passages whose content is gone."""
    gone = sql.execute(
        "SELECT content, number FROM chunks WHERE content NOT IN (SELECT id FROM contents)"
    )
    return [(content << _PASSAGE_BITS) + number for content, number in gone]


def _cosines(query: Query, blocks: Blocks) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers of passages and their cosines with the query."""
    numbers, cosines = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for contents, places, vectors in blocks:
        numbers.append((contents << _PASSAGE_BITS) + places)
        if query.mode != "words":
            cosines.append(vectors.astype(np.float32) @ query.vector)
    return np.concatenate(numbers), np.concatenate(cosines)

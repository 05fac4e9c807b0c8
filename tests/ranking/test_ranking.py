"""BM25 in SQLite and the fusion of scores, against their formulas."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close

from llm_embeddings.ranking import fulltext
from llm_embeddings.ranking.bm25 import words
from llm_embeddings.ranking.fusion import fuse
from llm_embeddings.ranking.sealed_words import SCHEMA, SealedWords
from llm_embeddings.storage.sqlite import transaction

TEXTS = [
    "the cat and the hat",
    "a dog",
    "cat cat cat on the mat with a very long tail",
    "nothing at all",
    "birds",
    "猫が好きです",
    "हिन्दी में पुस्तक",
    "ภาษาไทย",
    "Café crème foo_bar",
]


@pytest.fixture
def index() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as sql:
        sql.execute(fulltext.SCHEMA)
        fulltext.add(sql, enumerate(TEXTS, 10))
        yield sql


def scores(index: sqlite3.Connection, query: str, *, unfinished: bool = False) -> list[float]:
    numbers = np.arange(10, 10 + len(TEXTS))
    return fulltext.scores(index, query, numbers, unfinished=unfinished).tolist()


def test_bm25_is_the_formula(index: sqlite3.Connection) -> None:
    """Robertson et al., TREC-3, with k1 1.2 and b 0.75 (sqlite.org/fts5.html#the_bm25_function)."""
    documents = [words(text.replace("_", " ")) for text in TEXTS]
    mean = sum(map(len, documents)) / len(documents)
    wanted = np.zeros(len(documents))
    for word in ("cat", "tail"):
        holding = sum(word in document for document in documents)
        idf = math.log((len(documents) - holding + 0.5) / (holding + 0.5))
        for place, document in enumerate(documents):
            count = document.count(word)
            wanted[place] += (
                idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(document) / mean))
            )
    assert_close(scores(index, "Cat, tail?"), wanted)


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("cats", [0, 2]),
        ("bird", [4]),
        ("好き", [5]),
        ("猫", [5]),
        ("पुस्तक", [6]),
        ("ไทย", [7]),
        ("cafe CREME", [8]),
        ("\uff23\uff21\uff26\uff25", [8]),
        ("foo", [8]),
        ("bar_foo", []),
        ('" OR * NEAR(', []),
        ("?!", []),
        ("", []),
        (" ".join(f"w{number}" for number in range(5000)) + " dog", [1]),
    ],
)
def test_words_of_many_scripts_are_found(
    index: sqlite3.Connection, query: str, places: list[int]
) -> None:
    assert [place for place, score in enumerate(scores(index, query)) if score > 0] == places


def test_the_last_word_may_be_unfinished(index: sqlite3.Connection) -> None:
    assert max(scores(index, "a bir")) == max(scores(index, "a"))
    assert np.argmax(scores(index, "a bir", unfinished=True)) == 4
    assert max(scores(index, "bir ", unfinished=True)) == 0


def test_texts_are_forgotten(index: sqlite3.Connection) -> None:
    fulltext.remove(index, [10, 12])
    assert max(scores(index, "cat")) == 0
    some = fulltext.scores(index, "dog birds", np.array([11, 13]))
    assert (some > 0).tolist() == [True, False]


def test_fusion_adds_standard_scores() -> None:
    cosines = np.array([0.9, 0.5, 0.1, 0.3], np.float32)
    bm25 = np.array([0, 4, 0, 9], np.float32)

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values.mean()) / values.std()

    wanted = (standard(cosines) / 3**0.5) ** 3 + standard(bm25)  # 3 = n - 1
    assert_close(fuse(cosines, bm25), wanted)
    assert_close(fuse(0.7 + 0.3 * cosines, 5 * bm25), wanted)
    assert_close(fuse(cosines, np.zeros(4, np.float32)), (standard(cosines) / 3**0.5) ** 3)
    assert_close(fuse(np.full(4, 0.1, np.float32), bm25), standard(bm25))
    many = np.linspace(0, 1, 90, dtype=np.float32)
    assert_close(fuse(many, np.zeros(90, np.float32)), (standard(many) / 3) ** 3)
    assert fuse(cosines[:0], bm25[:0]).shape == (0,)
    assert fuse(cosines[:1], bm25[:1]).tolist() == [0]


def test_another_process_finds_the_words_as_they_were_written(tmp_path: Path) -> None:
    def opened() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "words.sqlite", isolation_level=None)

    writer, reader = SealedWords(), SealedWords()
    with closing(opened()) as sql:
        for statement in SCHEMA:
            sql.execute(statement)
        with transaction(sql):
            writer.make(sql, enumerate(TEXTS))
        assert SealedWords().sealed(sql)
        with transaction(sql):
            writer.add(sql, [(99, "a mouse")])
        assert writer.whole(sql)
        assert not reader.whole(sql), "who has not sealed it may have been killed"
        with transaction(sql):
            writer.seal(sql)
        assert reader.sealed(sql)
        with transaction(sql):
            reader.remove(sql, [99])
            reader.seal(sql)
        assert SealedWords().sealed(sql)
        sql.execute("UPDATE words_content SET c0 = 'a dog' WHERE id = 0")
    with closing(opened()) as sql:
        assert not SealedWords().whole(sql)
        with transaction(sql):
            SealedWords().add(sql, [(98, "left alone")])
        assert sql.execute("SELECT count(*) FROM words").fetchone() == (len(TEXTS),)
        assert sql.execute("SELECT * FROM word_seals").fetchone() == (None, "")

"""The stores that are attacked: each is written, goes on, and is compared with what it was given.

None needs a model: a text's vector is drawn by its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np

ROWS, DIM, PART = 60, 512, 10
TEXTS = [f"Passage {number} of a book on rivers and bread. {number % 7}" for number in range(ROWS)]
SOURCE = "source"  # a folder beside the store: files of the user, which are not attacked
Done = Callable[[str], None]


@dataclass(frozen=True)
class Store:
    """A kind of store.

    Attributes:
        write: Fills one in a folder, or goes on where that was interrupted; tells what it has
            computed once that is kept.
        wrong: Reads it as a user does, and says what is not as it was given; "" = nothing.
    """

    write: Callable[[Path, Done], None]
    wrong: Callable[[Path], str]


def nobody(done: str) -> None:
    """Is told what is done, and does nothing."""


@cache
def vector_of(text: str) -> Any:
    """`[DIM]`, of unit length, another one for each text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


_MODES: tuple[Literal["vector", "words", "hybrid"], ...] = ("vector", "words", "hybrid")
QUERY = "rivers and bread 3 12"


# -- vectors by key --------------------------------------------------------------------------------


def _write_cache(folder: Path, done: Done) -> None:
    from llm_embeddings.vector_cache import VectorCache

    folder.mkdir(exist_ok=True)
    with VectorCache(folder / "vectors.sqlite") as cache:
        for text in TEXTS:
            if text.encode() not in cache.get([text.encode()]):
                cache.put({text.encode(): vector_of(text)})
                done(text)


def _wrong_cache(folder: Path) -> str:
    from llm_embeddings.vector_cache import VectorCache

    keys = [text.encode() for text in TEXTS]
    with VectorCache(folder / "vectors.sqlite") as cache:
        found = cache.get(keys)
        if not all(np.array_equal(found[key], vector_of(key.decode())) for key in found):
            return "vectors"
        cache.put({key: vector_of(key.decode()) for key in keys if key not in found})
        return "" if len(cache.get(keys)) == ROWS else "vectors that were computed again are lost"


# -- files that are searched -----------------------------------------------------------------------


def _search(folder: Path, done: Done) -> list[Any]:
    """Bring the index up to date; what it finds in each mode."""
    from llm_embeddings.searching import updating
    from llm_embeddings.searching.hits import Query
    from llm_embeddings.searching.index import Index
    from llm_embeddings.searching.sources import scan

    source = folder.parent / SOURCE
    source.mkdir(exist_ok=True)
    for number, text in enumerate(TEXTS):
        path = source / f"{number}.txt"
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # a disk was full
            path.write_text(text, encoding="utf-8")

    def embedded(passages: list[str], size: float) -> None:
        for one in passages:
            done(one)

    watch = updating.WatchUpdate(embedded=embedded)
    files = scan([source], max_bytes=10**6, index=folder)

    def encode(texts: list[str]) -> Any:
        return np.array([vector_of(text) for text in texts])

    with (
        Index(folder, "fingerprint", "maker") as index,
        mock.patch.object(updating, "_BATCH", PART),
    ):
        changes = updating.update(index, files, encode, watch)
        if changes.skipped:
            return [changes.skipped]
        found = []
        for mode in _MODES:
            query = Query(QUERY, vector_of(QUERY), mode)
            for hit in index.best(query, ROWS, changes.files)[0]:
                names = [Path(path).name for path in hit.paths]
                found.append((mode, round(hit.score, 6), names, hit.chunk, hit.kind))
    return sorted(found, key=repr)


def _write_search(folder: Path, done: Done) -> None:
    _search(folder, done)


@cache
def _found_in_search() -> list[Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        return _search(Path(temporary, "index"), nobody)


def _wrong_search(folder: Path) -> str:
    try:
        found = _search(folder, nobody)
    except ValueError as error:
        if "Search again" not in str(error):
            raise
        found = _search(folder, nobody)
    return "" if found == _found_in_search() else "hits"


# -- documents -------------------------------------------------------------------------------------


class _Encoder:
    """What an index of documents needs of an encoder."""

    dimension, max_length = DIM, 512

    def __init__(self) -> None:
        self.texts: list[str] = []

    def fingerprint(self, role: str = "document", instruction: str | None = None) -> str:
        return "fingerprint"

    def encode_document(self, texts: list[str], *arguments: Any, **options: Any) -> Any:
        self.texts += texts
        return np.array([vector_of(text) for text in texts]).reshape(-1, DIM)

    def encode_query(self, text: str, *arguments: Any, **options: Any) -> Any:
        return vector_of(text)


def _write_documents(folder: Path, done: Done) -> None:
    from llm_embeddings.rag import DocumentIndex

    folder.mkdir(exist_ok=True)
    encoder: Any = _Encoder()
    index = DocumentIndex(encoder, folder / "documents.sqlite")
    try:
        for first in range(0, ROWS, PART):
            numbers = range(first, first + PART)
            metadata = [{"number": number} for number in numbers]
            index.add([TEXTS[n] for n in numbers], [str(n) for n in numbers], metadata)
            for text in encoder.texts:
                done(text)
            encoder.texts.clear()
    finally:
        index.close()


def _found_in_documents(folder: Path) -> list[Any]:
    from llm_embeddings.rag import DocumentIndex

    encoder: Any = _Encoder()
    index = DocumentIndex(encoder, folder / "documents.sqlite")
    try:
        found = [
            (mode, round(hit.score, 6), hit.id, hit.text, hit.metadata)
            for mode in _MODES
            for hit in index.search(QUERY, ROWS, mode=mode)
        ]
        return sorted(found, key=repr) + [(one.id, one.text, one.metadata) for one in index.get()]
    finally:
        index.close()


@cache
def _wanted_of_documents() -> list[Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        _write_documents(Path(temporary), nobody)
        return _found_in_documents(Path(temporary))


def _wrong_documents(folder: Path) -> str:
    return "" if _found_in_documents(folder) == _wanted_of_documents() else "hits or documents"


STORES = {
    "vector cache": Store(_write_cache, _wrong_cache),
    "search index": Store(_write_search, _wrong_search),
    "document index": Store(_write_documents, _wrong_documents),
}

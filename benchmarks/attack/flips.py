"""Bits that a disk has turned over, in each kind of file that keeps vectors.

A store is made, eight bits at random are flipped in one of its files, and what it gives then is
compared with what it was given. Whatever is missing, made again or refused by name is right.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BITS = 8
ROWS, DIM = 60, 512


@dataclass(frozen=True)
class Kind:
    """A kind of store.

    Attributes:
        make: Writes one into an empty folder.
        wrong: Reads it, and says what it gives that it was not given; "" = nothing.
    """

    make: Callable[[Path], None]
    wrong: Callable[[Path], str]


def flip(path: Path, random_: random.Random) -> None:
    """Turn over some bits of a file, and leave its times."""
    data = bytearray(path.read_bytes())
    for _ in range(BITS):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    path.write_bytes(data)


def attack(kind: Kind, folder: Path, times: int, seed: int = 0) -> Counter[str]:
    """Flip bits so many times; how often the store was right, refused by name, or wrong.

    Args:
        kind: What is attacked.
        folder: An empty folder.
        times: How often, each time in a fresh copy.
        seed: Seed of the bits.
    """
    found: Counter[str] = Counter()
    chosen = random.Random(seed)
    kind.make(folder / "made")
    for _ in range(times):
        copy = shutil.copytree(folder / "made", folder / "copy")
        files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
        weights = [path.stat().st_size for path in files]
        flip(chosen.choices(files, weights)[0], chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wrong = kind.wrong(copy)
            except ValueError:
                found["refused by name"] += 1
            else:
                found[f"WRONG {wrong}" if wrong else "right"] += 1
        shutil.rmtree(copy)
    return found


def vector_of(text: str) -> Any:
    """`[DIM]`, of unit length, another one for each text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


TEXTS = [f"Passage {number} of a book on rivers and bread." for number in range(ROWS)]


# -- the kinds -------------------------------------------------------------------------------------


def _make_cache(folder: Path) -> None:
    from llm_embeddings.vector_cache import VectorCache

    folder.mkdir()
    with VectorCache(folder / "vectors.sqlite") as cache:
        cache.put({text.encode(): vector_of(text) for text in TEXTS})


def _wrong_cache(folder: Path) -> str:
    from llm_embeddings.vector_cache import VectorCache

    with VectorCache(folder / "vectors.sqlite") as cache:
        found = cache.get([text.encode() for text in TEXTS])
    same = (np.array_equal(found.get(t.encode(), vector_of(t)), vector_of(t)) for t in TEXTS)
    return "" if all(same) else "vectors"


def _index(folder: Path) -> Any:
    from llm_embeddings.searching.index import Index

    return Index(folder, "fingerprint", "maker")


def _make_search(folder: Path) -> None:
    from llm_embeddings.searching.chunks import Chunk
    from llm_embeddings.searching.rows import Entry
    from llm_embeddings.searching.sources import File

    with _index(folder) as index:
        index.add(
            Entry(
                [File(f"/notes/{number}", f"{number}", number, 1)],
                hashlib.sha256(text.encode()).digest(),
                "text",
                [Chunk(1, 1, "", text)],
                vector_of(text)[None],
            )
            for number, text in enumerate(TEXTS)
        )


def _wrong_search(folder: Path) -> str:
    query = vector_of("a query")
    try:
        found = _search(folder, query)
    except ValueError as error:
        if "Search again" not in str(error):
            raise
        found = _search(folder, query)
    kept = {text: vector_of(text).astype("<f2").astype(np.float32) for text in TEXTS}
    scores = {text: float(vector @ query) for text, vector in kept.items()}
    for hit in found:
        if not any(abs(hit.score - score) < 1e-6 for score in scores.values()):
            return "scores"
        if abs(hit.score - scores.get(hit.chunk.text, 9)) > 1e-6:
            return "texts or paths"
        if hit.paths != [f"/notes/{TEXTS.index(hit.chunk.text)}"]:
            return "texts or paths"
    return ""


def _search(folder: Path, query: Any) -> Any:
    from llm_embeddings.searching.hits import Query

    with _index(folder) as index:
        contents = {path: known.content for path, known in index.files().items() if known.content}
        return index.best(Query("", query, "vector"), ROWS, contents)[0]


class _Encoder:
    """What an index of documents needs of an encoder."""

    dimension, max_length = DIM, 512

    def fingerprint(self, role: str = "document", instruction: str | None = None) -> str:
        return "fingerprint"

    def encode_document(self, texts: list[str], *arguments: Any, **options: Any) -> Any:
        return np.array([vector_of(text) for text in texts]).reshape(-1, DIM)


def _documents(folder: Path) -> Any:
    from llm_embeddings.rag import DocumentIndex

    encoder: Any = _Encoder()
    return DocumentIndex(encoder, folder / "documents.sqlite")


def _make_documents(folder: Path) -> None:
    folder.mkdir()
    index = _documents(folder)
    index.add(TEXTS, ids=[f"{number}" for number in range(ROWS)])
    index.close()


def _wrong_documents(folder: Path) -> str:
    index = _documents(folder)
    try:
        query = vector_of("a query")
        (found,) = index.search_vectors(query[None], ROWS)
    finally:
        index.close()
    for hit in found:
        if abs(hit.score - float(vector_of(hit.text) @ query)) > 1e-6:
            return "scores"
        if TEXTS[int(hit.id)] != hit.text if hit.id.isdecimal() and int(hit.id) < ROWS else True:
            return "ids or texts"
    return ""


_SETTINGS = {"model": "fingerprint"}


def _rows(number: int) -> bytes:
    return b"".join(vector_of(text).tobytes() for text in TEXTS[number * 10 : number * 10 + 10])


def _make_parts(folder: Path) -> None:
    from llm_embeddings.cli.encode.journal import Journal

    folder.mkdir()
    with Journal(folder / "out.npy", restart=False) as journal:
        journal.begin(_SETTINGS, b"head")
        for number in range(ROWS // 10):
            journal.append(_rows(number), f"digest {number}", 10)


def _wrong_parts(folder: Path) -> str:
    from llm_embeddings.cli.encode.journal import Journal

    with Journal(folder / "out.npy", restart=False) as journal:
        journal.begin(_SETTINGS, b"head")
        for number in range(ROWS // 10):
            if number < len(journal.finished):
                journal.check(number, f"digest {number}")
            else:
                journal.append(_rows(number), f"digest {number}", 10)
        journal.check_end(ROWS // 10)
        if journal.count != ROWS:
            return "number of rows"
        rows = journal.spool.read_bytes()
    return "" if rows == b"head" + b"".join(map(_rows, range(ROWS // 10))) else "rows"


def _states(number: int) -> Any:
    import torch

    from llm_embeddings.generation.kv import KeyValues

    torch.manual_seed(number)
    layers = [(torch.randn(2, 5, 4), torch.randn(2, 5, 4)) for _ in range(2)]
    return KeyValues(tuple(layers))


def _store(folder: Path) -> Any:
    from llm_embeddings.rag import StateStore

    store = StateStore(folder)
    store.bind("fingerprint")
    return store


def _make_states(folder: Path) -> None:
    store = _store(folder)
    for number in range(4):
        store.put("causal", [number], _states(number))


def _wrong_states(folder: Path) -> str:
    import torch

    store = _store(folder)
    for number in range(4):
        found = store.get("causal", [number])
        wanted = _states(number)
        if found is None:
            continue
        pairs = zip(found.layers, wanted.layers, strict=True)
        if not all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs):
            return "states"
    return ""


KINDS = {
    "vector cache": Kind(_make_cache, _wrong_cache),
    "search index": Kind(_make_search, _wrong_search),
    "document index": Kind(_make_documents, _wrong_documents),
    "parts of encode": Kind(_make_parts, _wrong_parts),
    "states": Kind(_make_states, _wrong_states),
}

"""A role-safe vector cache: queries and documents never share a key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from llm_embeddings.inputs import names_checked

if TYPE_CHECKING:
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import EncoderBackedStore
    from langchain_core.stores import ByteStore

    from .embeddings import LLMEmbeddings


@names_checked
def cache_backed(
    embeddings: LLMEmbeddings,
    store: ByteStore,
    *,
    cache_queries: bool = True,
    batch_size: int | None = 1024,
) -> CacheBackedEmbeddings:
    """Keep vectors in a byte store, under keys that name everything a vector depends on.

    A key is `embeddings.cache_namespace(role)` and the BLAKE2b hash of the text. Query and document
    vectors of one text therefore lie apart, as do those of two models, instructions or options, and
    all of them may share one store. A value is the vector's float32 bytes, exact and about a fifth
    of LangChain's JSON.

    Args:
        embeddings: Computes what the store does not hold.
        store: Any LangChain byte store: `LocalFileStore`, `InMemoryByteStore`, Redis, ...
        cache_queries: Whether to keep queries too; LangChain on its own keeps documents only.
        batch_size: Missing documents computed between two writes; None = all of them at once.

    Raises:
        ImportError: `langchain-classic`, which has `CacheBackedEmbeddings`, is not installed.
    """
    try:
        from langchain_classic.embeddings import CacheBackedEmbeddings
    except ImportError as error:
        raise ImportError(
            "cache_backed needs langchain-classic: pip install 'langchain-llm-embeddings[cache]'"
        ) from error
    return CacheBackedEmbeddings(
        embeddings,
        _vector_store(store, embeddings.cache_namespace("document")),
        batch_size=batch_size,
        query_embedding_store=(
            _vector_store(store, embeddings.cache_namespace("query")) if cache_queries else None
        ),
    )


def _vector_store(store: ByteStore, namespace: str) -> EncoderBackedStore[str, list[float]]:
    from langchain_classic.storage import EncoderBackedStore

    return EncoderBackedStore(store, partial(_key, namespace), _to_bytes, _from_bytes)


def _key(namespace: str, text: str) -> str:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32)
    return f"{namespace}-{digest.hexdigest()}"


def _to_bytes(vector: Sequence[float]) -> bytes:
    return np.asarray(vector, "<f4").tobytes()


def _from_bytes(value: bytes) -> list[float]:
    vector: list[float] = np.frombuffer(value, "<f4").tolist()
    return vector

"""The cache: hits, misses, and no way for two kinds of vectors to meet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.storage import LocalFileStore
from langchain_core.stores import InMemoryByteStore
from langchain_llm_embeddings import LLMEmbeddings, cache_backed

from llm_embeddings import Encoder

Calls = list[tuple[str, list[str]]]


@pytest.fixture
def calls(embeddings: LLMEmbeddings, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is really computed, by role."""
    made: Calls = []
    for name in ("encode", "aencode"):
        plain = getattr(Encoder, name)

        def counted(
            self: Encoder, texts: Any, role: Any, *args: Any, _plain: Any = plain, **options: Any
        ) -> Any:
            made.append((role, list(texts)))
            return _plain(self, texts, role, *args, **options)

        monkeypatch.setattr(Encoder, name, counted)
    return made


def test_only_misses_are_computed(embeddings: LLMEmbeddings, calls: Calls) -> None:
    cached = cache_backed(embeddings, InMemoryByteStore())
    first = cached.embed_documents(["a", "b"])
    second = cached.embed_documents(["b", "c", "a"])
    assert calls == [("document", ["a", "b"]), ("document", ["c"])]
    assert second[0] == first[1]
    assert second[2] == first[0]
    assert cached.embed_query("a") == cached.embed_query("a")
    assert calls[2:] == [("query", ["a"])]


def test_cached_vectors_are_exact(embeddings: LLMEmbeddings) -> None:
    cached = cache_backed(embeddings, InMemoryByteStore())
    texts = ["a", "line\nbreak", "lone \ud800 surrogate"]
    computed = cached.embed_documents(texts)
    restored = cached.embed_documents(texts)
    assert restored == computed == embeddings.embed_documents(texts)
    assert {type(value) for value in restored[0]} == {float}


def test_roles_do_not_mix_in_one_store(embeddings: LLMEmbeddings) -> None:
    store = InMemoryByteStore()
    cached = cache_backed(embeddings, store)
    (document,) = cached.embed_documents(["the same text"])
    query = cached.embed_query("the same text")
    assert query == embeddings.embed_query("the same text") != document
    assert cached.embed_documents(["the same text"]) == [document]
    assert len(list(store.yield_keys())) == 2
    for role in ("query", "document"):
        prefix = embeddings.cache_namespace(role)
        assert len(list(store.yield_keys(prefix=prefix))) == 1


async def test_async_shares_the_cache(embeddings: LLMEmbeddings, calls: Calls) -> None:
    cached = cache_backed(embeddings, InMemoryByteStore())
    computed = await cached.aembed_documents(["a"])
    assert cached.embed_documents(["a"]) == computed
    assert await cached.aembed_query("a") == cached.embed_query("a")
    assert calls == [("document", ["a"]), ("query", ["a"])]


def test_queries_can_be_left_out(embeddings: LLMEmbeddings, calls: Calls) -> None:
    store = InMemoryByteStore()
    cached = cache_backed(embeddings, store, cache_queries=False)
    assert cached.embed_query("a") == cached.embed_query("a")
    assert calls == [("query", ["a"]), ("query", ["a"])]
    assert list(store.yield_keys()) == []


def test_batches_are_written_one_by_one(embeddings: LLMEmbeddings, calls: Calls) -> None:
    cached = cache_backed(embeddings, InMemoryByteStore(), batch_size=2)
    cached.embed_documents(["a", "b", "c"])
    assert calls == [("document", ["a", "b"]), ("document", ["c"])]


def test_files_outlive_the_object(
    encoder: Encoder, tmp_path: Path, embeddings: LLMEmbeddings, calls: Calls
) -> None:
    computed = cache_backed(embeddings, LocalFileStore(tmp_path)).embed_documents(["a"])
    another = LLMEmbeddings(encoder=encoder)
    calls.clear()
    assert cache_backed(another, LocalFileStore(tmp_path)).embed_documents(["a"]) == computed
    assert calls == []


def test_missing_package_is_named(
    embeddings: LLMEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "langchain_classic.embeddings", None)
    with pytest.raises(ImportError, match=r"langchain-llm-embeddings\[cache\]"):
        cache_backed(embeddings, InMemoryByteStore())


@pytest.mark.parametrize(
    "options",
    [
        {"normalize": False},
        {"truncate_dim": 8},
        {"precision": "float16"},
        {"max_length": 32},
        {"query_instruction": "Find it", "document_instruction": "Keep it"},
    ],
    ids=str,
)
def test_namespace_follows_what_decides_a_vector(
    embeddings: LLMEmbeddings, encoder: Encoder, options: dict[str, Any]
) -> None:
    other = LLMEmbeddings(encoder=encoder, **options)
    for role in ("query", "document"):
        assert other.cache_namespace(role) != embeddings.cache_namespace(role)


def test_namespace_ignores_what_does_not(embeddings: LLMEmbeddings, encoder: Encoder) -> None:
    same = LLMEmbeddings(
        encoder=encoder,
        normalize=True,
        truncate_dim=encoder.dimension,
        max_length=encoder.max_length,
        query_instruction=encoder.recipe.instruction,
        max_batch_tokens=64,
        show_progress=True,
    )
    for role in ("query", "document"):
        assert same.cache_namespace(role) == embeddings.cache_namespace(role)


def test_namespace_is_of_one_role(embeddings: LLMEmbeddings, checkpoint: Path) -> None:
    assert embeddings.cache_namespace("query") != embeddings.cache_namespace("document")
    symmetric = LLMEmbeddings(model=checkpoint, dtype="float32", recipe="mean")
    assert symmetric.cache_namespace("query") != symmetric.cache_namespace("document")
    wrong: Any = "passage"
    with pytest.raises(ValueError, match="'passage'"):
        embeddings.cache_namespace(wrong)


def test_namespace_follows_the_byte_ranges(encoder: Encoder) -> None:
    names = set()
    for texts in (["a", "b", "c"], ["the sea", "in winter", "storms"]):
        encoder.calibrate(texts)
        embeddings = LLMEmbeddings(encoder=encoder, precision="int8")
        names |= {embeddings.cache_namespace("document") for _ in range(2)}
    assert len(names) == 2


async def test_a_file_of_vectors_is_one_option(
    embeddings: LLMEmbeddings, checkpoint: Path, tmp_path: Path
) -> None:
    texts, path = ["Cats purr.", "Dogs bark."], tmp_path / "vectors.sqlite"
    for hits in (0, 4):
        kept = LLMEmbeddings(model=checkpoint, dtype="float32", vector_cache=path)
        np.testing.assert_allclose(
            kept.embed_documents(texts), embeddings.embed_documents(texts), atol=1e-5
        )
        for text in texts:
            query = embeddings.embed_query(text)
            np.testing.assert_allclose(await kept.aembed_query(text), query, atol=1e-5)
        assert kept.encoder.vector_cache is not None
        assert kept.encoder.vector_cache.hits == hits


def test_devices_reach_the_core(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="leave out device and device_map"):
        LLMEmbeddings(model=checkpoint, devices=["cpu"], device="cpu")
    kept = LLMEmbeddings(model=checkpoint, dtype="float32", devices=["cpu"])
    assert kept.encoder.scheduler.devices == ["cpu"]

"""The vectors: the core's, in LangChain's types."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_llm_embeddings import LLMEmbeddings

from llm_embeddings import Encoder

TEXTS = [
    "Cats purr.",
    "",
    "def f(x):\n    return x\n",
    "naïve café, 量子, ما هي, 👩‍🚀",
    "one\rtwo\tthree  ",
    "a longer text about lighthouses, storms and ships " * 5,
]


def assert_close(a: Any, b: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


@pytest.mark.golden
def test_vectors_are_the_reference_ones(golden: Path, embeddings: LLMEmbeddings) -> None:
    case = golden / "e5-mistral"
    texts = json.loads((case / "case.json").read_text(encoding="utf-8"))["texts"]
    vectors = np.load(case / "golden.npz")
    assert_close(embeddings.embed_documents(texts), vectors["document/emb"], 1e-4)
    assert_close(embeddings.embed_queries(texts), vectors["query_web_search/emb"], 1e-4)


def test_vectors_are_the_core_ones(embeddings: LLMEmbeddings, encoder: Encoder) -> None:
    assert_close(embeddings.embed_documents(TEXTS), encoder.encode_document(TEXTS))
    assert_close(embeddings.embed_queries(TEXTS), encoder.encode_query(TEXTS))
    assert_close(embeddings.embed_query(TEXTS[2]), encoder.encode_query(TEXTS[2]))


def test_vectors_are_lists_of_floats(embeddings: LLMEmbeddings) -> None:
    query, documents = embeddings.embed_query("a"), embeddings.embed_documents(["a", "b"])
    for vector in (query, *documents):
        assert type(vector) is list
        assert {type(value) for value in vector} == {float}
        assert len(vector) == embeddings.dimension == 32


def test_queries_are_not_documents(embeddings: LLMEmbeddings) -> None:
    query, document = embeddings.embed_query("a"), embeddings.embed_documents(["a"])[0]
    assert np.abs(np.subtract(query, document)).max() > 1e-2


def test_batching_and_order_change_nothing(embeddings: LLMEmbeddings) -> None:
    together = embeddings.embed_documents(TEXTS)
    assert_close(together, [embeddings.embed_documents([text])[0] for text in TEXTS])
    assert_close(together[::-1], embeddings.embed_documents(TEXTS[::-1]))
    assert_close(embeddings.embed_queries(TEXTS), [embeddings.embed_query(text) for text in TEXTS])


def test_line_breaks_are_kept(embeddings: LLMEmbeddings) -> None:
    broken, spaced = embeddings.embed_documents(["one\ntwo", "one two"])
    assert np.abs(np.subtract(broken, spaced)).max() > 1e-3


def test_no_texts_give_no_vectors(embeddings: LLMEmbeddings) -> None:
    assert embeddings.embed_documents([]) == []
    assert embeddings.embed_queries([]) == []


async def test_async_gives_the_same(embeddings: LLMEmbeddings) -> None:
    assert_close(await embeddings.aembed_documents(TEXTS), embeddings.embed_documents(TEXTS))
    assert await embeddings.aembed_documents([]) == []


async def test_concurrent_calls_do_not_mix(embeddings: LLMEmbeddings) -> None:
    texts = [f"query {number} " * (number % 4 + 1) for number in range(20)]
    queries, documents = await asyncio.gather(
        asyncio.gather(*(embeddings.aembed_query(text) for text in texts)),
        embeddings.aembed_documents(texts),
    )
    assert_close(queries, embeddings.embed_queries(texts))
    assert_close(documents, embeddings.embed_documents(texts))


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("embed_documents", "one text", "'one text', not a list"),
        ("embed_queries", "one text", "'one text', not a list"),
        ("embed_documents", None, "NoneType"),
        ("embed_documents", ["a", 3], r"texts\[1\] is int"),
        ("embed_query", ["a"], "is list, not a string"),
        ("embed_query", None, "is NoneType, not a string"),
    ],
)
async def test_bad_input_is_named(
    embeddings: LLMEmbeddings, method: str, value: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(embeddings, method)(value)
    if hasattr(embeddings, f"a{method}"):
        with pytest.raises(TypeError, match=message):
            await getattr(embeddings, f"a{method}")(value)

"""In the places where LangChain uses embeddings."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_llm_embeddings import LLMEmbeddings, cache_backed

from llm_embeddings import Encoder

PASSAGES = [
    "Cats purr when they are content.",
    "The lighthouse keeper wrote about storms.",
    "Bitcoin is electronic cash.",
    "def fib(n):\n    return n",
]
QUERY = "What do cats do?"


def expected_order(encoder: Encoder) -> list[str]:
    scores = encoder.similarity(encoder.encode_query(QUERY), encoder.encode_document(PASSAGES))[0]
    return [PASSAGES[index] for index in scores.argsort()[::-1]]


def contents(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


async def check(store: VectorStore, encoder: Encoder) -> None:
    expected = expected_order(encoder)
    assert contents(store.similarity_search(QUERY, k=4)) == expected
    assert contents(await store.asimilarity_search(QUERY, k=4)) == expected
    assert contents(store.max_marginal_relevance_search(QUERY, k=1)) == expected[:1]


async def test_in_memory_store(embeddings: LLMEmbeddings, encoder: Encoder) -> None:
    await check(InMemoryVectorStore.from_texts(PASSAGES, embeddings), encoder)
    await check(await InMemoryVectorStore.afrom_texts(PASSAGES, embeddings), encoder)


async def test_in_memory_store_over_a_cache(embeddings: LLMEmbeddings, encoder: Encoder) -> None:
    cached = cache_backed(embeddings, InMemoryByteStore())
    for _ in range(2):
        await check(InMemoryVectorStore.from_texts(PASSAGES, cached), encoder)


async def test_qdrant(embeddings: LLMEmbeddings, encoder: Encoder) -> None:
    pytest.importorskip("langchain_qdrant")
    from langchain_qdrant import QdrantVectorStore

    store = QdrantVectorStore.from_texts(
        PASSAGES, embeddings, location=":memory:", collection_name="passages"
    )
    await check(store, encoder)


async def test_in_a_chain(embeddings: LLMEmbeddings, encoder: Encoder) -> None:
    store = InMemoryVectorStore.from_texts(PASSAGES, embeddings)
    retriever = store.as_retriever(search_kwargs={"k": 1})
    seen: list[str] = []

    def join(documents: list[Document]) -> str:
        seen.extend(contents(documents))
        return "\n".join(contents(documents))

    chain = (
        {"context": retriever | join, "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("{context}\n\n{question}")
        | FakeListChatModel(responses=["They purr."])
        | StrOutputParser()
    )
    assert chain.invoke(QUERY) == "They purr."
    assert await chain.ainvoke(QUERY) == "They purr."
    assert seen == expected_order(encoder)[:1] * 2

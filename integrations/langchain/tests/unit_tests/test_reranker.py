"""LangChain's documents in the order of the core's reranker."""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_llm_embeddings import DocumentReranker, GritLMChat

from llm_embeddings.generation import Reranker

TEXTS = ["Cats purr.", "Dogs bark at the postman.", "Owls"]


async def test_documents_come_as_the_core_orders_them(chat: GritLMChat) -> None:
    core = Reranker(chat.generator)
    documents = [Document(text, id=str(n), metadata={"n": n}) for n, text in enumerate(TEXTS)]
    wanted = core.rerank("cats", TEXTS)
    found = DocumentReranker(reranker=core, top_n=2).compress_documents(documents, "cats")
    assert [one.metadata for one in found] == [
        {"n": one.index, "relevance_score": one.score} for one in wanted[:2]
    ]
    assert [one.id for one in found] == [str(one.index) for one in wanted[:2]]
    assert documents[0].metadata == {"n": 0}
    every = await DocumentReranker(reranker=core).acompress_documents(documents, "cats")
    assert [one.page_content for one in every] == [TEXTS[one.index] for one in wanted]

"""`retriever | prompt | model`: what is found, and that no document is read twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_llm_embeddings import DocumentPrompt, DocumentRetriever, GritLMChat, LLMEmbeddings
from pydantic import ValidationError

from llm_embeddings import Encoder
from llm_embeddings.rag import DocumentIndex, StateStore

GOLDEN = Path(__file__).resolve().parents[4] / "tests/golden/gritlm-7b"
CACHED = json.loads((GOLDEN / "case.json").read_text(encoding="utf-8"))["generation_with_cache"]
TEXTS = [
    "Cats purr when they are content.",
    "The lighthouse keeper wrote about storms.",
    "Bitcoin is electronic cash.",
]
QUESTION = "What do cats do?"


def documents(**metadata: Any) -> list[Document]:
    return [Document(text, id=f"d{n}", metadata=metadata) for n, text in enumerate(TEXTS)]


def rag(retriever: DocumentRetriever, chat: GritLMChat) -> Runnable[str, Any]:
    return {"documents": retriever, "question": RunnablePassthrough()} | DocumentPrompt() | chat


@pytest.fixture
def retriever(gritlm: Encoder) -> DocumentRetriever:
    return DocumentRetriever.from_documents(documents(), LLMEmbeddings(encoder=gritlm), k=2)


def test_retriever_ranks_as_the_core_does(retriever: DocumentRetriever, gritlm: Encoder) -> None:
    scores = gritlm.similarity(gritlm.encode_query(QUESTION), gritlm.encode_document(TEXTS))[0]
    found = retriever.invoke(QUESTION, k=3, mode="vector")
    assert [document.page_content for document in found] == [
        TEXTS[place] for place in scores.argsort()[::-1]
    ]
    assert [document.metadata["relevance_score"] for document in found] == pytest.approx(
        sorted(scores.tolist(), reverse=True), abs=1e-5
    )
    hybrid = [(hit.id, hit.score) for hit in retriever.index.search(QUESTION, 2)]
    found = retriever.invoke(QUESTION)
    assert [(one.id, one.metadata["relevance_score"]) for one in found] == hybrid
    with pytest.raises(ValueError, match="k=0"):
        retriever.invoke(QUESTION, k=0)


async def test_a_call_of_a_retriever_changes_k_and_mode(retriever: DocumentRetriever) -> None:
    for changed in ({"k": 1}, {"k": 3, "mode": "words"}):
        found = await retriever.ainvoke(QUESTION, **changed)
        assert found == retriever.invoke(QUESTION, **changed)
        assert found != await retriever.ainvoke(QUESTION)


def test_retriever_keeps_metadata_ids_and_changes(gritlm: Encoder, tmp_path: Path) -> None:
    embeddings = LLMEmbeddings(encoder=gritlm)
    path = tmp_path / "documents.db"
    DocumentRetriever.from_documents(documents(source="a"), embeddings, path=path)
    changed = [Document("Dogs bark.", id="d0", metadata={"source": "b"})]
    retriever = DocumentRetriever.from_documents(changed, embeddings, path=path, k=9)
    found = {document.id: document for document in retriever.invoke("x")}
    assert {name: one.page_content for name, one in found.items()} == {
        "d0": "Dogs bark.",
        "d1": TEXTS[1],
        "d2": TEXTS[2],
    }
    assert {name: one.metadata["source"] for name, one in found.items()} == {
        "d0": "b",
        "d1": "a",
        "d2": "a",
    }


def test_retriever_uses_the_embeddings_instructions(gritlm: Encoder) -> None:
    embeddings = LLMEmbeddings(
        encoder=gritlm, query_instruction="Find it", document_instruction="Keep it"
    )
    retriever = DocumentRetriever.from_documents(documents(), embeddings, k=3, mode="vector")
    scores = gritlm.similarity(
        gritlm.encode_query(QUESTION, "Find it"), gritlm.encode_document(TEXTS, "Keep it")
    )[0]
    found = [document.metadata["relevance_score"] for document in retriever.invoke(QUESTION)]
    assert found == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)


def test_what_the_retriever_cannot_do_is_refused(gritlm: Encoder) -> None:
    with pytest.raises(ValueError, match="leave truncate_dim out"):
        DocumentRetriever.from_documents([], LLMEmbeddings(encoder=gritlm, truncate_dim=8))
    with pytest.raises(ValueError, match="2 of 3 documents have an id"):
        DocumentRetriever.from_documents(
            [*documents()[:2], Document("x")], LLMEmbeddings(encoder=gritlm)
        )
    with pytest.raises(ValidationError, match="k"):
        DocumentRetriever(index=DocumentIndex(gritlm), k=0)


def test_prompt_is_one_message_of_documents_and_question() -> None:
    (message,) = DocumentPrompt().format_messages(documents=documents(), question=QUESTION)
    assert isinstance(message, HumanMessage)
    assert message.text == QUESTION
    blocks = message.content_blocks
    assert [block["type"] for block in blocks] == ["text-plain"] * 3 + ["text"]
    assert [block.get("id") for block in blocks] == ["d0", "d1", "d2", None]


def cached(answer: AIMessage) -> int:
    return answer.usage_metadata["input_token_details"]["cache_read"]


def test_chain_answers_from_states_and_exactly(
    retriever: DocumentRetriever, gritlm: Encoder
) -> None:
    plain = GritLMChat(encoder=gritlm, max_tokens=12, mode="none")
    kept = GritLMChat(encoder=gritlm, max_tokens=12, states=StateStore())
    assert kept.reader.prepare(TEXTS) == 3
    counts = []
    for question in (QUESTION, QUESTION, "Which animals purr?"):
        answer, expected = (rag(retriever, chat).invoke(question) for chat in (kept, plain))
        assert answer.text == expected.text
        assert cached(expected) == 0
        counts.append(cached(answer))
    # One document at first, for the second stands behind it for the first time; then both.
    assert 10 < counts[0] < counts[1] == counts[2]


async def test_chain_streams(retriever: DocumentRetriever, chat: GritLMChat) -> None:
    chain = rag(retriever, chat)
    expected = chain.invoke(QUESTION)
    chunks = list(chain.stream(QUESTION))
    assert len(chunks) > 5
    assert "".join(chunk.text for chunk in chunks) == expected.text
    assert chunks[-1].usage_metadata["input_tokens"] == expected.usage_metadata["input_tokens"]
    parsed = chain | StrOutputParser()
    assert "".join([piece async for piece in parsed.astream(QUESTION)]) == expected.text
    assert await parsed.ainvoke(QUESTION) == expected.text


def test_papers_rule_gives_the_references_answers(gritlm: Encoder) -> None:
    run = CACHED["doc_cache"]
    tokens = run["new_ids"]
    chat = GritLMChat(encoder=gritlm, rule="paper", max_tokens=len(tokens))
    prompt = DocumentPrompt().format_messages(
        documents=[Document(run["doc"])], question=run["query"]
    )
    assert chat.invoke(prompt).text == gritlm.tokenizer.decode(tokens)
    exact = GritLMChat(encoder=gritlm, max_tokens=len(tokens)).invoke(prompt)
    assert exact.text != gritlm.tokenizer.decode(tokens)


def test_states_outlive_the_model(gritlm: Encoder, tmp_path: Path) -> None:
    first = GritLMChat(encoder=gritlm, states=StateStore(tmp_path))
    assert first.reader.prepare(TEXTS) == 3
    second = GritLMChat(encoder=gritlm, states=StateStore(tmp_path))
    assert second.reader.prepare(TEXTS) == 0


def test_changed_document_is_read_again(gritlm: Encoder) -> None:
    embeddings = LLMEmbeddings(encoder=gritlm)
    chat = GritLMChat(encoder=gritlm, max_tokens=12, states=StateStore())
    plain = GritLMChat(encoder=gritlm, max_tokens=12, mode="none")
    retriever = DocumentRetriever.from_documents(documents()[:1], embeddings)
    rag(retriever, chat).invoke(QUESTION)
    retriever.index.add(["Cats sleep all day."], ids=["d0"])
    answer = rag(retriever, chat).invoke(QUESTION)
    assert answer.text == rag(retriever, plain).invoke(QUESTION).text


def test_no_document_is_found(gritlm: Encoder, chat: GritLMChat) -> None:
    empty = DocumentRetriever(index=DocumentIndex(gritlm))
    assert rag(empty, chat).invoke(QUESTION).text == chat.invoke(QUESTION).text

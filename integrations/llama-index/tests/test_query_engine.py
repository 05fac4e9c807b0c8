"""Questions to an index: the answers, their sources, and that no document is read twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from llama_index.llms.llm_embeddings import (
    DocumentQueryEngine,
    DocumentRetriever,
    DocumentSynthesizer,
    GritLM,
)

from llm_embeddings.rag import DocumentIndex, StateStore

CASE = Path(__file__).parents[3] / "tests/golden/gritlm-7b/case.json"
CACHED = json.loads(CASE.read_text(encoding="utf-8"))["generation_with_cache"]
TEXTS = [
    "Cats purr when they are content.",
    "The lighthouse keeper wrote about storms.",
    "Bitcoin is electronic cash.",
]
QUESTION = "What do cats do?"


@pytest.fixture
def index(llm: GritLM) -> DocumentIndex:
    index = DocumentIndex(llm.encoder)
    metadata: list[dict[str, Any]] = [{"page": number} for number in range(3)]
    index.add(TEXTS, ids=["a", "b", "c"], metadata=metadata)
    return index


def test_retriever_ranks_as_the_core_does(llm: GritLM, index: DocumentIndex) -> None:
    found = DocumentRetriever(index, similarity_top_k=2).retrieve(QUESTION)
    hits = index.search(QUESTION, 2)
    assert [(one.node.node_id, one.score) for one in found] == [(hit.id, hit.score) for hit in hits]
    words = DocumentRetriever(index, mode="words").retrieve(QUESTION)
    assert [one.score for one in words] == [
        hit.score for hit in index.search(QUESTION, 2, mode="words")
    ]
    assert [one.node.metadata for one in found] == [hit.metadata for hit in hits]
    assert found[0].node.get_content(metadata_mode=MetadataMode.LLM) == hits[0].text
    with pytest.raises(ValueError, match="similarity_top_k=0"):
        DocumentRetriever(index, similarity_top_k=0)


async def test_engine_answers_with_sources(llm: GritLM, index: DocumentIndex) -> None:
    texts = [hit.text for hit in index.search(QUESTION, 2)]
    expected = llm.reader.answer(QUESTION, texts, max_new_tokens=12).text
    engine = DocumentQueryEngine(index, llm)
    response = engine.query(QUESTION)
    assert response.response == expected
    assert [source.node.text for source in response.source_nodes] == texts
    assert (await engine.aquery(QUESTION)).response == expected

    streaming = DocumentQueryEngine(index, llm, streaming=True)
    pieces = list(streaming.query(QUESTION).response_gen)
    assert len(pieces) > 5
    assert "".join(pieces) == expected
    stream = await streaming.aquery(QUESTION)
    assert "".join([piece async for piece in stream.async_response_gen()]) == expected


def count_reads(llm: GritLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens that are read for their states."""
    made: list[int] = []
    plain = llm.generator.states

    def counted(ids: Any, before: Any = None) -> Any:
        made.append(len(ids) - (0 if before is None else before.length))
        return plain(ids, before)

    monkeypatch.setattr(llm.generator, "states", counted)
    return made


def test_documents_are_read_once(
    llm: GritLM, index: DocumentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = GritLM(encoder=llm.encoder, max_new_tokens=12, states=StateStore())
    plain = GritLM(encoder=llm.encoder, max_new_tokens=12, mode="none")
    reads = count_reads(kept, monkeypatch)
    assert kept.reader.prepare(TEXTS) == 3
    assert len(reads) == 3
    engine = DocumentQueryEngine(index, kept, similarity_top_k=1)
    for question in (QUESTION, "Who wrote?", "What is cash?"):
        expected = DocumentQueryEngine(index, plain, similarity_top_k=1).query(question)
        assert engine.query(question).response == expected.response
    assert len(reads) == 3


def test_nodes_of_another_index_are_read_once(llm: GritLM, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = GritLM(encoder=llm.encoder, max_new_tokens=4, states=StateStore())
    reads = count_reads(kept, monkeypatch)
    nodes = [TextNode(text=text) for text in TEXTS]
    other = VectorStoreIndex(nodes, embed_model=LLMEmbedding(encoder=llm.encoder))
    engine = RetrieverQueryEngine(other.as_retriever(similarity_top_k=1), DocumentSynthesizer(kept))
    first = engine.query(QUESTION)
    assert len(reads) == 1
    assert engine.query(QUESTION).response == first.response
    assert len(reads) == 1


def test_papers_rule_gives_the_references_answers(llm: GritLM) -> None:
    run = CACHED["doc_cache"]
    tokens = run["new_ids"]
    index = DocumentIndex(llm.encoder)
    index.add([run["doc"]])
    expected = llm.encoder.tokenizer.decode(tokens)
    for rule, same in (("paper", True), ("exact", False)):
        other = GritLM(encoder=llm.encoder, rule=rule, max_new_tokens=len(tokens))
        response = DocumentQueryEngine(index, other).query(run["query"])
        assert (response.response == expected) == same


def test_hosts_parts_fit_in(llm: GritLM, index: DocumentIndex) -> None:
    engine = DocumentQueryEngine(
        index, llm, node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=2.0)]
    )
    assert engine.query(QUESTION).response == "Empty Response"
    assert engine.query(QUESTION).source_nodes == []


def test_options_of_a_call(llm: GritLM, index: DocumentIndex) -> None:
    nodes = DocumentRetriever(index).retrieve(QUESTION)
    synthesizer = DocumentSynthesizer(llm)
    response = synthesizer.synthesize(QUESTION, nodes, max_new_tokens=2)
    texts = [one.node.text for one in nodes]
    assert response.response == llm.reader.answer(QUESTION, texts, max_new_tokens=2).text
    with pytest.raises(TypeError, match="does not take max_tokens"):
        synthesizer.synthesize(QUESTION, nodes, max_tokens=2)
    with pytest.raises(ValueError, match="32768 positions"):
        synthesizer.synthesize(QUESTION, nodes, max_new_tokens=40_000)

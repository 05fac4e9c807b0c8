"""LlamaIndex's own machinery over the embedding: pipelines, caches, indices, settings, events."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.embeddings.llm_embeddings import LLMEmbedding

TEXTS = [
    "Cats purr.",
    "Paris is in France.",
    "Dogs bark at night.",
    "Rust has no garbage collector.",
]


def nodes() -> list[TextNode]:
    return [TextNode(text=text, id_=str(index)) for index, text in enumerate(TEXTS)]


def vectors(result: Any) -> list[list[float]]:
    return [node.embedding for node in result]


def embed(model: LLMEmbedding, texts: list[str]) -> list[list[float]]:
    return model.get_text_embedding_batch(texts)


class Collector(BaseEventHandler):
    """Keeps the events it is given."""

    events: list[Any] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Collector"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.events.append(event)


@pytest.fixture
def collector() -> Any:
    dispatcher = get_dispatcher()
    handlers = list(dispatcher.event_handlers)
    handler = Collector()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers = handlers


def test_pipeline_embeds_split_documents(embed_model: LLMEmbedding) -> None:
    splitter = SentenceSplitter(chunk_size=40, chunk_overlap=0)
    pipeline = IngestionPipeline(transformations=[splitter, embed_model])
    result = pipeline.run(documents=[Document(text="Cats purr and sleep. " * 20)])
    assert len(result) > 1
    expected = embed_model.get_text_embedding_batch([node.get_content() for node in result])
    np.testing.assert_allclose(vectors(result), expected, atol=1e-5)


async def test_async_pipeline_agrees(embed_model: LLMEmbedding) -> None:
    pipeline = IngestionPipeline(transformations=[embed_model], disable_cache=True)
    result = await pipeline.arun(nodes=nodes())
    expected = embed_model.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(vectors(result), expected, atol=1e-5)


@pytest.mark.slow
def test_pipeline_spreads_over_spawned_processes(embed_model: LLMEmbedding) -> None:
    pipeline = IngestionPipeline(transformations=[embed_model])
    result = pipeline.run(nodes=nodes(), num_workers=2)
    assert [node.text for node in result] == TEXTS
    expected = embed_model.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(vectors(result), expected, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.slow
def test_forked_workers_do_not_hang(embed_model: LLMEmbedding) -> None:
    texts = TEXTS * 20
    expected = embed_model.get_text_embedding_batch(texts)
    # A handler that another library has set here need not end a child, where it may be a thread of
    # that library that gets the signal.
    ends = signal.signal, (signal.SIGTERM, signal.SIG_DFL)
    with multiprocessing.get_context("fork").Pool(1, *ends) as pool:
        result = pool.apply_async(embed, (embed_model, texts)).get(timeout=60)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_pipeline_cache_is_hit_by_an_equal_model(
    embed_model: LLMEmbedding, options: dict[str, Any], collector: Collector
) -> None:
    cache = IngestionCache()
    IngestionPipeline(transformations=[embed_model], cache=cache).run(nodes=nodes())
    first = len(collector.events)
    again = LLMEmbedding(**options)
    result = IngestionPipeline(transformations=[again], cache=cache).run(nodes=nodes())
    assert len(collector.events) == first
    assert vectors(result) == embed_model.get_text_embedding_batch(TEXTS)


@pytest.mark.parametrize(
    "other",
    [
        {"text_instruction": "Describe the animal"},
        {"query_instruction": "Find the animal"},
        {"truncate_dim": 8},
        {"normalize": False},
        {"max_length": 30},
        {"model_name": "another"},
    ],
)
def test_pipeline_cache_is_not_shared_by_other_options(
    embed_model: LLMEmbedding, options: dict[str, Any], other: dict[str, Any]
) -> None:
    cache = IngestionCache()
    changed = LLMEmbedding(**{**options, **other}, encoder=embed_model.encoder)
    for model in (embed_model, changed):
        result = IngestionPipeline(transformations=[model], cache=cache).run(nodes=nodes())
        assert vectors(result) == model.get_text_embedding_batch(TEXTS)
    assert len(cache.cache.get_all(cache.collection)) == 2


def test_pipeline_cache_is_not_shared_by_other_weights(embed_model: LLMEmbedding) -> None:
    encoder = embed_model.encoder
    first = LLMEmbedding(encoder=encoder)
    second = LLMEmbedding(
        encoder=type(encoder)(
            encoder.backbone, encoder.tokenizer, encoder.recipe.replace(pooling="mean")
        )
    )
    cache = IngestionCache()
    for model in (first, second):
        IngestionPipeline(transformations=[model], cache=cache).run(nodes=nodes())
    assert len(cache.cache.get_all(cache.collection)) == 2


def test_index_ranks_as_the_core_does(embed_model: LLMEmbedding) -> None:
    index = VectorStoreIndex(nodes(), embed_model=embed_model)
    found = index.as_retriever(similarity_top_k=len(TEXTS)).retrieve("What do cats do?")
    encoder = embed_model.encoder
    scores = encoder.similarity(
        encoder.encode_query("What do cats do?"), encoder.encode_document(TEXTS)
    )[0]
    assert [int(hit.node.node_id) for hit in found] == np.argsort(-scores).tolist()
    np.testing.assert_allclose([hit.score for hit in found], np.sort(scores)[::-1], atol=1e-5)


async def test_index_answers_coroutines(embed_model: LLMEmbedding) -> None:
    index = VectorStoreIndex(nodes(), embed_model=embed_model, use_async=False)
    retriever = index.as_retriever(similarity_top_k=2)
    found, expected = await retriever.aretrieve("cats"), retriever.retrieve("cats")
    assert [hit.node.node_id for hit in found] == [hit.node.node_id for hit in expected]


def test_settings_take_it(embed_model: LLMEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_embed_model", None)
    Settings.embed_model = embed_model
    assert Settings.embed_model is embed_model
    assert VectorStoreIndex(nodes()).as_retriever(similarity_top_k=1).retrieve("cats")


def test_events_tell_the_model_and_the_vectors(
    embed_model: LLMEmbedding, collector: Collector
) -> None:
    vector = embed_model.get_query_embedding("cat")
    start, end = collector.events
    assert isinstance(start, EmbeddingStartEvent)
    assert isinstance(end, EmbeddingEndEvent)
    assert start.model_dict == embed_model.to_payload()
    assert start.model_dict["dimension"] == len(vector)
    assert "web search query" in start.model_dict["query_instruction"]
    assert (end.chunks, end.embeddings) == (["cat"], [vector])


def test_one_event_per_batch(embed_model: LLMEmbedding, collector: Collector) -> None:
    small = LLMEmbedding(encoder=embed_model.encoder, embed_batch_size=3)
    result = small.get_text_embedding_batch(TEXTS)
    ends = [event for event in collector.events if isinstance(event, EmbeddingEndEvent)]
    assert [len(event.chunks) for event in ends] == [3, 1]
    assert [row for event in ends for row in event.embeddings] == result


def test_callbacks_are_called(embed_model: LLMEmbedding) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    model = LLMEmbedding(encoder=embed_model.encoder, callback_manager=CallbackManager([handler]))
    model.get_text_embedding("cat")
    ((start, end),) = handler.get_event_pairs(CBEventType.EMBEDDING)
    assert start.payload[EventPayload.SERIALIZED] == model.to_payload()
    assert end.payload[EventPayload.CHUNKS] == ["cat"]

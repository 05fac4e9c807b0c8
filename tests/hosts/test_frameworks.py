"""Frameworks with their real packages: their embedders over ours, or over the server."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close
from helpers.serving import running
from helpers.stores import PASSAGES, QUERIES

from llm_embeddings import Encoder
from llm_embeddings.serving import create_app

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings("default"),
]

QUERY = QUERIES[1]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_pretrained()


@pytest.fixture(scope="module")
def order(encoder: Encoder) -> list[str]:
    """Passages as exact search has them, the nearest first."""
    scores = encoder.encode_document(PASSAGES) @ encoder.encode_query(QUERY)
    return [PASSAGES[index] for index in np.argsort(-scores)]


@pytest.fixture(scope="module")
def address(encoder: Encoder) -> Iterator[str]:
    with running(create_app(encoder, name="model")) as found:
        yield found


def test_haystack_over_the_server(
    address: str, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("haystack")
    from haystack import Document, Pipeline
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    embedder = OpenAIDocumentEmbedder(api_base_url=f"{address}/v1", model="model")
    store.write_documents(embedder.run([Document(content=text) for text in PASSAGES])["documents"])
    pipeline = Pipeline()
    query = OpenAITextEmbedder(api_base_url=f"{address}/v1", model="model:query")
    pipeline.add_component("embedder", query)
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=5))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    found = pipeline.run({"embedder": {"text": QUERY}})["retriever"]["documents"]
    assert [document.content for document in found] == order[:5]


def test_haystack_over_a_saved_model(encoder: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("haystack")
    home = "haystack_integrations.components.embedders.sentence_transformers"
    embedders = pytest.importorskip(home)
    from haystack import Document
    from sentence_transformers_llm_embeddings import as_sentence_transformer

    as_sentence_transformer(encoder).save(str(tmp_path))
    options = {"model": str(tmp_path), "trust_remote_code": True, "progress_bar": False}
    documents = embedders.SentenceTransformersDocumentEmbedder(**options)
    documents.warm_up()
    made = documents.run([Document(content=text) for text in PASSAGES])["documents"]
    assert_close([one.embedding for one in made], encoder.encode_document(PASSAGES), 1e-5)
    role = {"encode_kwargs": {"prompt_name": "query"}}
    query = embedders.SentenceTransformersTextEmbedder(**options, **role)
    query.warm_up()
    assert_close(query.run(QUERY)["embedding"], encoder.encode_query(QUERY), 1e-5)


def test_dspy(encoder: Encoder, address: str, order: list[str]) -> None:
    dspy = pytest.importorskip("dspy")
    assert_close(
        dspy.Embedder(encoder.encode_query)(PASSAGES), encoder.encode_query(PASSAGES), 1e-6
    )
    hosted = dspy.Embedder("openai/model", api_base=f"{address}/v1", api_key="none", caching=False)
    assert_close(hosted(PASSAGES), encoder.encode_document(PASSAGES), 1e-6)
    search = dspy.retrievers.Embeddings(
        corpus=PASSAGES, embedder=dspy.Embedder(encoder.encode), k=5, cache=False
    )
    scores = encoder.encode(PASSAGES) @ encoder.encode(QUERY)
    assert search(QUERY).passages == [PASSAGES[i] for i in np.argsort(-scores)[:5]]


async def test_langgraph_store(encoder: Encoder, order: list[str]) -> None:
    pytest.importorskip("langgraph")
    from langchain_llm_embeddings import LLMEmbeddings
    from langgraph.store.memory import InMemoryStore

    embeddings = LLMEmbeddings(encoder=encoder)
    fields = ["text"]  # else it embeds the JSON of the whole value
    dims = encoder.dimension
    store = InMemoryStore(index={"embed": embeddings, "dims": dims, "fields": fields})
    for number, text in enumerate(PASSAGES):
        await store.aput(("passages",), str(number), {"text": text})
    for found in (
        store.search(("passages",), query=QUERY, limit=5),
        await store.asearch(("passages",), query=QUERY, limit=5),
    ):
        assert [item.value["text"] for item in found] == order[:5]


def test_spark(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to the workers is a name: they open the model themselves, once for a partition."""
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    import pandas
    from langchain_llm_embeddings import LLMEmbeddings

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    embeddings = LLMEmbeddings()

    def embed(parts: Iterator[pandas.Series]) -> Iterator[pandas.Series]:
        for texts in parts:
            yield pandas.Series(embeddings.embed_documents(list(texts)))

    embed.__annotations__ = {
        "parts": Iterator[pandas.Series],
        "return": Iterator[pandas.Series],
    }
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = session.getOrCreate()
    try:
        rows = spark.createDataFrame(list(enumerate(PASSAGES)), "id int, text string")
        made = rows.select("id", sql.functions.pandas_udf(embed, "array<float>")("text"))
        found = [row[1] for row in sorted(made.collect())]
    finally:
        spark.stop()
    assert_close(found, encoder.encode_document(PASSAGES), 1e-6)

"""Vector stores through LangChain and LlamaIndex find what exact search finds, offline.

Small codes lose some neighbours; rescoring their candidates with float vectors brings them back.
The stores run in this process, and anonymised telemetry is off where a store has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stores import PASSAGES, QUERIES, K, exact_places
from numpy.typing import NDArray

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus

pytestmark = [
    pytest.mark.slow,
    # LlamaIndex's LanceDB store asks the connection for its tables under an old name.
    pytest.mark.filterwarnings("ignore:table_names.. is deprecated:DeprecationWarning"),
    # LlamaIndex's Qdrant store makes an index that only a server has.
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
]

Search = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_pretrained()


@pytest.fixture(scope="module")
def exact(encoder: Encoder) -> list[list[str]]:
    """The nearest passages of each query, nearest first."""
    return [[PASSAGES[row] for row in rows] for rows in exact_places(encoder)]


def langchain_qdrant(encoder: Encoder, folder: Path) -> Search:
    from langchain_llm_embeddings import LLMEmbeddings
    from langchain_qdrant import QdrantVectorStore

    store = QdrantVectorStore.from_texts(
        PASSAGES, LLMEmbeddings(encoder=encoder), location=":memory:"
    )
    return lambda query: [found.page_content for found in store.similarity_search(query, K)]


def langchain_chroma(encoder: Encoder, folder: Path) -> Search:
    pytest.importorskip("langchain_chroma")
    from chromadb.config import Settings
    from langchain_chroma import Chroma
    from langchain_llm_embeddings import LLMEmbeddings

    store = Chroma.from_texts(
        PASSAGES,
        LLMEmbeddings(encoder=encoder),
        client_settings=Settings(anonymized_telemetry=False),
        collection_configuration={"hnsw": {"space": "cosine"}},
    )
    return lambda query: [found.page_content for found in store.similarity_search(query, K)]


def llama_index(store: Any, encoder: Encoder) -> Search:
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.llm_embeddings import LLMEmbedding

    index = VectorStoreIndex(
        [TextNode(text=passage) for passage in PASSAGES],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=LLMEmbedding(encoder=encoder),
    )
    retriever = index.as_retriever(similarity_top_k=K)
    return lambda query: [hit.text for hit in retriever.retrieve(query)]


def llama_index_qdrant(encoder: Encoder, folder: Path) -> Search:
    pytest.importorskip("llama_index.vector_stores.qdrant")
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    return llama_index(QdrantVectorStore("nodes", client=QdrantClient(":memory:")), encoder)


def llama_index_faiss(encoder: Encoder, folder: Path) -> Search:
    pytest.importorskip("llama_index.vector_stores.faiss")
    import faiss
    from llama_index.vector_stores.faiss import FaissVectorStore

    return llama_index(FaissVectorStore(faiss.IndexFlatIP(encoder.dimension)), encoder)


def llama_index_lancedb(encoder: Encoder, folder: Path) -> Search:
    pytest.importorskip("llama_index.vector_stores.lancedb")
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    return llama_index(LanceDBVectorStore(str(folder)), encoder)


def llama_index_chroma(encoder: Encoder, folder: Path) -> Search:
    pytest.importorskip("llama_index.vector_stores.chroma")
    import chromadb
    from chromadb.config import Settings
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))
    collection = client.create_collection("nodes", configuration={"hnsw": {"space": "cosine"}})
    return llama_index(ChromaVectorStore(collection), encoder)


STORES = [
    langchain_qdrant,
    langchain_chroma,
    llama_index_qdrant,
    llama_index_faiss,
    llama_index_lancedb,
    llama_index_chroma,
]


@pytest.mark.parametrize("build", STORES, ids=lambda build: build.__name__)
def test_a_store_finds_what_exact_search_finds(
    build: Callable[[Encoder, Path], Search],
    encoder: Encoder,
    exact: list[list[str]],
    tmp_path: Path,
) -> None:
    search = build(encoder, tmp_path)
    assert [search(query) for query in QUERIES] == exact


Rows = NDArray[np.int64]


class Corpus:
    """All passages as vectors, and the nearest of each query."""

    def __init__(self, encoder: Encoder) -> None:
        documents = load_corpus()
        self.texts = [document.passage[:80] for document in documents]
        self.titles = [document.title for document in documents[::8]]
        self.vectors = encoder.encode_document(self.texts)
        self.queries = encoder.encode_query(self.titles)
        self.nearest = (self.queries @ self.vectors.T).argsort(axis=1)[:, ::-1][:, :10]

    def recall(self, found: Any) -> float:
        """Share of the ten nearest passages that are among the ten found."""
        pairs = zip(np.asarray(found), self.nearest, strict=True)
        return float(np.mean([np.isin(rows, wanted).mean() for rows, wanted in pairs]))


@pytest.fixture(scope="module")
def corpus(encoder: Encoder) -> Corpus:
    return Corpus(encoder)


@pytest.fixture
def table(corpus: Corpus, tmp_path: Path) -> Iterator[Any]:
    lancedb = pytest.importorskip("lancedb")
    rows = [{"row": row, "vector": vector} for row, vector in enumerate(corpus.vectors)]
    return lancedb.connect(tmp_path).create_table("passages", rows)


def test_faiss_one_bit_then_floats(corpus: Corpus, encoder: Encoder) -> None:
    faiss = pytest.importorskip("faiss")
    dim = encoder.dimension
    signs = faiss.IndexLSH(dim, dim, False, False)
    refined = faiss.IndexRefineFlat(signs)
    refined.add(corpus.vectors)
    bits = faiss.IndexBinaryFlat(dim)
    bits.add(encoder.encode_document(corpus.texts, precision="ubinary"))
    query_bits = encoder.encode_query(corpus.titles, precision="ubinary")
    distances, rows = bits.search(query_bits, 10)
    np.testing.assert_array_equal(signs.search(corpus.queries, 10)[0], distances)  # the same codes
    plain = corpus.recall(rows)
    refined.k_factor = 8
    again = corpus.recall(refined.search(corpus.queries, 10)[1])
    refined.k_factor = len(corpus.texts) / 10  # all are candidates: nothing is lost
    assert corpus.recall(refined.search(corpus.queries, 10)[1]) == 1
    assert plain < 0.7
    assert again > 0.85


def test_faiss_eight_bits(corpus: Corpus, encoder: Encoder) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexScalarQuantizer(encoder.dimension, faiss.ScalarQuantizer.QT_8bit)
    index.train(corpus.vectors)
    index.add(corpus.vectors)
    assert corpus.recall(index.search(corpus.queries, 10)[1]) > 0.97


def test_faiss_rescores_behind_llama_index(encoder: Encoder, exact: list[list[str]]) -> None:
    pytest.importorskip("llama_index.vector_stores.faiss")
    import faiss
    from llama_index.vector_stores.faiss import FaissVectorStore

    signs = faiss.IndexLSH(encoder.dimension, encoder.dimension, False, False)
    refined = faiss.IndexRefineFlat(signs)
    refined.k_factor = len(PASSAGES) / K
    search = llama_index(FaissVectorStore(refined), encoder)
    assert [search(query) for query in QUERIES] == exact


def test_lancedb_one_bit_then_floats(corpus: Corpus, table: Any) -> None:
    from lancedb.index import IvfRq

    table.create_index("vector", config=IvfRq(num_partitions=1))
    searches = [table.search(query).limit(10) for query in corpus.queries]
    plain = [[hit["row"] for hit in search.to_list()] for search in searches]
    again = [[hit["row"] for hit in s.refine_factor(8).to_list()] for s in searches]
    assert corpus.recall(plain) < 0.95
    assert corpus.recall(again) > 0.97


def test_lancedb_takes_the_encoders_bits(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    import pyarrow as pa

    bits = encoder.encode_document(corpus.texts, precision="ubinary")
    query_bits = encoder.encode_query(corpus.titles, precision="ubinary")
    column = pa.FixedSizeListArray.from_arrays(pa.array(bits.ravel()), bits.shape[1])
    data = pa.table({"row": range(len(bits)), "vector": column})
    table = lancedb.connect(tmp_path).create_table("bits", data)
    for query in query_bits[:5]:
        hits = table.search(query).distance_type("hamming").limit(10).to_list()
        distances = np.bitwise_count(bits ^ query).sum(1)
        assert [hit["_distance"] for hit in hits] == sorted(distances)[:10]
        assert [hit["_distance"] for hit in hits] == [distances[hit["row"]] for hit in hits]


def test_lancedb_rescores_behind_llama_index(corpus: Corpus, table: Any) -> None:
    pytest.importorskip("llama_index.vector_stores.lancedb")
    from lancedb.index import IvfPq
    from llama_index.core.vector_stores.types import VectorStoreQuery
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    table.add_columns({"id": "cast(row as string)", "text": "''", "metadata": "''"})
    table.add_columns({"doc_id": "''"})
    table.create_index("vector", config=IvfPq(num_partitions=1, num_sub_vectors=24))
    store = LanceDBVectorStore.from_table(table)

    def found(refine_factor: int | None) -> list[list[int]]:
        store.refine_factor = refine_factor
        queries = (VectorStoreQuery(q.tolist(), similarity_top_k=10) for q in corpus.queries)
        return [[int(name) for name in store.query(query).ids or []] for query in queries]

    assert corpus.recall(found(None)) < corpus.recall(found(8))
    assert corpus.recall(found(8)) > 0.97


def test_qdrant_bytes_then_floats(corpus: Corpus, encoder: Encoder) -> None:
    """Bytes need one scale for all dimensions; signs find candidates for a second, full vector."""
    from qdrant_client import QdrantClient, models

    def configured(distance: models.Distance) -> models.VectorParams:
        byte = models.Datatype.UINT8
        return models.VectorParams(size=encoder.dimension, distance=distance, datatype=byte)

    scale = 127 / np.abs(corpus.vectors).max()

    def levels(vectors: Any) -> list[list[float]]:
        return np.clip(np.round(vectors * scale) + 128, 0, 255).tolist()

    def signs(vectors: Any) -> list[list[float]]:
        return (vectors > 0).astype(float).tolist()

    client = QdrantClient(":memory:")
    kinds = {
        "byte": configured(models.Distance.EUCLID),
        "sign": configured(models.Distance.MANHATTAN),
        "full": models.VectorParams(size=encoder.dimension, distance=models.Distance.COSINE),
    }
    client.create_collection("passages", kinds)
    rows = zip(levels(corpus.vectors), signs(corpus.vectors), corpus.vectors.tolist(), strict=True)
    points = [
        models.PointStruct(id=number, vector=dict(zip(kinds, row, strict=True)))
        for number, row in enumerate(rows)
    ]
    client.upload_points("passages", points)

    def found(query: list[float], kind: str, prefetch: models.Prefetch | None = None) -> list[Any]:
        hits = client.query_points("passages", query, kind, prefetch=prefetch, limit=10)
        return [hit.id for hit in hits.points]

    candidates = [models.Prefetch(query=q, using="sign", limit=80) for q in signs(corpus.queries)]
    pairs = zip(corpus.queries.tolist(), candidates, strict=True)
    by_bytes = corpus.recall([found(query, "byte") for query in levels(corpus.queries)])
    by_signs = corpus.recall([found(query, "sign") for query in signs(corpus.queries)])
    rescored = corpus.recall([found(query, "full", more) for query, more in pairs])
    assert by_bytes > 0.95
    assert by_signs < 0.7
    assert rescored > 0.85


def test_calibrated_levels_are_no_vectors(corpus: Corpus, encoder: Encoder) -> None:
    """Each dimension of `precision="uint8"` has its own scale: decode before you compare."""
    levels = encoder.encode_document(corpus.texts, precision="uint8").astype(np.float32)
    query_levels = encoder.encode_query(corpus.titles, precision="uint8").astype(np.float32)
    low, high = encoder.ranges[encoder.dimension, True]
    decoded = (levels + 0.5) * (high - low) / 255 + low
    by_levels = ((query_levels[:, None] - levels) ** 2).sum(2).argsort(axis=1)[:, :10]
    by_values = (corpus.queries @ decoded.T).argsort(axis=1)[:, ::-1][:, :10]
    assert corpus.recall(by_levels) < 0.92
    assert corpus.recall(by_values) > 0.97


def test_qdrants_own_quantization_is_accepted(encoder: Encoder, exact: list[list[str]]) -> None:
    """A server applies it; the in-process mode takes the configuration and stays exact."""
    from langchain_llm_embeddings import LLMEmbeddings
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import models

    scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    store = QdrantVectorStore.from_texts(
        PASSAGES,
        LLMEmbeddings(encoder=encoder),
        location=":memory:",
        vector_params={"on_disk": True},
        collection_create_options={"quantization_config": models.ScalarQuantization(scalar=scalar)},
    )
    found = [[d.page_content for d in store.similarity_search(q, K)] for q in QUERIES]
    assert found == exact

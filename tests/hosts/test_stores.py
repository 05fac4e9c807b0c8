"""Databases with their real packages find what exact search finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers.compatibility import run
from helpers.stores import PASSAGES, QUERIES, K, exact_places
from numpy.typing import NDArray

from llm_embeddings import Encoder

pytestmark = [pytest.mark.enable_socket, pytest.mark.filterwarnings("default")]

Search = Callable[[NDArray[Any]], list[int]]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_pretrained()


def duckdb_table(encoder: Encoder, folder: Path, stack: ExitStack) -> Search:
    """Vectors as a column of arrays, written from NumPy."""
    duckdb = pytest.importorskip("duckdb")
    dim = encoder.dimension
    base = stack.enter_context(duckdb.connect(str(folder / "base.duckdb")))
    base.execute(f"CREATE TABLE passages (id INTEGER, vector FLOAT[{dim}])")
    rows = list(enumerate(encoder.encode_document(PASSAGES).tolist()))
    base.executemany("INSERT INTO passages VALUES (?, ?)", rows)
    return found_by(base, "passages", dim)


def duckdb_file(encoder: Encoder, folder: Path, stack: ExitStack) -> Search:
    """The Parquet file that `llm-embeddings encode` writes, read in place."""
    duckdb = pytest.importorskip("duckdb")
    rows = (json.dumps({"id": i, "text": text}) for i, text in enumerate(PASSAGES))
    (folder / "passages.jsonl").write_text("\n".join(rows), encoding="utf-8")
    file = folder / "vectors.parquet"
    run("encode", str(folder / "passages.jsonl"), "-o", str(file))
    table = f"(SELECT id, embedding AS vector FROM '{file}')"
    return found_by(duckdb.connect(), table, encoder.dimension)


def found_by(base: Any, table: str, dim: int) -> Search:
    order = f"array_cosine_similarity(vector::FLOAT[{dim}], ?::FLOAT[{dim}]) DESC"
    words = f"SELECT id FROM {table} ORDER BY {order} LIMIT {K}"
    return lambda query: [row[0] for row in base.execute(words, [query.tolist()]).fetchall()]


def pgvector(encoder: Encoder, folder: Path, stack: ExitStack) -> Search:
    """PostgreSQL with its extension, whose psycopg adapter takes NumPy vectors."""
    psycopg = pytest.importorskip("psycopg")
    register_vector = pytest.importorskip("pgvector.psycopg").register_vector
    server = pytest.importorskip("pgserver").get_server(folder / "postgres")
    stack.callback(server.cleanup)
    base = stack.enter_context(psycopg.connect(server.get_uri(), autocommit=True))
    base.execute("CREATE EXTENSION vector")
    register_vector(base)
    base.execute(f"CREATE TABLE passages (id int, vector vector({encoder.dimension}))")
    with base.cursor() as cursor:
        rows = list(enumerate(encoder.encode_document(PASSAGES)))
        cursor.executemany("INSERT INTO passages VALUES (%s, %s)", rows)
    words = f"SELECT id FROM passages ORDER BY vector <=> %s LIMIT {K}"
    return lambda query: [row[0] for row in base.execute(words, (query,)).fetchall()]


def milvus(encoder: Encoder, folder: Path, stack: ExitStack) -> Search:
    """Milvus Lite, with NumPy vectors as they come."""
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    client = pymilvus.MilvusClient(str(folder / "base.db"))
    stack.callback(client.close)
    client.create_collection("passages", dimension=encoder.dimension, metric_type="COSINE")
    vectors = encoder.encode_document(PASSAGES)
    client.insert("passages", [{"id": i, "vector": vector} for i, vector in enumerate(vectors)])
    return lambda query: [hit["id"] for hit in client.search("passages", data=[query], limit=K)[0]]


@pytest.mark.parametrize("store", [duckdb_table, duckdb_file, pgvector, milvus])
def test_a_store_finds_what_exact_search_finds(
    encoder: Encoder, tmp_path: Path, store: Callable[[Encoder, Path, ExitStack], Search]
) -> None:
    with ExitStack() as stack:
        search = store(encoder, tmp_path, stack)
        found = [search(query) for query in encoder.encode_query(QUERIES)]
    assert found == exact_places(encoder)

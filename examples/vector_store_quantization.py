"""One bit per dimension in FAISS, LanceDB and Qdrant; then candidates are rescored with floats."""

import tempfile

import faiss
import lancedb
from lancedb.index import IvfRq
from qdrant_client import QdrantClient, models

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus

K, MORE = 10, 8  # wanted passages; candidates for each of them


def main() -> None:
    encoder, passages = Encoder.from_pretrained(), load_corpus()
    vectors = encoder.encode_document([p.passage[:200] for p in passages])
    queries, dim = encoder.encode_query([p.title for p in passages[::8]]), encoder.dimension
    nearest = (queries @ vectors.T).argsort()[:, ::-1][:, :K]

    bits = faiss.IndexLSH(dim, dim, False, False)  # one sign per dimension: 48 bytes for 1536
    refined = faiss.IndexRefineFlat(bits)  # fills `bits`, too, and keeps the float vectors
    refined.k_factor = MORE
    refined.add(vectors)
    found = {"FAISS": (bits.search(queries, K)[1], refined.search(queries, K)[1])}

    with tempfile.TemporaryDirectory() as folder:
        rows = [{"row": row, "vector": vector} for row, vector in enumerate(vectors)]
        table = lancedb.connect(folder).create_table("passages", rows)
        table.create_index("vector", config=IvfRq(num_partitions=1))  # RaBitQ: 1 bit, and scales
        search = [table.search(query).limit(K) for query in queries]
        plain = [[hit["row"] for hit in s.to_list()] for s in search]
        again = [[hit["row"] for hit in s.refine_factor(MORE).to_list()] for s in search]
        found["LanceDB"] = plain, again

    client = QdrantClient(":memory:")  # a server does this by itself: quantization_config
    byte = {"distance": models.Distance.MANHATTAN, "datatype": models.Datatype.UINT8}
    cosine = models.VectorParams(size=dim, distance=models.Distance.COSINE, on_disk=True)
    client.create_collection("p", {"signs": models.VectorParams(size=dim, **byte), "full": cosine})
    pairs = [{"signs": (v > 0).astype(float).tolist(), "full": v.tolist()} for v in vectors]
    client.upload_points("p", [models.PointStruct(id=i, vector=v) for i, v in enumerate(pairs)])
    plain, again = [], []
    for query in queries:
        signs = {"query": (query > 0).astype(float).tolist(), "using": "signs"}
        plain.append([hit.id for hit in client.query_points("p", **signs, limit=K).points])
        candidates = models.Prefetch(**signs, limit=K * MORE)
        hits = client.query_points("p", query.tolist(), "full", prefetch=candidates, limit=K)
        again.append([hit.id for hit in hits.points])
    found["Qdrant"] = plain, again

    print(f"Of the {K} nearest of {len(passages)} passages, found by 1 bit per dimension:")
    for name, both in found.items():
        hits = [zip(rows, nearest.tolist(), strict=True) for rows in both]
        plain, again = (sum(len({*a} & {*b}) for a, b in rows) / nearest.size for rows in hits)
        print(f"  {name:8}{plain:.2f}, rescored {again:.2f}")


if __name__ == "__main__":
    main()

"""LlamaIndex: the same passages in Qdrant, FAISS, LanceDB and Chroma, held against exact search."""

import tempfile

import chromadb
import faiss
import numpy as np
from chromadb.config import Settings
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.faiss import FaissVectorStore
from llama_index.vector_stores.lancedb import LanceDBVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from llm_embeddings.corpus import load_corpus

K = 5
QUESTIONS = ("How do cells make ATP from glucose?", "What did Hobbes say of the state of nature?")


def main() -> None:
    embed_model = LLMEmbedding()
    passages = load_corpus()[30:60]
    nodes = [TextNode(text=p.passage, metadata={"title": p.title}) for p in passages]
    vectors = np.array(embed_model.get_text_embedding_batch([p.passage for p in passages]))
    for node, vector in zip(nodes, vectors, strict=True):
        node.embedding = vector.tolist()  # an index embeds only what has no vector yet

    chroma = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))  # it is on by default
    cosine = {"hnsw": {"space": "cosine"}}  # the default is Euclidean
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            "Qdrant": QdrantVectorStore("passages", client=QdrantClient(":memory:")),
            "FAISS": FaissVectorStore(faiss.IndexFlatIP(embed_model.dimension)),
            "LanceDB": LanceDBVectorStore(folder),
            "Chroma": ChromaVectorStore(chroma.create_collection("nodes", configuration=cosine)),
        }
        found = {}
        for name, store in stores.items():
            context = StorageContext.from_defaults(vector_store=store)
            index = VectorStoreIndex(nodes, storage_context=context, embed_model=embed_model)
            retriever = index.as_retriever(similarity_top_k=K)
            found[name] = [[hit.id_ for hit in retriever.retrieve(q)] for q in QUESTIONS]

    for number, question in enumerate(QUESTIONS):
        query = np.array(embed_model.get_query_embedding(question))
        exact = [nodes[row] for row in (vectors @ query).argsort()[::-1][:K]]
        print(f"{question} {exact[0].metadata['title']}")
        for name, hits in found.items():
            same = hits[number] == [node.id_ for node in exact]
            print(f"  {name:8}{'the same' if same else 'not the same'} {K} passages")


if __name__ == "__main__":
    main()

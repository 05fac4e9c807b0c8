"""LangChain: the same passages in Qdrant, Chroma, FAISS and LanceDB, held against exact search."""

import tempfile

import faiss
import lancedb
import numpy as np
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_llm_embeddings import LLMEmbeddings
from langchain_qdrant import QdrantVectorStore

from llm_embeddings.corpus import load_corpus

K = 5
QUESTIONS = ("How do cells make ATP from glucose?", "What did Hobbes say of the state of nature?")


def main() -> None:
    embeddings = LLMEmbeddings()  # model="intfloat/e5-mistral-7b-instruct" on a GPU
    documents = [Document(p.passage, metadata={"title": p.title}) for p in load_corpus()[30:60]]
    vectors = np.array(embeddings.embed_documents([d.page_content for d in documents]), np.float32)

    qdrant = QdrantVectorStore.from_documents(documents, embeddings, location=":memory:")
    chroma = Chroma(
        "textbook",  # collections in memory are shared by all of a process
        embeddings,
        client_settings=Settings(anonymized_telemetry=False),  # it is on by default
        collection_configuration={"hnsw": {"space": "cosine"}},  # the default is Euclidean
    )
    chroma.add_documents(documents)
    index = faiss.IndexFlatIP(embeddings.dimension)  # unit vectors: inner product = cosine
    index.add(vectors)
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"row": row, "vector": vector} for row, vector in enumerate(vectors)]
        table = lancedb.connect(folder).create_table("passages", rows)

        # LangChain keeps no package for these two. RunnableLambda(search) goes into a chain.
        def search_faiss(question: str) -> list[Document]:
            query = np.array([embeddings.embed_query(question)], np.float32)
            return [documents[row] for row in index.search(query, K)[1][0]]

        def search_lancedb(question: str) -> list[Document]:
            hits = table.search(embeddings.embed_query(question)).distance_type("cosine").limit(K)
            return [documents[hit["row"]] for hit in hits.to_list()]

        for question in QUESTIONS:
            order = (vectors @ np.array(embeddings.embed_query(question))).argsort()[::-1][:K]
            print(f"{question} {documents[order[0]].metadata['title']}")
            found = {"Qdrant": qdrant.similarity_search(question, K)}
            found["Chroma"] = chroma.similarity_search(question, K)
            found |= {"FAISS": search_faiss(question), "LanceDB": search_lancedb(question)}
            for name, hits in found.items():
                same = [d.page_content for d in hits] == [documents[i].page_content for i in order]
                print(f"  {name:8}{'the same' if same else 'not the same'} {K} passages")


if __name__ == "__main__":
    main()

"""LlamaIndex: an `IngestionPipeline` that splits, embeds and stores, and embeds nothing twice."""

import time

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.embeddings.llm_embeddings import LLMEmbedding

from llm_embeddings.corpus import load_corpus


def main() -> None:
    embed_model = LLMEmbedding()
    store = SimpleVectorStore(stores_text=True)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=128, chunk_overlap=16), embed_model],
        vector_store=store,
    )
    documents = [
        Document(text=passage.text, id_=passage.id, metadata={"title": passage.title})
        for passage in load_corpus()[:20]
    ]
    start = time.perf_counter()
    nodes = pipeline.run(documents=documents)
    print(f"{len(documents)} passages -> {len(nodes)} chunks of {embed_model.dimension} numbers")
    first = time.perf_counter() - start
    start = time.perf_counter()
    pipeline.run(documents=documents)
    print(f"first run {first:.2f} s, again {time.perf_counter() - start:.2f} s: from the cache")

    # The cache key holds every option and the weights: a change embeds anew, never mixes.
    index = VectorStoreIndex(nodes, embed_model=embed_model)
    retriever = index.as_retriever(similarity_top_k=1)
    for question in ("how nerve fibres are insulated", "bacteria multiply by division"):
        hit = retriever.retrieve(question)[0]
        print(f"{question}\n  {hit.score:.3f}  {hit.node.metadata['title']}: {hit.text[:60]}...")


if __name__ == "__main__":
    main()

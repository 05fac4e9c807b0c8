"""LlamaIndex: a `VectorStoreIndex` of documents, written to disk, read back and searched."""

import tempfile

from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.embeddings.llm_embeddings import LLMEmbedding

from llm_embeddings.corpus import load_corpus

QUESTIONS = (
    "How does the body turn glucose into energy?",
    "What is life like in Hobbes' state of nature?",
    "How do firms ship goods through other companies?",
)


def main() -> None:
    embed_model = LLMEmbedding()
    documents = [
        Document(text=passage.passage, metadata={"title": passage.title}, id_=passage.id)
        for passage in load_corpus()[:50]
    ]
    for document in documents:  # the title is in the text already: do not embed it twice
        document.excluded_embed_metadata_keys = ["title"]
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)

    with tempfile.TemporaryDirectory() as folder:
        index.storage_context.persist(folder)
        stored = StorageContext.from_defaults(persist_dir=folder)
        loaded = load_index_from_storage(stored, embed_model=embed_model)

    retriever = loaded.as_retriever(similarity_top_k=2)
    for question in QUESTIONS:
        print(question)
        for hit in retriever.retrieve(question):
            print(f"  {hit.score:.3f}  {hit.node.metadata['title']}")


if __name__ == "__main__":
    main()

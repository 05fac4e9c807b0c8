"""Retrieval-augmented generation with LangChain and an in-process Qdrant store, with a filter."""

import argparse
from textwrap import shorten
from typing import Any

from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_llm_embeddings import LLMEmbeddings
from langchain_qdrant import QdrantVectorStore
from qdrant_client import models

from llm_embeddings.corpus import load_corpus

PROMPT = PromptTemplate.from_template(
    "Answer from these passages only.\n\n{context}\n\nQuestion: {question}\nAnswer:"
)


def build_store() -> QdrantVectorStore:
    corpus = load_corpus()[:60]
    documents = [
        Document(p.text, metadata={"title": p.title, "words": len(p.text.split())}) for p in corpus
    ]
    return QdrantVectorStore.from_documents(
        documents, LLMEmbeddings(), location=":memory:", collection_name="openstax"
    )


def show(documents: list[Document]) -> str:
    return "\n\n".join(f"[{d.metadata['title']}] {shorten(d.page_content, 300)}" for d in documents)


def load_llm(path: str) -> Runnable[Any, str]:
    from transformers import pipeline

    generate = pipeline("text-generation", model=path, max_new_tokens=60, return_full_text=False)
    return RunnableLambda(lambda prompt: generate(prompt.to_string())[0]["generated_text"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("question", nargs="?", default="Why do electric currents make magnetism?")
    parser.add_argument("--llm", help="directory or hub id of any causal language model")
    options = parser.parse_args()
    long = models.FieldCondition(key="metadata.words", range=models.Range(gte=100))
    search = {"k": 3, "filter": models.Filter(must=[long])}  # passages of 100 words or more
    retriever = build_store().as_retriever(search_kwargs=search)
    chain = {"context": retriever | show, "question": RunnablePassthrough()} | PROMPT
    print(chain.invoke(options.question).to_string())
    if options.llm:
        print((chain | load_llm(options.llm)).invoke(options.question))


if __name__ == "__main__":
    main()

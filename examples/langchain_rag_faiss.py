"""Retrieval-augmented generation with LangChain over a FAISS index; `--llm PATH` adds an answer."""

import argparse
from textwrap import shorten
from typing import Any

import faiss
import numpy as np
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_llm_embeddings import LLMEmbeddings

from llm_embeddings.corpus import load_corpus

PROMPT = PromptTemplate.from_template(
    "Answer from these passages only.\n\n{context}\n\nQuestion: {question}\nAnswer:"
)


def build_retriever(k: int = 3) -> Runnable[str, list[Document]]:
    embeddings = LLMEmbeddings()  # model="intfloat/e5-mistral-7b-instruct" on a GPU
    corpus = load_corpus()[:60]
    documents = [Document(p.text, metadata={"title": p.title}) for p in corpus]
    index = faiss.IndexFlatIP(embeddings.dimension)  # unit vectors: inner product = cosine
    index.add(np.array(embeddings.embed_documents([p.passage for p in corpus]), np.float32))

    def retrieve(question: str) -> list[Document]:
        _, rows = index.search(np.array([embeddings.embed_query(question)], np.float32), k)
        return [documents[row] for row in rows[0]]

    return RunnableLambda(retrieve)


def show(documents: list[Document]) -> str:
    return "\n\n".join(f"[{d.metadata['title']}] {shorten(d.page_content, 300)}" for d in documents)


def load_llm(path: str) -> Runnable[Any, str]:
    from transformers import pipeline

    generate = pipeline("text-generation", model=path, max_new_tokens=60, return_full_text=False)
    return RunnableLambda(lambda prompt: generate(prompt.to_string())[0]["generated_text"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("question", nargs="?", default="How do cells make ATP from glucose?")
    parser.add_argument("--llm", help="directory or hub id of any causal language model")
    options = parser.parse_args()
    chain = {"context": build_retriever() | show, "question": RunnablePassthrough()} | PROMPT
    print(chain.invoke(options.question).to_string())
    if options.llm:
        print((chain | load_llm(options.llm)).invoke(options.question))


if __name__ == "__main__":
    main()

"""LangChain: one model finds documents and answers from them, and reads each of them once."""

import argparse
from pathlib import Path
from textwrap import shorten

from langchain_core.documents import Document
from langchain_core.runnables import RunnablePassthrough
from langchain_llm_embeddings import DocumentPrompt, DocumentRetriever, GritLMChat, LLMEmbeddings

from llm_embeddings.corpus import load_corpus

# Random weights: it shows what is computed, and its words mean nothing.
TINY = Path(__file__).parents[1] / "tests/golden/gritlm-7b/model"
QUESTIONS = (
    "How do cells make ATP from glucose?",
    "What did Hobbes say of the state of nature?",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=TINY, help="such as GritLM/GritLM-7B, on a GPU")
    options = parser.parse_args()

    embeddings = LLMEmbeddings(model=options.model)
    chat = GritLMChat(encoder=embeddings.encoder, max_tokens=16)
    documents = [
        Document(passage.passage, id=passage.id, metadata={"title": passage.title})
        for passage in load_corpus()[:20]
    ]
    retriever = DocumentRetriever.from_documents(documents, embeddings, k=1)

    texts = [document.page_content for document in documents]
    cost = chat.reader.cost(texts)
    chat.reader.prepare(texts)  # at indexing: no question waits for it
    print(f"{cost.texts} documents, {cost.tokens} tokens, {cost.nbytes / 1e6:.1f} MB of states")

    inputs = {"documents": retriever, "question": RunnablePassthrough()}
    chain = inputs | RunnablePassthrough.assign(answer=DocumentPrompt() | chat)
    for question in QUESTIONS:
        result = chain.invoke(question)
        usage = result["answer"].usage_metadata
        kept = usage["input_token_details"]["cache_read"]
        print(f"\n{question}\n{shorten(result['answer'].text, 80)}")
        print(f"  from {result['documents'][0].metadata['title']}")
        print(f"  read {usage['input_tokens'] - kept} of {usage['input_tokens']} tokens")


if __name__ == "__main__":
    main()

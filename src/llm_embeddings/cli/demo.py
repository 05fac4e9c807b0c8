"""`llm-embeddings demo`: search in passages that come with the package."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from ..checkpoint.options import LoadOptions
from .console import ModelOption, load_encoder, output
from .loading import with_load_options

if TYPE_CHECKING:
    from rich.console import Console

    from ..corpus import CorpusPassage
    from ..encoder import Encoder

QUERIES = (
    "how does inflation affect prices",
    "what happens to glucose in a cell",
    "what caused the Mexican war of independence",
)


@with_load_options()
def demo(
    query: Annotated[
        list[str] | None,
        typer.Argument(help="What to look for; some examples if left out.", show_default=False),
    ] = None,
    model: ModelOption = None,
    top: Annotated[int, typer.Option(min=1, help="Passages per query.")] = 3,
    *,
    load: LoadOptions,
) -> None:
    """Search real passages that come with the package: by the core, then through LangChain.

    Example: llm-embeddings demo "why is the sky blue"
    """
    from ..corpus import load_corpus

    console = output()
    queries = list(query or QUERIES)
    encoder = load_encoder(model, load)
    corpus = load_corpus()
    console.print(
        f"[bold]{encoder.recipe.name}[/]: {encoder.dimension} dimensions, "
        f"{len(corpus)} passages from {corpus[0].title!r} to {corpus[-1].title!r}"
    )
    found = _search(console, encoder, corpus, queries, top)
    _search_langchain(console, encoder, corpus, queries[0], found[0])


def _search(
    console: Console, encoder: Encoder, corpus: list[CorpusPassage], queries: list[str], top: int
) -> list[list[str]]:
    """Rank the passages for each query by cosine, print them, and return their ids."""
    from rich.markup import escape

    passages = [document.passage for document in corpus]
    documents = encoder.encode_document(passages, show_progress=True)
    scores = encoder.similarity(encoder.encode_query(queries), documents)
    found = []
    for query, row in zip(queries, scores, strict=True):
        console.print(f"\n[bold cyan]{escape(query)}[/]")
        best = (-row).argsort()[:top]
        for rank, index in enumerate(best, 1):
            document = corpus[index]
            console.print(f"  {rank}. [green]{row[index]:.3f}[/] [bold]{escape(document.title)}[/]")
            excerpt = textwrap.shorten(document.text, 150, placeholder=" ...")
            console.print(f"     {excerpt}", style="dim", markup=False)
        found.append([corpus[index].id for index in best])
    return found


def _search_langchain(
    console: Console, encoder: Encoder, corpus: list[CorpusPassage], query: str, expected: list[str]
) -> None:
    """Search for the first query again, through LangChain and a Qdrant store in this process."""
    from rich.markup import escape

    try:
        from langchain_llm_embeddings import LLMEmbeddings
        from langchain_qdrant import QdrantVectorStore
    except ImportError as error:
        console.print(
            f"\nThe LangChain half needs {error.name}: "
            "pip install langchain-llm-embeddings langchain-qdrant"
        )
        return
    store = QdrantVectorStore.from_texts(
        [document.passage for document in corpus],
        LLMEmbeddings(encoder=encoder),
        metadatas=[{"id": document.id, "title": document.title} for document in corpus],
        location=":memory:",
        collection_name="demo",
    )
    hits = store.similarity_search_with_score(query, k=len(expected))
    console.print(f"\n[bold cyan]{escape(query)}[/] (LangChain, Qdrant)")
    for rank, (hit, score) in enumerate(hits, 1):
        console.print(f"  {rank}. [green]{score:.3f}[/] [bold]{escape(hit.metadata['title'])}[/]")
    same = [hit.metadata["id"] for hit, _ in hits] == expected
    console.print(f"  the same passages as above: {'yes' if same else 'no'}")

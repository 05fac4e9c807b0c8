"""DocumentRetriever: the core's document index behind LangChain's `BaseRetriever` interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field, model_validator

from llm_embeddings.inputs import names_checked
from llm_embeddings.rag import DocumentIndex, SearchMode

from .embeddings import LLMEmbeddings
from .loading import check_fields


class DocumentRetriever(BaseRetriever):
    """Documents by meaning and by words, from an `llm_embeddings.rag.DocumentIndex`.

    Example:
        >>> retriever = DocumentRetriever.from_documents(  # doctest: +SKIP
        ...     documents, embeddings, path="notes.db", k=2
        ... )
        >>> retriever.invoke("What do cats do?")  # doctest: +SKIP

    Attributes:
        index: Holds texts, metadata and vectors; `index.add` and `index.delete` change it.
        k: How many documents to find; `invoke(query, k=...)` changes it for a call.
        mode: What ranks them, "hybrid", "vector" or "words", as in `DocumentIndex.search`;
            `invoke(query, mode=...)` changes it for a call.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: DocumentIndex = Field(repr=False)
    k: int = Field(default=4, ge=1)
    mode: SearchMode | None = None

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, given: Any) -> Any:
        return check_fields(cls, given)

    @classmethod
    @names_checked
    def from_documents(
        cls,
        documents: Sequence[Document],
        embeddings: LLMEmbeddings,
        *,
        path: str | Path | None = None,
        k: int = 4,
        mode: SearchMode | None = None,
    ) -> Self:
        """Index documents, or add them to the index in a file.

        What is in the file already is not embedded again.

        Args:
            documents: Their `id` names them, and one of the same name is replaced; None = equal
                texts are one document. `metadata` are JSON.
            embeddings: Whose model and instructions embed documents and queries.
            path: The index's SQLite file; None = in memory.
            k: How many documents to find.
            mode: What ranks them.

        Raises:
            ValueError: some documents have an `id` and some not, or `embeddings` has
                `truncate_dim` or a `precision`, which an index of whole vectors does not keep.
        """
        changed = {"truncate_dim", "precision"} & embeddings.model_fields_set
        if changed:
            raise ValueError(
                f"an index keeps whole float32 vectors: leave {', '.join(sorted(changed))} out of "
                "the embeddings"
            )
        named = [document.id for document in documents if document.id is not None]
        if named and len(named) < len(documents):
            raise ValueError(
                f"{len(named)} of {len(documents)} documents have an id: give all of them one, or "
                "none"
            )
        index = DocumentIndex(
            embeddings.encoder,
            path,
            query_instruction=embeddings.query_instruction,
            document_instruction=embeddings.document_instruction,
            max_length=embeddings.max_length,
        )
        index.add(
            [document.page_content for document in documents],
            named or None,
            [document.metadata for document in documents],
        )
        return cls(index=index, k=k, mode=mode)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        mode: SearchMode | None = None,
    ) -> list[Document]:
        hits = self.index.search(query, self.k if k is None else k, mode=mode or self.mode)
        return [
            Document(hit.text, id=hit.id, metadata={**hit.metadata, "relevance_score": hit.score})
            for hit in hits
        ]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        mode: SearchMode | None = None,
    ) -> list[Document]:
        manager = run_manager.get_sync()
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=manager, k=k, mode=mode
        )

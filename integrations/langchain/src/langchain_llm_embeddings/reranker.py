"""DocumentReranker: the core's `Reranker` behind LangChain's `BaseDocumentCompressor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, model_validator

from llm_embeddings.generation import Reranker

from .loading import check_fields


class DocumentReranker(BaseDocumentCompressor):
    """The documents that a generative model finds best, for `ContextualCompressionRetriever`.

    Example:
        >>> reranker = DocumentReranker(  # doctest: +SKIP
        ...     reranker=Reranker(chat.generator), top_n=3
        ... )
        >>> reranker.compress_documents(documents, "What do cats do?")  # doctest: +SKIP

    Attributes:
        reranker: What orders them.
        top_n: How many are kept; None = all.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    reranker: Reranker = Field(repr=False)
    top_n: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, given: Any) -> Any:
        return check_fields(cls, given)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents first; scores, if any, are in the metadata as "relevance_score"."""
        ranked = self.reranker.rerank(query, [document.page_content for document in documents])
        found = []
        for one in ranked[: self.top_n]:
            score = {} if one.score is None else {"relevance_score": one.score}
            document = documents[one.index]
            found.append(document.model_copy(update={"metadata": {**document.metadata, **score}}))
        return found

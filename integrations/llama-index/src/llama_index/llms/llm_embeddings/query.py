"""Retriever, synthesizer and query engine over the core's index, which read no document twice."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.types import RESPONSE_TEXT_TYPE

from llm_embeddings.generation import GenerateOptions
from llm_embeddings.inputs import names_checked
from llm_embeddings.rag import DocumentIndex, SearchMode

from ._convert import in_threads
from .base import GritLM


class DocumentRetriever(BaseRetriever):
    """Nodes by meaning and by words, from an `llm_embeddings.rag.DocumentIndex`.

    Attributes:
        index: Holds texts, metadata and vectors; `index.add` and `index.delete` change it.
        similarity_top_k: How many nodes to find.
        mode: What ranks them, "hybrid", "vector" or "words", as in `DocumentIndex.search`.
    """

    @names_checked
    def __init__(
        self,
        index: DocumentIndex,
        *,
        similarity_top_k: int = 2,
        mode: SearchMode | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """Raises `ValueError` if `similarity_top_k` is not positive."""
        if similarity_top_k < 1:
            raise ValueError(f"similarity_top_k={similarity_top_k} must be 1 or more")
        super().__init__(callback_manager)
        self.index = index
        self.similarity_top_k = similarity_top_k
        self.mode = mode

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self.index.search(query_bundle.query_str, self.similarity_top_k, mode=self.mode)
        return [
            NodeWithScore(
                node=TextNode(
                    id_=hit.id,
                    text=hit.text,
                    metadata=hit.metadata,
                    # Else the model would be shown them before the text, and would have to read
                    # again what it knows.
                    excluded_llm_metadata_keys=list(hit.metadata),
                ),
                score=hit.score,
            )
            for hit in hits
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class DocumentSynthesizer(BaseSynthesizer):
    """Answers from the texts of nodes in one prompt; a text it has read before is not read again.

    The nodes may come from any LlamaIndex retriever. What does not fit into the model's context is
    refused: retrieve fewer or shorter nodes.

    Attributes:
        llm: Answers, and remembers in its `mode` and `rule`.
    """

    @names_checked
    def __init__(
        self,
        llm: GritLM,
        *,
        streaming: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """With `streaming` a response is a stream of pieces."""
        super().__init__(llm=llm, callback_manager=callback_manager, streaming=streaming)
        self.llm = llm

    def get_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The answer to a question from texts; `response_kwargs` as in a call of the `llm`."""
        options = self.llm.options(response_kwargs)
        if self._streaming:
            return self._pieces(query_str, text_chunks, options)
        return self.llm.reader.answer(query_str, text_chunks, **options).text

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """`get_response` while the event loop goes on."""
        options = self.llm.options(response_kwargs)
        if self._streaming:
            return in_threads(self._pieces(query_str, text_chunks, options))
        answer = await asyncio.to_thread(self.llm.reader.answer, query_str, text_chunks, **options)
        return answer.text

    def _pieces(
        self, question: str, texts: Sequence[str], options: GenerateOptions
    ) -> Generator[str, None, None]:
        yield from self.llm.reader.stream(question, texts, **options)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        """The prompt is the one that the model was trained on."""


class DocumentQueryEngine(RetrieverQueryEngine):
    """Questions to the documents of an index, answered by the model that embedded them.

    Example:
        >>> index = DocumentIndex(llm.encoder)  # doctest: +SKIP
        >>> index.add(texts)  # doctest: +SKIP
        >>> llm.reader.prepare(texts)  # reads each once, now  # doctest: +SKIP
        >>> print(DocumentQueryEngine(index, llm).query("Who wrote Faust?"))  # doctest: +SKIP
    """

    @names_checked
    def __init__(
        self,
        index: DocumentIndex,
        llm: GritLM,
        *,
        similarity_top_k: int = 2,
        mode: SearchMode | None = None,
        streaming: bool = False,
        node_postprocessors: list[BaseNodePostprocessor] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """A `DocumentRetriever` and a `DocumentSynthesizer` together.

        Args:
            index: Where the documents are.
            llm: Answers.
            similarity_top_k: How many documents to answer from.
            mode: What ranks them, as in `DocumentIndex.search`.
            streaming: Whether a response is a stream of pieces.
            node_postprocessors: As in LlamaIndex's `RetrieverQueryEngine`.
            callback_manager: Likewise.
        """
        super().__init__(
            DocumentRetriever(
                index,
                similarity_top_k=similarity_top_k,
                mode=mode,
                callback_manager=callback_manager,
            ),
            DocumentSynthesizer(llm, streaming=streaming, callback_manager=callback_manager),
            node_postprocessors,
            callback_manager,
        )

"""DocumentReranker: the core's `Reranker` behind LlamaIndex's `BaseNodePostprocessor`."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from llm_embeddings.generation import Reranker
from llm_embeddings.inputs import names_checked


class DocumentReranker(BaseNodePostprocessor):
    """The nodes that a generative model finds best, for `node_postprocessors` of query engines.

    Example:
        >>> reranker = DocumentReranker(  # doctest: +SKIP
        ...     reranker=Reranker(llm.generator), top_n=3
        ... )
        >>> index.as_query_engine(node_postprocessors=[reranker])  # doctest: +SKIP

    Attributes:
        reranker: What orders them.
        top_n: How many are kept; None = all.
    """

    reranker: Reranker = Field(exclude=True, repr=False)
    top_n: int | None = Field(default=None, ge=1)

    @names_checked
    def __init__(
        self,
        *,
        reranker: Reranker,
        top_n: int | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """Keep the settings; the attributes say what they mean."""
        fields: dict[str, Any] = {"reranker": reranker, "top_n": top_n}
        super().__init__(**fields, callback_manager=callback_manager or CallbackManager([]))

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex shows it."""
        return "LLMEmbeddingsDocumentReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """The best nodes first, with the reranker's score; those of retrieval are not kept."""
        if query_bundle is None:
            raise ValueError("reranking needs the query: pass query_str or query_bundle")
        texts = [node.node.get_content(MetadataMode.EMBED) for node in nodes]
        ranked = self.reranker.rerank(query_bundle.query_str, texts)
        return [
            NodeWithScore(node=nodes[one.index].node, score=one.score)
            for one in ranked[: self.top_n]
        ]

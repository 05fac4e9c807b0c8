"""What LlamaIndex calls of an embedding, in terms of texts and a role."""

from __future__ import annotations

from typing import Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding

from ._options import check_list

Role = Literal["query", "document"]


class Hooks(BaseEmbedding):
    """A `BaseEmbedding` of one function, and its twin for coroutines."""

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        """Vectors of texts in a role."""
        raise NotImplementedError

    async def _aembed(self, texts: list[str], role: Role) -> list[list[float]]:
        """The same while the event loop goes on."""
        raise NotImplementedError

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """As in `BaseEmbedding`; one string instead of a list is a `TypeError`."""
        check_list(texts)
        return super().get_text_embedding_batch(texts, show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """As in `BaseEmbedding`; one string instead of a list is a `TypeError`."""
        check_list(texts)
        return await super().aget_text_embedding_batch(texts, show_progress, **kwargs)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aembed([query], "query"))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aembed([text], "document"))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._aembed(texts, "document")

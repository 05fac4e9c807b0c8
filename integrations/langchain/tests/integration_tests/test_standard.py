"""LangChain's own integration tests; the models are local, so they run offline."""

from pathlib import Path
from typing import Any

import pytest
from langchain_llm_embeddings import DocumentRetriever, GritLMChat, LLMEmbeddings
from langchain_tests.integration_tests import (
    ChatModelIntegrationTests,
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
)

from llm_embeddings.rag import DocumentIndex

GOLDEN = Path(__file__).resolve().parents[4] / "tests/golden"


class TestLLMEmbeddingsIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[LLMEmbeddings]:
        return LLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": str(GOLDEN / "e5-mistral/model"), "dtype": "float32"}


@pytest.mark.usefixtures("one_model")
class TestGritLMChatIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[GritLMChat]:
        return GritLMChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": str(GOLDEN / "gritlm-7b/model"), "dtype": "float32", "max_tokens": 12}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Without those of a model behind a network: retries, time-outs, keys."""
        return {"temperature": 0, "stop": []}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_model_override(self) -> bool:
        return False


@pytest.mark.usefixtures("one_model")
class TestDocumentRetrieverIntegration(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[DocumentRetriever]:
        return DocumentRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        index = DocumentIndex(LLMEmbeddings(model=GOLDEN / "gritlm-7b/model").encoder)
        index.add(["Cats purr.", "Dogs bark at night.", "Paris is in France.", "The sea is deep."])
        return {"index": index}

    @property
    def retriever_query_example(self) -> str:
        return "What do cats do?"

"""LangChain's own integration tests; the model is local, so they run offline."""

from pathlib import Path
from typing import Any

from langchain_llm_embeddings import LLMEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

CHECKPOINT = Path(__file__).resolve().parents[4] / "tests/golden/e5-mistral/model"


class TestLLMEmbeddingsIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[LLMEmbeddings]:
        return LLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": str(CHECKPOINT), "dtype": "float32"}

"""LangChain's own unit tests."""

from pathlib import Path
from typing import Any

from langchain_llm_embeddings import LLMEmbeddings
from langchain_tests.unit_tests import EmbeddingsUnitTests

CHECKPOINT = Path(__file__).resolve().parents[4] / "tests/golden/e5-mistral/model"


class TestLLMEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[LLMEmbeddings]:
        return LLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": str(CHECKPOINT), "dtype": "float32"}

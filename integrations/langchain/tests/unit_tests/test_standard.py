"""LangChain's own unit tests."""

from pathlib import Path
from typing import Any

import pytest
from langchain_llm_embeddings import GritLMChat, LLMEmbeddings
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests
from pytest_benchmark.fixture import BenchmarkFixture

GOLDEN = Path(__file__).resolve().parents[4] / "tests/golden"


class TestLLMEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[LLMEmbeddings]:
        return LLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": str(GOLDEN / "e5-mistral/model"), "dtype": "float32"}


@pytest.mark.usefixtures("one_model")
class TestGritLMChatUnit(ChatModelUnitTests):
    @pytest.fixture
    def benchmark(self, benchmark: BenchmarkFixture) -> BenchmarkFixture:
        """Once is enough: times are for benchmarks/."""
        benchmark.disabled = True
        return benchmark

    @property
    def chat_model_class(self) -> type[GritLMChat]:
        return GritLMChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": str(GOLDEN / "gritlm-7b/model"), "dtype": "float32"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        """Without those of a model behind a network: retries, time-outs, keys."""
        return {"temperature": 0, "max_tokens": 100, "stop": []}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @pytest.mark.xfail(reason="'all' are LangChain's own packages: test_chat.py has a round trip")
    def test_serdes(self, *args: Any) -> None:
        raise NotImplementedError

"""The tiny checkpoints of the repository, loaded once."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from langchain_llm_embeddings import GritLMChat, LLMEmbeddings

from llm_embeddings import Encoder
from llm_embeddings.checkpoint import LoadOptions

GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    return GOLDEN / "e5-mistral" / "model"


@pytest.fixture(scope="session")
def embeddings(checkpoint: Path) -> LLMEmbeddings:
    return LLMEmbeddings(model=checkpoint, dtype="float32")


@pytest.fixture(scope="session")
def encoder(embeddings: LLMEmbeddings) -> Encoder:
    return embeddings.encoder


@pytest.fixture(scope="session")
def gritlm(golden: Path) -> Encoder:
    return Encoder.from_pretrained(golden / "gritlm-7b/model", dtype="float32")


@pytest.fixture(scope="session")
def chat(gritlm: Encoder) -> GritLMChat:
    return GritLMChat(encoder=gritlm, max_tokens=12)


@pytest.fixture(scope="module")
def cached_open() -> Any:
    return functools.lru_cache(Encoder.open.__func__)


@pytest.fixture
def one_model(cached_open: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """LangChain's tests make an object for each test: they share the weights it would load."""

    def opened(model: Any, options: LoadOptions) -> Encoder:
        return cached_open(Encoder, model, options)

    monkeypatch.setattr(Encoder, "open", opened)

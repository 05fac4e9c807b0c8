"""The tiny checkpoints of the repository, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_llm_embeddings import LLMEmbeddings

from llm_embeddings import Encoder

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

"""Tiny golden checkpoints behind LlamaIndex, and core encoders loaded apart from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from llama_index.llms.llm_embeddings import GritLM

from llm_embeddings import Encoder

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"
FAMILIES: dict[str, tuple[Path, list[Path] | None]] = {
    "e5": (GOLDEN / "e5-mistral/model", None),
    "gritlm": (GOLDEN / "gritlm-7b/model", None),
    "llm2vec": (GOLDEN / "llm2vec-mistral/mntp", [GOLDEN / "llm2vec-mistral/supervised"]),
}


@pytest.fixture(scope="session")
def options() -> dict[str, Any]:
    """What loads the checkpoint most tests use."""
    return {"model_name": str(FAMILIES["e5"][0]), "dtype": "float32"}


@pytest.fixture(scope="session")
def embed_model(options: dict[str, Any]) -> LLMEmbedding:
    return LLMEmbedding(**options)


@pytest.fixture(scope="session")
def llm() -> GritLM:
    encoder = Encoder.from_pretrained(FAMILIES["gritlm"][0], dtype="float32")
    return GritLM(encoder=encoder, max_new_tokens=12)


@pytest.fixture(scope="session", params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> tuple[LLMEmbedding, Encoder]:
    """The integration and the core on one checkpoint, each with its own weights."""
    path, adapters = FAMILIES[request.param]
    return (
        LLMEmbedding(path, adapters=adapters, dtype="float32"),
        Encoder.from_pretrained(path, adapters=adapters, dtype="float32"),
    )

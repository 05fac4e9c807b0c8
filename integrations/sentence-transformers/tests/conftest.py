"""Encoders of the golden checkpoints that lie in this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_embeddings import Encoder

GOLDEN = Path(__file__).resolve().parents[3] / "tests/golden"


@pytest.fixture(scope="session")
def e5() -> Encoder:
    return Encoder.from_pretrained(GOLDEN / "e5-mistral/model", dtype="float32")


@pytest.fixture(scope="session")
def gritlm() -> Encoder:
    return Encoder.from_pretrained(GOLDEN / "gritlm-7b/model", dtype="float32")


@pytest.fixture(scope="session")
def llm2vec() -> Encoder:
    case = GOLDEN / "llm2vec-mistral"
    return Encoder.from_pretrained(case / "mntp", adapters=[case / "supervised"], dtype="float32")


@pytest.fixture(params=["e5", "gritlm", "llm2vec"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """One family after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def fresh() -> Encoder:
    """An encoder that a test may train."""
    return Encoder.from_pretrained(GOLDEN / "gritlm-7b/model", dtype="float32")

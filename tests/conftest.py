"""Encoders, and a tokenizer, of the golden checkpoints that lie in this repository."""

from __future__ import annotations

import pytest
from helpers import BUNDLED
from transformers import PreTrainedTokenizerFast

from llm_embeddings import Encoder


@pytest.fixture(scope="session")
def e5() -> Encoder:
    return Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float32")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        BUNDLED / "e5-mistral/model"
    )
    return found


@pytest.fixture(scope="session")
def gritlm() -> Encoder:
    return Encoder.from_pretrained(BUNDLED / "gritlm-7b/model", dtype="float32")


@pytest.fixture(scope="session")
def llm2vec() -> Encoder:
    case = BUNDLED / "llm2vec-mistral"
    return Encoder.from_pretrained(case / "mntp", adapters=[case / "supervised"], dtype="float32")


@pytest.fixture(params=["e5", "gritlm", "llm2vec"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """One family after the other."""
    return request.getfixturevalue(request.param)

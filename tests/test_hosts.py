"""Every family through every host: the vectors are the core's, for queries and documents.

What the core's own vectors are worth is said by test_golden.py; where no golden case may lie in
this repository (LLaRA, siblings), tiny checkpoints with the family's tokens are made here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import BUNDLED, SMALL, assert_close, write_model
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, LlamaConfig, Qwen3Config

from llm_embeddings import Encoder, get_recipe
from llm_embeddings.families import llara

pytestmark = pytest.mark.slow

TEXTS = ["Paris is in France.", "", "cats purr " * 40, "量子コンピュータ 🐈", "a", "two\n lines"]
Vectors = Callable[[Encoder, list[str]], object]


def golden(case: str, *parts: str) -> Encoder:
    model, *adapters = (BUNDLED / case / part for part in parts)
    return Encoder.from_pretrained(model, adapters=adapters, dtype="float32")


def repllama(path: Path) -> Encoder:
    """An adapter on a base named by a relative path, without anything that says how it embeds."""
    base = write_model(path / "base", LlamaConfig(**SMALL))
    targets = ["q_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"]
    adapter = get_peft_model(
        AutoModel.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False),
    )
    adapter.peft_config["default"].base_model_name_or_path = "../base"
    adapter.save_pretrained(path / "adapter", save_embedding_layers=False)
    name = "castorini/repllama-v1-7b-lora-passage"
    return Encoder.from_pretrained(path / "adapter", recipe=name, dtype="float32")


def made(path: Path, name: str) -> Encoder:
    torch.manual_seed(0)
    if name == "LLaRA":
        return Encoder.from_pretrained(write_model(path, LlamaConfig(**SMALL), llara.TOKENS))
    if name == "bge-en-icl":
        tokens = get_recipe("BAAI/bge-en-icl").required_tokens
        return Encoder.from_pretrained(write_model(path, LlamaConfig(**SMALL), tokens))
    if name == "Qwen3-Embedding":
        model = write_model(path, Qwen3Config(**SMALL, head_dim=8), ("<|endoftext|>",))
        return Encoder.from_pretrained(model, recipe="Qwen/Qwen3-Embedding-0.6B")
    if name == "RepLLaMA":
        return repllama(path)
    return Encoder.from_pretrained(write_model(path, LlamaConfig(**SMALL)), recipe=name)


FAMILIES = {
    "LLM2Vec": lambda path: golden("llm2vec-mistral", "mntp", "supervised"),
    "E5-Mistral": lambda path: golden("e5-mistral", "model"),
    "GritLM": lambda path: golden("gritlm-7b", "model"),
    **{
        name: lambda path, name=name: made(path, name)
        for name in ("LLaRA", "Qwen3-Embedding", "RepLLaMA", "bge-en-icl", "last-token", "mean")
    },
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return FAMILIES[request.param](tmp_path_factory.mktemp("model"))


def test_langchain(encoder: Encoder) -> None:
    from langchain_llm_embeddings import LLMEmbeddings

    embeddings = LLMEmbeddings(encoder=encoder)
    assert_close(embeddings.embed_documents(TEXTS), encoder.encode_document(TEXTS))
    assert_close([embeddings.embed_query(t) for t in TEXTS], encoder.encode_query(TEXTS))


def test_llama_index(encoder: Encoder) -> None:
    from llama_index.embeddings.llm_embeddings import LLMEmbedding

    embedding = LLMEmbedding(encoder=encoder)
    assert_close(embedding.get_text_embedding_batch(TEXTS), encoder.encode_document(TEXTS))
    queries = [embedding.get_query_embedding(text) for text in TEXTS]
    assert_close(queries, encoder.encode_query(TEXTS))


def test_sentence_transformers(encoder: Encoder) -> None:
    from sentence_transformers_llm_embeddings import as_sentence_transformer

    model = as_sentence_transformer(encoder)
    assert_close(model.encode_document(TEXTS), encoder.encode_document(TEXTS))
    assert_close(model.encode_query(TEXTS, batch_size=2), encoder.encode_query(TEXTS))
    assert_close(model.encode(TEXTS, prompt_name="query"), encoder.encode_query(TEXTS))


def test_core_is_sane(encoder: Encoder) -> None:
    queries, documents = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
    assert np.isfinite(queries).all()
    assert_close(documents, [encoder.encode(text) for text in TEXTS])
    same = encoder.recipe.family == "plain"
    assert (np.abs(queries - documents).max() < 1e-6) == same

"""A checkpoint that nobody listed is the same in every host, as sentence-transformers makes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.random_checkpoints import Plan, plain, write
from helpers.random_modules import ModulesPlan
from langchain_llm_embeddings import LLMEmbeddings
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from sentence_transformers import SentenceTransformer
from sentence_transformers_llm_embeddings import as_sentence_transformer

from llm_embeddings import Encoder

TEXTS = ["the cat sat on a mat", "", "What Is CAPITAL", "rain fell over quiet hills " * 12]
NAMED = {"query": "what is ", "document": "hills ", "clustering": "the rain "}
DENSE = ("Tanh 16 bias -", "layernorm", "GELU 24 - residual", "normalize")


def modules(mode: str, *head: str, **more: Any) -> ModulesPlan:
    return ModulesPlan("saved", (mode,), True, head, **more)


def chatting() -> Plan:
    made = plain("qwen3", modules=modules("lasttoken", prompts=NAMED))
    return dataclasses.replace(made, tokenizer=dataclasses.replace(made.tokenizer, chat=True))


CHECKPOINTS = {
    "encoder": plain("bert", modules=modules("cls", "normalize")),
    "window": plain("gemma3 both ways", modules=modules("mean", "normalize")),
    "heads": plain("llama", modules=modules("max", *DENSE, truncate_dim=8)),
    "chat format": chatting(),
    "prompts by name": plain("qwen3", modules=modules("lasttoken", prompts=NAMED)),
}


def assert_equal(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_through_every_host(name: str, tmp_path: Path) -> None:
    path = str(write(CHECKPOINTS[name], tmp_path))
    theirs = SentenceTransformer(path, device="cpu")
    queries = theirs.encode_query(TEXTS, batch_size=1)
    documents = theirs.encode_document(TEXTS, batch_size=1)
    langchain = LLMEmbeddings(model=path, dtype="float32")
    assert_equal([langchain.embed_query(text) for text in TEXTS], queries)
    assert_equal(langchain.embed_documents(TEXTS), documents)
    llama_index = LLMEmbedding(path, dtype="float32")
    assert_equal([llama_index.get_query_embedding(text) for text in TEXTS], queries)
    assert_equal(llama_index.get_text_embedding_batch(TEXTS), documents)
    ours = as_sentence_transformer(Encoder.from_pretrained(path, dtype="float32"))
    assert_equal(ours.encode_query(TEXTS), queries)
    assert_equal(ours.encode_document(TEXTS), documents)
    if "clustering" not in theirs.prompts:
        return
    named = theirs.encode(TEXTS, prompt_name="clustering", batch_size=1)
    assert_equal(ours.encode(TEXTS, prompt_name="clustering"), named)
    options: dict[str, Any] = {"dtype": "float32", "query_prompt_name": "clustering"}
    langchain = LLMEmbeddings(model=path, document_prompt_name="clustering", **options)
    assert_equal([langchain.embed_query(text) for text in TEXTS], named)
    assert_equal(langchain.embed_documents(TEXTS), named)
    llama_index = LLMEmbedding(path, text_prompt_name="clustering", **options)
    assert_equal([llama_index.get_query_embedding(text) for text in TEXTS], named)
    assert_equal(llama_index.get_text_embedding_batch(TEXTS), named)

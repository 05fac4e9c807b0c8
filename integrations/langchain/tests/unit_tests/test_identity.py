"""Who an object says it is, and what of it travels."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.load import dumps
from langchain_core.stores import InMemoryByteStore
from langchain_llm_embeddings import LLMEmbeddings, cache_backed
from pydantic import ValidationError

from llm_embeddings import Encoder


def test_two_models_do_not_share_langchains_namespace(
    embeddings: LLMEmbeddings, encoder: Encoder, checkpoint: Path, tmp_path: Path
) -> None:
    other = Encoder(encoder.backbone, encoder.tokenizer, encoder.recipe.replace(pooling="mean"))
    models = [
        LLMEmbeddings(),
        embeddings,
        LLMEmbeddings(encoder=other),
        LLMEmbeddings(encoder=encoder, truncate_dim=8),
        LLMEmbeddings(encoder=encoder, document_instruction="Find"),
    ]
    store = LocalFileStore(tmp_path)
    for name in ("model", "model_name"):
        for model in models * 2:
            cached = CacheBackedEmbeddings.from_bytes_store(
                model, store, namespace=getattr(model, name), key_encoder="sha256"
            )
            np.testing.assert_allclose(
                cached.embed_documents(["a cat"]), model.embed_documents(["a cat"]), atol=1e-6
            )
    assert len({model.model for model in models}) == len(models)
    assert LLMEmbeddings(encoder=encoder).model == embeddings.model


def test_a_hub_id_is_the_name_until_other_options_decide(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "open", lambda *_: encoder)
    name = "intfloat/e5-mistral-7b-instruct"
    assert LLMEmbeddings(model=name, device="cpu", max_batch_tokens=99).model == name
    changed = LLMEmbeddings(model=name, normalize=False)
    assert changed.model == changed.identity() != name
    assert f'"{name}"' in dumps(changed)


def test_the_name_follows_the_weights(checkpoint: Path) -> None:
    embeddings = LLMEmbeddings(model=checkpoint, dtype="float32")
    before = embeddings.model
    with torch.no_grad():
        next(embeddings.encoder.backbone.parameters()).add_(0.01)
    assert embeddings.model != before


@pytest.mark.slow
def test_pickles_hold_no_weights(embeddings: LLMEmbeddings, encoder: Encoder) -> None:
    encoder.ranges_of(encoder.dimension, True)
    shared = LLMEmbeddings(encoder=encoder, truncate_dim=8)
    for each in (embeddings, shared, cache_backed(embeddings, InMemoryByteStore())):
        data = pickle.dumps(each)
        assert len(data) < 5_000
        assert pickle.loads(data).embed_query("cat") == each.embed_query("cat")
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(shared))))
    assert again.model_dump() == shared.model_dump()
    assert again.model == shared.model
    assert again.encoder is again.encoder


def test_copies_share_the_weights(embeddings: LLMEmbeddings) -> None:
    for again in (copy.copy(embeddings), copy.deepcopy(embeddings), embeddings.model_copy()):
        assert again.encoder is embeddings.encoder
        assert again == embeddings


def test_weights_that_lie_in_no_file_travel(checkpoint: Path) -> None:
    embeddings = LLMEmbeddings(model=checkpoint, dtype="float32")
    with torch.no_grad():
        next(embeddings.encoder.backbone.parameters()).add_(0.01)
    again = pickle.loads(pickle.dumps(embeddings))
    np.testing.assert_allclose(again.embed_query("cat"), embeddings.embed_query("cat"), atol=1e-6)


@pytest.mark.slow
def test_other_files_are_found_out(checkpoint: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(checkpoint, place)
    data = pickle.dumps(LLMEmbeddings(model=place, dtype="float32"))
    encoder = Encoder.from_pretrained(place, dtype="float32")
    with torch.no_grad():
        encoder.backbone.norm.weight.add_(0.5)
    shutil.rmtree(place)
    encoder.save_pretrained(place)
    with pytest.raises(ValueError, match="does not give the vectors"):
        pickle.loads(data).embed_query("cat")


@pytest.mark.parametrize(
    ("option", "messages"),
    [
        (
            {"model_kwargs": {"device": "cpu", "torch_dtype": "auto", "revision": "x"}},
            ["'device' is device=", "'torch_dtype': here it is dtype=", "'revision' is revision="],
        ),
        (
            {"encode_kwargs": {"normalize_embeddings": True, "prompt_name": "a", "batch_size": 2}},
            ["here it is normalize=", "is document_prompt_name=", "here it is max_batch_tokens="],
        ),
        ({"query_encode_kwargs": {"prompt_name": "a"}}, ["'prompt_name' is query_prompt_name="]),
        ({"multi_process": True}, ["here it is devices="]),
        ({"backend": "onnx"}, ["PyTorch"]),
        ({"querry_instruction": "x"}, ["did you mean 'query_instruction'"]),
    ],
    ids=str,
)
def test_words_of_hugging_face_are_answered_with_ours(option: Any, messages: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        LLMEmbeddings(**option)
    for message in messages:
        assert message in str(caught.value)

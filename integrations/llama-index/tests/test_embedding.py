"""Vectors are the core's; options are checked early and survive dicts, pickles and copies."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.llm_embeddings import LLMEmbedding

from llm_embeddings import Encoder, Recipe

TEXTS = ["Cats purr.", "", "Paris is in France.\nIt is big.", "量子计算机", "dogs " * 60]


def assert_close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5, rtol=0)


def test_vectors_are_those_of_the_core(pair: tuple[LLMEmbedding, Encoder]) -> None:
    embed_model, core = pair
    assert_close(embed_model.get_query_embedding("a cat"), core.encode_query("a cat"))
    assert_close(embed_model.get_text_embedding("a cat"), core.encode_document("a cat"))
    assert_close(embed_model.get_text_embedding_batch(TEXTS), core.encode_document(TEXTS))


async def test_async_vectors_are_those_of_the_core(pair: tuple[LLMEmbedding, Encoder]) -> None:
    embed_model, core = pair
    assert_close(await embed_model.aget_query_embedding("a cat"), core.encode_query("a cat"))
    assert_close(await embed_model.aget_text_embedding("a cat"), core.encode_document("a cat"))
    batch = await embed_model.aget_text_embedding_batch(TEXTS)
    assert_close(batch, core.encode_document(TEXTS))


async def test_concurrent_calls_do_not_mix(embed_model: LLMEmbedding) -> None:
    mixed = await asyncio.gather(
        *(embed_model.aget_query_embedding(text) for text in TEXTS),
        *(embed_model.aget_text_embedding(text) for text in TEXTS),
    )
    assert_close(mixed[: len(TEXTS)], [embed_model.get_query_embedding(text) for text in TEXTS])
    assert_close(mixed[len(TEXTS) :], [embed_model.get_text_embedding(text) for text in TEXTS])


def test_queries_differ_from_texts(embed_model: LLMEmbedding) -> None:
    query, text = embed_model.get_query_embedding("a cat"), embed_model.get_text_embedding("a cat")
    assert np.abs(np.subtract(query, text)).max() > 1e-3


def test_many_texts_keep_their_order(embed_model: LLMEmbedding) -> None:
    texts = [f"{number} " * (number % 17) for number in range(600)]
    vectors = embed_model.get_text_embedding_batch(texts)
    assert len(vectors) == 600
    assert_close(vectors[::97], [embed_model.get_text_embedding(text) for text in texts[::97]])


def test_vectors_are_lists_of_floats(embed_model: LLMEmbedding) -> None:
    for vector in (
        embed_model.get_query_embedding("a"),
        *embed_model.get_text_embedding_batch(["a"]),
    ):
        assert type(vector) is list
        assert {type(value) for value in vector} == {float}


async def test_nothing_gives_nothing(embed_model: LLMEmbedding) -> None:
    assert embed_model.get_text_embedding_batch([]) == []
    assert await embed_model.aget_text_embedding_batch([]) == []


@pytest.mark.parametrize("bad", [None, 3, b"bytes"])
def test_a_text_must_be_a_string(embed_model: LLMEmbedding, bad: Any) -> None:
    with pytest.raises(TypeError, match="not a string"):
        embed_model.get_query_embedding(bad)
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        embed_model.get_text_embedding_batch(["good", bad])


def test_options_reach_the_core(embed_model: LLMEmbedding) -> None:
    core = embed_model.encoder
    other = LLMEmbedding(
        encoder=core,
        query_instruction="Find an animal",
        text_instruction="",
        normalize=False,
        truncate_dim=8,
        max_length=40,
        max_batch_tokens=64,
    )
    same: dict[str, Any] = {"normalize": False, "truncate_dim": 8, "max_length": 40}
    assert_close(
        other.get_query_embedding("cat"), core.encode("cat", "query", "Find an animal", **same)
    )
    assert_close(other.get_text_embedding_batch(TEXTS), core.encode(TEXTS, **same))
    assert other.dimension == 8


@pytest.mark.slow
def test_a_recipe_may_be_an_object_a_dict_or_a_name(
    embed_model: LLMEmbedding, options: dict[str, Any]
) -> None:
    recipe = embed_model.encoder.recipe.replace(pooling="mean", required_tokens=("</s>",))
    made = LLMEmbedding(**options, recipe=recipe)
    assert made.encoder.recipe == recipe
    assert isinstance(made.recipe, dict)
    assert LLMEmbedding(**options, recipe=made.recipe).to_dict() == made.to_dict()
    assert LLMEmbedding.from_json(made.to_json()).to_dict() == made.to_dict()
    assert LLMEmbedding(**options, recipe="mean").encoder.recipe.pooling == "mean"


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"truncate_dims": 8}, TypeError, "truncate_dims"),
        ({"truncate_dim": 10**6}, ValueError, "truncate_dim=1000000"),
        ({"max_length": 0}, ValueError, "max_length=0"),
        ({"normalize": "perhaps"}, ValueError, "normalize"),
        ({"embed_batch_size": 0}, ValueError, "embed_batch_size"),
        ({"recipe": 3}, TypeError, "recipe=3"),
        ({"recipe": {"poling": "mean"}}, ValueError, "did you mean 'pooling'"),
        ({"encoder": "e5"}, TypeError, "not an llm_embeddings.Encoder"),
    ],
)
def test_wrong_options_fail_at_once(
    options: dict[str, Any], wrong: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LLMEmbedding(**options, **wrong)


def test_an_instruction_without_a_place_fails_at_once(embed_model: LLMEmbedding) -> None:
    backbone, tokenizer = embed_model.encoder.backbone, embed_model.encoder.tokenizer
    recipe = Recipe(name="plain", causal=True, pooling="last_token")
    encoder = Encoder(backbone, tokenizer, recipe)
    with pytest.raises(ValueError, match="has no place"):
        LLMEmbedding(encoder=encoder, text_instruction="Summarise")


def test_a_missing_model_fails_at_once() -> None:
    with pytest.raises((FileNotFoundError, ValueError), match="no-such-model"):
        LLMEmbedding("/no-such-model", local_files_only=True)


@pytest.mark.parametrize("field", ["model_name", "query_instruction", "truncate_dim"])
def test_what_decides_a_vector_cannot_be_assigned(embed_model: LLMEmbedding, field: str) -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(embed_model, field, None)


def test_dict_and_json_come_back(options: dict[str, Any]) -> None:
    made = LLMEmbedding(**options, truncate_dim=8, query_instruction="Find an animal")
    for again in (
        LLMEmbedding.from_dict(made.to_dict()),
        LLMEmbedding.from_json(made.to_json()),
    ):
        assert again.to_dict() == made.to_dict()
        assert_close(again.get_query_embedding("cat"), made.get_query_embedding("cat"))
        assert_close(again.get_text_embedding("cat"), made.get_text_embedding("cat"))


def test_the_token_stays_out_of_sight(options: dict[str, Any]) -> None:
    made = LLMEmbedding(**options, token="hf_secret")
    seen = [made.to_dict(), made.to_payload(), made.model_dump(), repr(made), str(made)]
    assert "hf_secret" not in str(seen) + made.to_json()


def test_a_pickle_is_small_and_loads_late(embed_model: LLMEmbedding) -> None:
    data = pickle.dumps(embed_model)
    assert len(data) < 10_000
    assert b"Encoder" not in data
    again = pickle.loads(data)
    assert again.to_dict() == embed_model.to_dict()
    assert_close(again.get_query_embedding("cat"), embed_model.get_query_embedding("cat"))
    assert again.encoder is not embed_model.encoder


@pytest.mark.slow
def test_an_unpickled_dict_needs_no_model(embed_model: LLMEmbedding) -> None:
    code = (
        "import pickle, sys\n"
        "model = pickle.loads(sys.stdin.buffer.read())\n"
        "print(model.to_json())\n"
        "assert 'transformers' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(embed_model),
        capture_output=True,
        check=True,
    )
    assert json.loads(run.stdout) == embed_model.to_dict()


async def test_unpickled_objects_embed_from_coroutines(embed_model: LLMEmbedding) -> None:
    again = pickle.loads(pickle.dumps(embed_model))
    vectors = await asyncio.gather(*(again.aget_query_embedding("cat") for _ in range(3)))
    assert_close(vectors, [embed_model.get_query_embedding("cat")] * 3)


def test_copies_share_the_weights(embed_model: LLMEmbedding) -> None:
    assert copy.deepcopy(embed_model).encoder is embed_model.encoder
    assert embed_model.model_copy().encoder is embed_model.encoder


def test_a_nameless_encoder_embeds_and_refuses_to_travel(embed_model: LLMEmbedding) -> None:
    nameless = LLMEmbedding(encoder=embed_model.encoder, truncate_dim=8)
    assert len(nameless.get_text_embedding("cat")) == 8
    with pytest.raises(ValueError, match="model_name"):
        pickle.dumps(nameless)
    with pytest.raises(ValueError, match="encoder="):
        LLMEmbedding.from_dict(nameless.to_dict())
    again = LLMEmbedding.from_dict(nameless.to_dict(), encoder=embed_model.encoder)
    assert again.to_dict() == nameless.to_dict()


def test_a_named_encoder_travels(embed_model: LLMEmbedding, options: dict[str, Any]) -> None:
    named = LLMEmbedding(**options, encoder=embed_model.encoder)
    again = pickle.loads(pickle.dumps(named))
    assert_close(again.get_text_embedding("cat"), named.get_text_embedding("cat"))


def test_a_wrongly_named_encoder_is_found_out(
    embed_model: LLMEmbedding, options: dict[str, Any]
) -> None:
    wrong = LLMEmbedding(**options, recipe="mean", encoder=embed_model.encoder)
    again = pickle.loads(pickle.dumps(wrong))
    with pytest.raises(ValueError, match="does not give the vectors"):
        again.get_text_embedding("cat")


def test_a_cache_that_mixes_queries_and_texts_is_refused(embed_model: LLMEmbedding) -> None:
    with pytest.raises(ValueError, match="IngestionPipeline"):
        LLMEmbedding(encoder=embed_model.encoder, embeddings_cache=SimpleKVStore())
    with pytest.raises(ValueError, match="frozen"):
        embed_model.embeddings_cache = SimpleKVStore()


def test_a_cache_is_welcome_where_queries_and_texts_are_alike(embed_model: LLMEmbedding) -> None:
    store = SimpleKVStore()
    alike = LLMEmbedding(encoder=embed_model.encoder, query_instruction="", embeddings_cache=store)
    text = alike.get_text_embedding("cat")
    assert alike.get_query_embedding("cat") == text
    assert [len(entries) for entries in store.to_dict().values()] == [1]
    assert "embeddings_cache" not in alike.to_dict()


def test_two_models_do_not_mix_in_one_cache(embed_model: LLMEmbedding) -> None:
    encoder, store = embed_model.encoder, SimpleKVStore()
    recipe = encoder.recipe.replace(pooling="mean", instruction="")
    other = Encoder(encoder.backbone, encoder.tokenizer, recipe)
    shared: dict[str, Any] = {"query_instruction": "", "embeddings_cache": store}
    models = [
        LLMEmbedding(encoder=encoder, **shared),
        LLMEmbedding(encoder=other, **shared),
        LLMEmbedding(encoder=encoder, truncate_dim=8, **shared),
    ]
    for model in models * 2:
        alone = LLMEmbedding(
            encoder=model.encoder, truncate_dim=model.truncate_dim, query_instruction=""
        )
        assert_close(model.get_text_embedding("cat"), alone.get_text_embedding("cat"))
        assert_close(model.get_text_embedding_batch(["cat"]), [alone.get_text_embedding("cat")])
    assert len(store.to_dict()) == len(models)
    again = LLMEmbedding(
        encoder=encoder, **{**shared, "embeddings_cache": models[1].embeddings_cache}
    )
    assert_close(again.get_text_embedding("cat"), models[0].get_text_embedding("cat"))
    with pytest.raises(TypeError, match="embeddings_cache is dict"):
        LLMEmbedding(encoder=encoder, embeddings_cache={})  # type: ignore[arg-type]


async def test_one_string_is_no_batch(embed_model: LLMEmbedding) -> None:
    with pytest.raises(TypeError, match="not a list of strings"):
        embed_model.get_text_embedding_batch("abc")
    with pytest.raises(TypeError, match="not a list of strings"):
        await embed_model.aget_text_embedding_batch("abc")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"parallel_process": True, "target_devices": ["cpu"]}, "here it is devices="),
        ({"target_devices": ["cpu"]}, "here it is devices="),
        ({"show_progress_bar": True}, "get_text_embedding_batch"),
        ({"backend": "onnx"}, "PyTorch"),
        ({"prompts": {"query": "q: "}}, "instruction"),
        ({"model_kwargs": {"torch_dtype": "auto", "device_map": "auto"}}, "here it is dtype="),
        ({"pooling": "mean"}, "recipe="),
    ],
    ids=str,
)
def test_words_of_hugging_face_are_answered_with_ours(option: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        LLMEmbedding(**option)


def test_training_changes_the_fingerprint(options: dict[str, Any]) -> None:
    made = LLMEmbedding(**options)
    before = made.to_dict()
    with torch.no_grad():
        next(made.encoder.backbone.parameters()).add_(0.01)
    assert made.to_dict() != before


@pytest.mark.slow
async def test_a_file_of_vectors_is_one_option(
    embed_model: LLMEmbedding, options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "vectors.sqlite"
    for hits in (0, 6):
        kept = LLMEmbedding(**options, vector_cache=path, devices=["cpu"])
        found = await kept.aget_text_embedding_batch(TEXTS)
        assert_close(found, embed_model.get_text_embedding_batch(TEXTS))
        assert_close(kept.get_query_embedding("a cat"), embed_model.get_query_embedding("a cat"))
        assert kept.encoder.vector_cache is not None
        assert kept.encoder.vector_cache.hits == hits
    again = LLMEmbedding.from_dict(kept.to_dict())
    assert (again.vector_cache, again.devices) == (str(path), ["cpu"])


def test_it_is_a_base_embedding() -> None:
    assert issubclass(LLMEmbedding, BaseEmbedding)
    assert LLMEmbedding.class_name() == "LLMEmbedding"

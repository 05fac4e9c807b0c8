"""Exports for sentence-transformers: what its own modules make of them, and what they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLED, assert_close, read_case

from llm_embeddings import Encoder, Recipe, Template

pytestmark = pytest.mark.slow

E5 = BUNDLED / "e5-mistral/model"
TEXTS = [text for text in read_case(BUNDLED / "e5-mistral")["texts"] if len(text) < 400]


def load(path: Path) -> Any:
    module = pytest.importorskip("sentence_transformers")
    return module.SentenceTransformer(str(path), local_files_only=True)


def with_recipe(**values: Any) -> Encoder:
    defaults = {"name": "custom", "causal": True, "pooling": "mean"}
    return Encoder.from_pretrained(E5, recipe=Recipe(**{**defaults, **values}), dtype="float32")


@pytest.mark.parametrize("family", ["e5", "gritlm"])
def test_plain_sentence_transformers_gives_the_same_vectors(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    encoder = request.getfixturevalue(family)
    encoder.export_sentence_transformers(tmp_path)
    model = load(tmp_path)
    texts = [text for text in TEXTS if text]
    assert model.max_seq_length == encoder.max_length
    assert_close(model.encode_query(texts, batch_size=5), encoder.encode_query(texts))
    assert_close(model.encode_document(texts, batch_size=1), encoder.encode_document(texts))
    assert_close(model.encode(texts), encoder.encode(texts))
    model.max_seq_length = 40
    assert_close(model.encode_query(texts), encoder.encode_query(texts, max_length=40))


def test_the_chat_template_is_kept_and_never_applied(gritlm: Encoder, tmp_path: Path) -> None:
    gritlm.export_sentence_transformers(tmp_path)
    model = load(tmp_path)
    assert model.tokenizer.chat_template
    assert model.modalities == ["text"]


def test_an_empty_text_differs_only_where_nothing_is_pooled(
    e5: Encoder, gritlm: Encoder, tmp_path: Path
) -> None:
    e5.export_sentence_transformers(tmp_path / "e5")
    assert_close(load(tmp_path / "e5").encode_query(["", "a"]), e5.encode_query(["", "a"]))
    gritlm.export_sentence_transformers(tmp_path / "gritlm")
    empty, other = load(tmp_path / "gritlm").encode_query(["", "a"])
    assert not empty.any()
    assert_close(other, gritlm.encode_query("a"))


@pytest.mark.parametrize(
    "recipe",
    [
        {"pooling": "weighted_mean"},
        {"causal": False, "eos": True, "pool_span": "text", "query": Template("q: ")},
        {"causal": False, "pooling": "first_token", "pool_span": "text", "query": Template("q: ")},
        {"pooling": "last_token", "bos": False, "eos": True, "document": Template("passage: ")},
        {"normalize": False},
    ],
    ids=lambda recipe: "-".join(recipe),
)
def test_any_recipe_that_native_modules_can_express(recipe: dict[str, Any], tmp_path: Path) -> None:
    encoder = with_recipe(max_length=24, **recipe)
    encoder.export_sentence_transformers(tmp_path)
    model = load(tmp_path)
    assert_close(model.encode_query(TEXTS), encoder.encode_query(TEXTS), 2e-5)
    assert_close(model.encode_document(TEXTS), encoder.encode_document(TEXTS), 2e-5)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"join": "segments"}, "join='segments'"),
        ({"separator": "!@#$%^&*()"}, "separator="),
        ({"max_text_length": 400}, "max_text_length=400"),
        ({"pooling": "last_k_mean", "last_k": 8}, "pooling='last_k_mean'"),
        ({"pooling": "weighted_mean", "pool_span": "text"}, "weights that start after the prompt"),
        ({"query": Template("", " [/INST]")}, "suffix"),
        ({"pool_span": "text", "query": Template("query</s>")}, "counted alike"),
    ],
)
def test_what_they_cannot_express_is_refused_by_name(
    recipe: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="cannot be written") as error:
        with_recipe(**recipe).export_sentence_transformers(tmp_path / "new")
    assert reason in str(error.value)
    assert not (tmp_path / "new").exists()


def test_llm2vec_is_refused(llm2vec: Encoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_text_length=400"):
        llm2vec.export_sentence_transformers(tmp_path)


@pytest.mark.parametrize("family", ["e5", "gritlm"])
@pytest.mark.parametrize("sidecar", [True, False])
def test_the_export_loads_back(
    family: str, sidecar: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    encoder = request.getfixturevalue(family)
    encoder.export_sentence_transformers(tmp_path)
    if not sidecar:
        (tmp_path / "llm_embeddings.json").unlink()
    again = Encoder.from_pretrained(tmp_path)
    assert again.max_length == encoder.max_length
    assert again.tokenize(TEXTS, "query") == encoder.tokenize(TEXTS, "query")
    # Of a text without a token of its own, native modules pool zeros where the prompt is left out.
    texts = TEXTS if sidecar else [text for text in TEXTS if text]
    assert_close(again.encode_query(texts, "Find it"), encoder.encode_query(texts, "Find it"))
    assert_close(again.encode(texts), encoder.encode(texts))


def test_a_bidirectional_export_asks_for_a_transformers_that_obeys(
    gritlm: Encoder, tmp_path: Path
) -> None:
    gritlm.export_sentence_transformers(tmp_path)
    settings = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    config = json.loads((tmp_path / "config.json").read_text())
    assert settings["requirements"]["transformers"]["specifier"] == ">=5.2"
    assert config["is_causal"] is False
    assert "auto_map" not in config

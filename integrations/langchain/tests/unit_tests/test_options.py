"""The options: what they do, what is refused, and what survives serialisation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.load import dumps, loads
from langchain_llm_embeddings import LLMEmbeddings
from pydantic import SecretStr, ValidationError

from llm_embeddings import Encoder, get_recipe

RECIPE = get_recipe("intfloat/e5-mistral-7b-instruct").replace(pooling="mean", normalize=False)


def revive(embeddings: LLMEmbeddings, **options: Any) -> LLMEmbeddings:
    revived = loads(
        dumps(embeddings),
        allowed_objects=[LLMEmbeddings],
        valid_namespaces=["langchain_llm_embeddings"],
        **options,
    )
    assert isinstance(revived, LLMEmbeddings)
    return revived


def test_model_name_is_model(checkpoint: Path) -> None:
    embeddings = LLMEmbeddings(model_name=checkpoint)
    assert embeddings.encoder.opened is not None
    assert embeddings.encoder.opened[0] == embeddings.model_dump()["model"] == str(checkpoint)
    assert embeddings.model == embeddings.model_name


def test_adapters(golden: Path) -> None:
    base, adapter = golden / "llm2vec-mistral/mntp", golden / "llm2vec-mistral/supervised"
    embeddings = LLMEmbeddings(model=base, adapters=[adapter], dtype="float32")
    encoder = Encoder.from_pretrained(base, adapters=[adapter], dtype="float32")
    expected = encoder.encode_query("Cats purr.")
    np.testing.assert_allclose(embeddings.embed_query("Cats purr."), expected, atol=1e-5)


def test_torch_objects_are_kept_as_names(checkpoint: Path) -> None:
    embeddings = LLMEmbeddings(model=checkpoint, dtype=torch.float32, device=torch.device("cpu"))
    assert (embeddings.dtype, embeddings.device) == ("float32", "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"query_instruction": "Given a claim, find documents that refute it"},
        {"query_instruction": ""},
        {"normalize": False},
        {"truncate_dim": 8},
        {"precision": "float16"},
        {"max_length": 32, "max_batch_tokens": 64},
    ],
    ids=str,
)
async def test_options_reach_the_core(encoder: Encoder, options: dict[str, Any]) -> None:
    embeddings = LLMEmbeddings(encoder=encoder, **options)
    call = dict(options)
    instruction = call.pop("query_instruction", None)
    text = "a text about lighthouses, storms and ships " * 5
    query = encoder.encode_query(text, instruction, **call)
    documents = encoder.encode_document([text, "b"], **call)
    np.testing.assert_allclose(embeddings.embed_query(text), query, atol=1e-5)
    np.testing.assert_allclose(await embeddings.aembed_query(text), query, atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_documents([text, "b"]), documents, atol=1e-5)
    assert embeddings.dimension == documents.shape[1]


def test_document_instruction(encoder: Encoder) -> None:
    embeddings = LLMEmbeddings(encoder=encoder, document_instruction="Represent the passage")
    expected = encoder.encode_document(["a"], "Represent the passage")
    np.testing.assert_allclose(embeddings.embed_documents(["a"]), expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_bytes_are_whole_floats_and_work_on_one_text(encoder: Encoder, precision: Any) -> None:
    encoder.calibrate(["a", "Cats purr.", "the sea in winter"])
    embeddings = LLMEmbeddings(encoder=encoder, precision=precision)
    vector = embeddings.embed_query("Cats purr.")
    assert {type(value) for value in vector} == {float}
    assert all(value.is_integer() for value in vector)
    assert len(set(vector)) > 4


def test_progress_bar(encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = LLMEmbeddings(encoder=encoder)
    loud = LLMEmbeddings(encoder=encoder, show_progress=True)
    quiet.embed_documents(["a", "b"])
    assert capsys.readouterr().err == ""
    loud.embed_documents(["a", "b"])
    asyncio.run(loud.aembed_documents(["a", "b", "c"]))
    assert "2/2" in (shown := capsys.readouterr().err)
    assert "3/3" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querry_instruction": "x"}, "querry_instruction"),
        ({"recipe": "e5-mystery"}, "e5-mystery"),
        ({"recipe": {**RECIPE.to_dict(), "causl": True}}, "did you mean 'causal'"),
        ({"recipe": 3}, "recipe=3"),
        ({"dtype": "float33"}, "float33"),
        ({"adapters": "one"}, "adapters"),
    ],
    ids=str,
)
def test_bad_load_options_fail_at_once(
    checkpoint: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        LLMEmbeddings(model=checkpoint, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncate_dim": 99}, "truncate_dim=99"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_batch_tokens": 0}, "max_batch_tokens=0"),
        ({"precision": "int4"}, "precision"),
        ({"precision": "binary"}, "precision='binary' packs"),
        ({"precision": "ubinary"}, "precision='ubinary' packs"),
    ],
    ids=str,
)
def test_bad_options_fail_at_once(encoder: Encoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LLMEmbeddings(encoder=encoder, **options)


def test_misspelt_option_fails_before_the_model_is_loaded() -> None:
    with pytest.raises(ValidationError, match="normalise"):
        LLMEmbeddings(model="no/such/place", normalise=True)


def test_missing_model_fails_at_once() -> None:
    with pytest.raises(FileNotFoundError, match="no/such/place"):
        LLMEmbeddings(model="no/such/place")


def test_shared_encoder_takes_no_load_options(encoder: Encoder) -> None:
    with pytest.raises(ValidationError, match="leave out dtype, model"):
        LLMEmbeddings(encoder=encoder, model="x", dtype="float32")


def test_instruction_without_a_place_fails_at_once(golden: Path) -> None:
    with pytest.raises(ValidationError, match="has no place in the template"):
        LLMEmbeddings(
            model=golden / "e5-mistral/model", recipe="last-token", document_instruction="x"
        )


def test_options_are_frozen(embeddings: LLMEmbeddings) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        embeddings.query_instruction = "x"


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recipe": RECIPE, "query_instruction": "Find it", "document_instruction": "Keep it"},
        {"recipe": "last-token", "max_length": 24, "precision": "float16"},
        {"adapters": [], "query_instruction": "", "normalize": False, "truncate_dim": 8},
    ],
    ids=lambda options: ", ".join(options) or "defaults",
)
def test_round_trip(checkpoint: Path, options: dict[str, Any]) -> None:
    embeddings = LLMEmbeddings(model=checkpoint, dtype="float32", **options)
    revived = revive(embeddings)
    assert revived.model_dump() == embeddings.model_dump()
    assert dumps(revived) == dumps(embeddings)
    texts = ["Cats purr.", "a text about lighthouses, storms and ships " * 5]
    assert revived.embed_documents(texts) == embeddings.embed_documents(texts)
    assert revived.embed_query(texts[0]) == embeddings.embed_query(texts[0])
    assert revived.cache_namespace("query") == embeddings.cache_namespace("query")


@pytest.mark.parametrize("recipe", [RECIPE, RECIPE.to_dict()], ids=["object", "dict"])
def test_recipe_decides_the_vector(checkpoint: Path, recipe: Any) -> None:
    embeddings = LLMEmbeddings(model=checkpoint, dtype="float32", recipe=recipe)
    encoder = Encoder.from_pretrained(checkpoint, dtype="float32", recipe=RECIPE)
    np.testing.assert_allclose(embeddings.embed_query("a"), encoder.encode_query("a"), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_token_is_never_shown(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = LLMEmbeddings(model=checkpoint, token="hf_secret")
    for shown in (dumps(embeddings), repr(embeddings), str(embeddings.model_dump_json())):
        assert "hf_secret" not in shown
    assert revive(embeddings).token is None
    revived = revive(embeddings, secrets_map={"HF_TOKEN": "hf_secret"})
    assert revived.token == SecretStr("hf_secret")
    with pytest.raises(ValidationError) as caught:
        LLMEmbeddings(model=checkpoint, token="hf_secret", max_length=0)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_shared_encoder_is_not_serialised_as_another_model(encoder: Encoder) -> None:
    embeddings = LLMEmbeddings(encoder=encoder, normalize=False)
    assert '"not_implemented"' in dumps(embeddings)
    with pytest.raises(NotImplementedError):
        revive(embeddings)

"""What clients of other services send and read, as their own sources have it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from helpers import assert_close
from helpers.serving import EMBEDDINGS, client, gate, post, until

from llm_embeddings import Encoder
from llm_embeddings.generation import Generator, Reranker
from llm_embeddings.recipe import Template
from llm_embeddings.serving import Limits, create_app
from llm_embeddings.vectors import TokenVectors

TEXTS = ["Rain fell over quiet hills.", "Straße 中文 🙂", "cats purr " * 20]
LONG = "cats purr " * 5000
PART = {"content": [{"type": "text", "text": "x"}]}


@pytest.fixture(scope="module")
def app(e5: Encoder) -> FastAPI:
    return create_app(e5, name="model")


async def sent(app: FastAPI, path: str, status: int = 200, /, **fields: Any) -> Any:
    """The JSON of an answer."""
    async with client(app) as http:
        response = await http.post(path, json=fields)
    assert response.status_code == status, response.text
    return response.json()


# -- OpenAI's --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("query", "query"),
        ("search_query", "query"),
        ("document", "document"),
        ("search_document", "document"),
        ("passage", "document"),
        (None, "document"),
    ],
)
async def test_words_for_roles(app: FastAPI, e5: Encoder, word: str, role: Any) -> None:
    found = await sent(app, "/v1/embeddings", model="model", input=TEXTS, input_type=word)
    assert_close([one["embedding"] for one in found["data"]], e5.encode(TEXTS, role), 1e-6)
    found = await sent(app, "/v2/embed", model="model", texts=TEXTS, input_type=word)
    assert_close(found["embeddings"]["float"], e5.encode(TEXTS, role), 1e-6)
    found = await sent(app, "/embed", inputs=TEXTS, prompt_name=word)
    assert_close(found, e5.encode(TEXTS, role), 1e-6)


async def test_prompts_of_the_model_go_before_words(e5: Encoder) -> None:
    recipe = e5.recipe.replace(prompts=(("passage", Template("Mine: ")),))
    with_prompt = Encoder(e5.backbone, e5.tokenizer, recipe)
    app = create_app(with_prompt, name="model")
    for path, fields in (
        ("/embed", {"inputs": TEXTS, "prompt_name": "passage"}),
        ("/v1/embeddings", {"model": "model", "input": TEXTS, "input_type": "passage"}),
    ):
        found = await sent(app, path, **fields)
        rows = found if path == "/embed" else [one["embedding"] for one in found["data"]]
        assert_close(rows, with_prompt.encode(TEXTS, prompt_name="passage"), 1e-6)
    found = await sent(app, "/embed", 400, inputs=TEXTS, prompt_name="sts")
    assert "search_document, passage, passage" in found["error"]
    with_prompt.close()


async def test_half_a_character_counts_as_in_encode(app: FastAPI, e5: Encoder) -> None:
    halves = ["cut \ud83d", "\ude42 cut", "🙂 \ud83d\ud83d", r"no \ud83d escape", "\\\ud83d"]
    body = json.dumps({"model": "model", "input": halves}).encode()
    async with client(app) as http:
        headers = {"Content-Type": "application/json"}
        found = (await http.post(EMBEDDINGS, content=body, headers=headers)).json()
    assert_close([one["embedding"] for one in found["data"]], e5.encode(halves), 1e-6)


async def test_texts_are_cut_unless_the_request_forbids(app: FastAPI, e5: Encoder) -> None:
    for path, field, refusals, grants in (
        ("/v1/embeddings", "input", ("NONE", False), ("END", True, None)),
        ("/v2/embed", "texts", ("NONE",), ("END", None)),
        ("/embed", "inputs", (False,), (True, None)),
        ("/embed_all", "inputs", (False,), (True, None)),
    ):
        fields = {field: [LONG, TEXTS[0]]}
        if path.startswith("/v"):
            fields["model"] = "model"
        for value in refusals:
            found = await sent(app, path, 400, **fields, truncate=value)
            assert f"1 of 2 texts have more tokens than {e5.max_length}" in str(found)
        for value in grants:
            await sent(app, path, **fields, truncate=value)


# -- Cohere's --------------------------------------------------------------------------------------


async def test_cohere_embed(app: FastAPI, e5: Encoder) -> None:
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    found = await sent(
        app,
        "/v2/embed",
        model="model",
        texts=TEXTS,
        input_type="search_query",
        embedding_types=kinds,
        output_dimension=16,
        truncate="END",
    )
    expected = e5.encode_query(TEXTS, truncate_dim=16)
    vectors = found["embeddings"]
    assert list(vectors) == kinds
    assert_close(vectors["float"], expected, 1e-6)
    raw = b"".join(map(base64.b64decode, vectors["base64"]))
    assert_close(np.frombuffer(raw, "<f4").reshape(3, 16), expected, 1e-6)
    for kind in kinds[1:-1]:
        packed: Any = kind
        wanted = e5.encode_query(TEXTS, truncate_dim=16, precision=packed)
        assert np.abs(np.array(vectors[kind]) - wanted.astype(int)).max() <= 1, kind
    assert found["texts"] == TEXTS
    tokens = sum(map(len, e5.tokenize(TEXTS, "query")))
    assert found["meta"]["billed_units"] == {"input_tokens": tokens}


async def test_cohere_inputs_and_limit(app: FastAPI, e5: Encoder) -> None:
    inputs = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    found = await sent(app, "/v2/embed", model="model", inputs=inputs, max_tokens=20)
    assert_close(found["embeddings"]["float"], e5.encode(TEXTS, max_length=20), 1e-6)
    found = await sent(app, "/v2/embed", model="model", texts=TEXTS, max_tokens=10**9)
    assert_close(found["embeddings"]["float"], e5.encode(TEXTS), 1e-6)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "send either texts or inputs"),
        ({"texts": ["x"], "inputs": [PART]}, "send either texts or inputs"),
        ({"texts": []}, "texts is empty"),
        ({"inputs": []}, "inputs is empty"),
        ({"texts": "x"}, "texts is 'x'"),
        ({"inputs": [{"content": []}]}, "an input has 0 parts"),
        ({"inputs": [{"content": [{"type": "image_url", "text": "x"}]}]}, "should be 'text'"),
        ({"images": ["data:"]}, "unknown field 'images'"),
        ({"texts": ["x"], "dimensions": 3}, "here it is 'output_dimension'"),
        ({"texts": ["x"], "embedding_types": ["int4"]}, "embedding_types.0 is 'int4'"),
    ],
)
async def test_cohere_errors(app: FastAPI, fields: Any, reason: str) -> None:
    found = await sent(app, "/v2/embed", 400, model="model", **fields)
    assert found.keys() == {"message"}
    assert reason in found["message"]


# -- TEI's -----------------------------------------------------------------------------------------


async def test_tei_embed(app: FastAPI, e5: Encoder) -> None:
    for path in ("/embed", "/"):
        assert_close(await sent(app, path, inputs=TEXTS), e5.encode(TEXTS), 1e-6)
    one = await sent(app, "/embed", inputs=TEXTS[0], normalize=False, dimensions=8, truncate=True)
    expected = e5.encode(TEXTS[:1], normalize=False, truncate_dim=8)
    assert_close(one, expected, 1e-5)
    assert not np.allclose(np.linalg.norm(expected), 1)


async def test_tei_gives_unit_length_unless_told_otherwise(e5: Encoder) -> None:
    plain = Encoder(e5.backbone, e5.tokenizer, e5.recipe.replace(normalize=False))
    for served, sent_, unit in (
        (None, None, True),
        (None, False, False),
        (False, None, False),
        (False, True, True),
    ):
        app = create_app(plain, name="model", normalize=served)
        found = await sent(app, "/embed", inputs=TEXTS, normalize=sent_)
        assert_close(found, e5.encode(TEXTS, normalize=unit), 1e-5)
    plain.close()


async def test_tei_embed_all(app: FastAPI, e5: Encoder) -> None:
    found = await sent(app, "/embed_all", inputs=TEXTS, prompt_name="query")
    expected: list[TokenVectors] = e5.encode_tokens(TEXTS, "query")
    for rows, wanted in zip(found, expected, strict=True):
        assert_close(rows, wanted.vectors, 1e-5)


async def test_token_vectors_are_bounded_and_dropped(
    e5: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(e5, name="model", limits=Limits(timeout=0.3))
    with gate(e5) as closed:
        begun = time.monotonic()
        found = await sent(app, "/embed_all", 503, inputs="x")
        assert time.monotonic() - begun < 15  # the event loop does not wait for the pass
        assert "not done within 0.3 s" in found["error"]
        await until(closed.reached)
    monkeypatch.setattr("llm_embeddings.serving.service._MOST_NUMBERS", 100)
    found = await sent(app, "/embed_all", 400, inputs=TEXTS)
    assert "an answer takes 100" in found["error"]


async def test_tei_similarity(app: FastAPI, e5: Encoder) -> None:
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    found = await sent(app, "/similarity", inputs=inputs, parameters={})
    vectors = e5.encode(TEXTS)
    assert_close(found, vectors[1:] @ vectors[0], 1e-5)
    inputs["sentences"] = []
    assert "sentences is empty" in (await sent(app, "/similarity", 400, inputs=inputs))["error"]


async def test_tei_info_and_health(app: FastAPI, e5: Encoder) -> None:
    async with client(app) as http:
        facts = (await http.get("/info")).json()
        for path in ("/health", "/healthz", "/readyz"):
            assert (await http.get(path)).status_code == 200
            answer = await http.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
    assert facts["model_id"] == "model"
    assert facts["model_dtype"] == "float32"
    assert facts["model_type"] == {"embedding": {"pooling": "last_token"}}
    assert facts["max_input_length"] == e5.max_length
    assert facts["max_client_batch_size"] == 2048


async def test_tei_errors(app: FastAPI) -> None:
    for fields, reason in (
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": [TEXTS[0], 3]}, "inputs[1] is a number"),
        ({"inputs": "x", "truncation_direction": "left"}, "cuts texts at their ends alone"),
        ({"input": "x"}, "unknown field 'input': here it is 'inputs'"),
        ({"inputs": [[5, 6]]}, "takes no token ids"),
    ):
        found = await sent(app, "/embed", 400, **fields)
        assert found.keys() == {"error", "error_type"}
        assert reason in found["error"]
        assert found["error_type"] == "Validation"


# -- ranking ---------------------------------------------------------------------------------------


async def test_rerank_in_both_shapes(app: FastAPI, e5: Encoder) -> None:
    scores = e5.encode(TEXTS) @ e5.encode_query("rain")
    order = np.argsort(-scores)
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        fields = {"model": "model", "query": "rain", "documents": TEXTS, "top_n": 2}
        found = await sent(app, path, **fields)
        assert [one["index"] for one in found["results"]] == list(order[:2])
        assert_close([one["relevance_score"] for one in found["results"]], scores[order[:2]], 1e-5)
        tokens = sum(map(len, [*e5.tokenize(TEXTS), *e5.tokenize(["rain"], "query")]))
        assert found["usage"]["total_tokens"] == tokens
    ranks = await sent(app, "/rerank", query="rain", texts=TEXTS, return_text=True)
    assert [one["text"] for one in ranks] == [TEXTS[i] for i in order]
    assert_close([one["score"] for one in ranks], scores[order], 1e-5)


async def test_rerank_with_objects_and_instruction(app: FastAPI, e5: Encoder) -> None:
    found = await sent(
        app,
        "/v1/rerank",
        query="rain",
        documents=[{"text": text} for text in TEXTS],
        instruction="Find a poem",
        return_documents=True,
    )
    scores = e5.encode(TEXTS) @ e5.encode_query("rain", "Find a poem")
    texts = [one["document"]["text"] for one in found["results"]]
    assert texts == [TEXTS[i] for i in np.argsort(-scores)]


async def test_rerank_by_generation(gritlm: Encoder, e5: Encoder) -> None:
    app = create_app(gritlm, name="model", rank_by="generation", max_batch_tokens=60)
    raw = np.array(Reranker(Generator(gritlm)).scores("rain", TEXTS))
    order = np.argsort(-raw)
    ranks = await sent(app, "/rerank", query="rain", texts=TEXTS, raw_scores=True)
    assert [one["index"] for one in ranks] == list(order)
    assert_close([one["score"] for one in ranks], raw[order], 1e-4)
    found = await sent(app, "/v2/rerank", model="model", query="rain", documents=TEXTS, top_n=2)
    scores = [one["relevance_score"] for one in found["results"]]
    assert_close(scores, 1 / (1 + np.exp(-raw[order[:2]])), 1e-5)
    questions = Reranker(Generator(gritlm)).questions("rain", TEXTS)
    assert found["usage"]["total_tokens"] == sum(len(one.ids) for one in questions)
    vectors = await sent(app, "/embed", inputs=TEXTS)
    assert_close(vectors, gritlm.encode(TEXTS), 1e-5)
    for fields, reason in (
        ({"documents": ["x"], "instruction": "i"}, "without instruction"),
        ({"documents": ["x"], "max_tokens_per_doc": 5}, "without max_tokens_per_doc"),
        ({"documents": [LONG * 3]}, "shorten the prompt"),
    ):
        found = await sent(app, "/v1/rerank", 400, query="rain", **fields)
        assert reason in found["message"]
    await sent(app, "/rerank", 404, query="rain", documents=["x"], model="other")
    with pytest.raises(ValueError, match="head"):
        create_app(e5, rank_by="generation")
    with pytest.raises(ValueError, match="rank_by='x' is not one of"):
        create_app(e5, rank_by="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "send either documents or texts"),
        ({"documents": ["x"], "texts": ["x"]}, "send either documents or texts"),
        ({"documents": []}, "documents is empty"),
        ({"documents": ["x", {"title": "x"}]}, "documents.1 is {'title': 'x'}"),
        ({"documents": ["x"], "top_n": 0}, "top_n is 0"),
        ({"documents": ["x"], "top_k": 3}, "here it is 'top_n'"),
        ({"documents": ["x"], "model": "model:query"}, "leave one out"),
    ],
)
async def test_rerank_errors(app: FastAPI, fields: Any, reason: str) -> None:
    found = await sent(app, "/v2/rerank", 400, query="q", **fields)
    assert reason in found["message"]


# -- what all have in common -----------------------------------------------------------------------


async def test_keys_queue_and_metrics_are_those_of_all(e5: Encoder) -> None:
    app = create_app(e5, name="model", api_key="key", limits=Limits(queue_tokens=5, inputs=2))
    async with client(app) as http:
        refused = await http.post("/embed", json={"inputs": "x"})
        assert (await http.get("/info")).status_code == 401
    assert refused.status_code == 401
    assert "send the server's key" in refused.json()["error"]
    async with client(app, "key") as http:
        for path, field, most in (
            ("/embed", "inputs", "error"),
            ("/v2/embed", "texts", "message"),
            ("/embed_all", "inputs", "error"),
        ):
            model = {} if most == "error" else {"model": "model"}
            many = await http.post(path, json={**model, field: ["x", "y", "z"]})
            assert "3 texts and this server takes 2" in many.json()[most]
            long = await http.post(path, json={**model, field: ["long text " * 9]})
            assert "tokens and this server takes 5" in long.json()[most]
        seen = (await http.get("/metrics")).text
    assert 'llm_embeddings_requests_total{route="/embed",status="400"} 2.0' in seen
    assert 'llm_embeddings_request_seconds_count{status="400"} 6.0' in seen


async def test_failures_are_written_in_the_dialect(
    e5: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(e5, name="model")
    monkeypatch.setattr(e5, "prepare", None)
    assert (await sent(app, "/embed", 500, inputs="x"))["error_type"] == "Backend"
    found = await sent(app, "/v2/embed", 500, model="model", texts=["x"])
    assert "the server failed" in found["message"]
    assert "error" in (await post(app, input="x")).json()

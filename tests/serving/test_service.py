"""The server without a socket: vectors, names, roles, bounds, and what becomes of lost clients."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import BUNDLED, assert_close
from helpers.serving import EMBEDDINGS, Wire, client, error_of, gate, post, until

from llm_embeddings import Encoder
from llm_embeddings.serving import Limits, create_app
from llm_embeddings.serving.app import build
from llm_embeddings.serving.errors import ApiError
from llm_embeddings.serving.queue import Queue
from llm_embeddings.serving.service import Served, Service

TEXTS = [
    "Rain fell over quiet hills.",
    "",
    "line one\nline two",
    "Straße 中文 🙂",
    "cats purr " * 40,
]
SECRET = "the patient is called Ada"


@pytest.fixture
def fresh() -> Iterator[Encoder]:
    encoder = Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float32")
    yield encoder
    encoder.close()


def vectors_of(response: Any) -> Any:
    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return np.array([item["embedding"] for item in data], np.float32)


async def metric(app: Any, name: str) -> float:
    """The value of a metric, labels included in the name."""
    async with client(app) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


# -- vectors ---------------------------------------------------------------------------------------


async def test_numbers_are_those_of_encode(encoder: Encoder) -> None:
    app = create_app(encoder, name="model")
    np.testing.assert_array_equal(vectors_of(await post(app, input=TEXTS)), encoder.encode(TEXTS))
    one = vectors_of(await post(app, input=TEXTS[0]))
    np.testing.assert_array_equal(one, [encoder.encode(TEXTS[0])])


async def test_base64_is_the_bytes_of_encode(e5: Encoder) -> None:
    response = await post(create_app(e5), input=TEXTS, encoding_format="base64")
    found = [base64.b64decode(item["embedding"]) for item in response.json()["data"]]
    assert b"".join(found) == e5.encode(TEXTS).astype("<f4").tobytes()


async def test_limits_of_texts_and_passes_are_those_of_encode(e5: Encoder) -> None:
    app = create_app(e5, name="model", max_length=30, max_batch_tokens=64)
    response = await post(app, input=TEXTS)
    expected = e5.encode(TEXTS, max_length=30, max_batch_tokens=64)
    np.testing.assert_array_equal(vectors_of(response), expected)
    assert not np.allclose(expected, e5.encode(TEXTS))
    rows = e5.model.rows(TEXTS, "document", None, 30)
    assert response.json()["usage"]["prompt_tokens"] == sum(len(row.ids) for row in rows)
    async with client(app) as http:
        assert (await http.get("/v1/models")).json()["data"][0]["max_length"] == 30
    with pytest.raises(ValueError, match="max_length=1000000"):
        create_app(e5, max_length=10**6)


async def test_dimensions_truncate_and_normalise(e5: Encoder) -> None:
    app = create_app(e5)
    found = vectors_of(await post(app, input=TEXTS, dimensions=8))
    np.testing.assert_array_equal(found, e5.encode(TEXTS, truncate_dim=8))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    error = error_of(await post(app, input=TEXTS, dimensions=e5.dimension + 1))
    assert error["param"] == "dimensions"
    assert f"has {e5.dimension}" in error["message"]


async def test_usage_is_what_the_backbone_is_fed(e5: Encoder) -> None:
    for role in ("query", "document"):
        response = await post(create_app(e5), input=[*TEXTS, TEXTS[0]], role=role)
        expected = sum(map(len, e5.tokenize([*TEXTS, TEXTS[0]], role)))
        assert response.json()["usage"] == {"prompt_tokens": expected, "total_tokens": expected}


async def test_roles_and_instructions(e5: Encoder) -> None:
    app = create_app(e5, instruction="Find a poem")
    document, query = e5.encode(TEXTS), e5.encode_query(TEXTS, "Find a poem")
    for fields, expected in (
        ({}, document),
        ({"role": "document"}, document),
        ({"model": "model:document"}, document),
        ({"role": "query"}, query),
        ({"model": "model:query"}, query),
        ({"model": "model:query", "role": "query"}, query),
        ({"role": "query", "instruction": "Find a law"}, e5.encode_query(TEXTS, "Find a law")),
        ({"role": "query", "instruction": ""}, e5.encode_query(TEXTS, "")),
    ):
        found = await post(app, input=TEXTS, **fields)
        np.testing.assert_array_equal(vectors_of(found), expected)
        assert found.json()["model"] == fields.get("model", "model")
    error = error_of(await post(app, input=TEXTS, model="model:query", role="document"))
    assert error["param"] == "role"


async def test_normalisation_is_the_servers_choice(e5: Encoder) -> None:
    found = vectors_of(await post(create_app(e5, normalize=False), input=TEXTS))
    np.testing.assert_array_equal(found, e5.encode(TEXTS, normalize=False))


async def test_instruction_that_does_not_fit(llm2vec: Encoder, e5: Encoder) -> None:
    small = Encoder.from_pretrained(dtype="float32")
    with pytest.raises(ValueError, match="has no place in the template"):
        create_app(small, instruction="Find")
    response = await post(create_app(small), input="x", model=small.recipe.name, instruction="Find")
    assert response.status_code == 400
    assert error_of(response)["param"] == "instruction"
    response = await post(create_app(e5), input="x", role="query", instruction="Find " * 5000)
    assert response.status_code == 400
    assert "no room is left" in error_of(response)["message"]


# -- arrays of token ids ---------------------------------------------------------------------------


def ids_of(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    backend: Any = encoder.tokenizer.backend_tokenizer
    return [row.ids for row in backend.encode_batch(texts, add_special_tokens=False)]


async def test_ids_count_as_their_text(encoder: Encoder) -> None:
    app = create_app(encoder, name="model", token_arrays=True)
    arrays = ids_of(encoder, TEXTS)
    for role in ("query", "document"):
        expected = encoder.encode(TEXTS, role)
        found = vectors_of(await post(app, input=arrays, role=role))
        np.testing.assert_array_equal(found, expected)
        one = vectors_of(await post(app, input=arrays[0], role=role))
        assert_close(one, expected[:1], 1e-6)


async def test_ids_that_are_no_text_are_refused(e5: Encoder) -> None:
    app = create_app(e5, token_arrays=True)
    bos, hello = e5.tokenizer.bos_token_id, ids_of(e5, ["hello"])[0]
    letters = e5.tokenizer.convert_tokens_to_ids(["▁h", "e", "l", "l", "o"])
    for array, reason in (
        ([*hello, 99999], "99999 is not in this model's vocabulary of 32000"),
        ([-1], "-1 is not in"),
        ([2**70], "is not in"),
        ([bos, *hello], "special token <s>"),
        (letters, "makes these ids of no text"),
    ):
        response = await post(app, input=[hello, array])
        assert response.status_code == 400
        error = error_of(response)
        assert error["message"].startswith("input[1]: ")
        assert reason in error["message"]


async def test_ids_are_refused_unless_asked_for(e5: Encoder) -> None:
    app = create_app(e5)
    for arrays in (ids_of(e5, TEXTS), ids_of(e5, TEXTS)[0]):
        response = await post(app, input=arrays)
        assert response.status_code == 400
        assert "--token-arrays" in error_of(response)["message"]


# -- names, key, state, numbers --------------------------------------------------------------------


async def test_models_are_listed(e5: Encoder) -> None:
    async with client(create_app(e5, name="org/e5")) as http:
        listed = (await http.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == [
            "org/e5",
            "org/e5:query",
            "org/e5:document",
        ]
        for path in ("/v1/models/org/e5:query", "/v1/models/org%2Fe5%3Aquery"):
            assert (await http.get(path)).json() == listed["data"][1]
        assert listed["data"][0]["dimensions"] == e5.dimension
        missing = await http.get("/v1/models/gpt")
        assert missing.status_code == 404
        assert error_of(missing)["code"] == "model_not_found"
        response = await http.post(EMBEDDINGS, json={"model": "e5", "input": "x"})
        assert response.status_code == 404
        assert "use one of org/e5, org/e5:query" in error_of(response)["message"]


async def test_key_is_asked_of_all_but_probes(e5: Encoder) -> None:
    app = create_app(e5, api_key="correct horse")
    for key in (None, "", "wrong", "correct horse ", "correct hors"):
        async with client(app, key) as http:
            for path in ("/v1/models", "/v1/models/model", "/metrics"):
                response = await http.get(path)
                assert response.status_code == 401
                assert error_of(response)["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
            assert (await http.post(EMBEDDINGS, content=b"{")).status_code == 401
            for path in ("/healthz", "/readyz"):
                assert (await http.get(path)).status_code == 200
    async with client(app, "correct horse") as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert "correct" not in (await http.get("/metrics")).text
        for scheme in ("bearer", "BEARER"):
            headers = {"Authorization": f"{scheme} correct horse"}
            assert (await http.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("key", ["", "naïve", "a\nb"])
def test_key_that_cannot_be_sent_is_refused(e5: Encoder, key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        create_app(e5, api_key=key)


async def test_not_ready_before_and_after(e5: Encoder) -> None:
    service = Service(Served(), Limits())
    app = build(service, None)
    async with client(app) as http:

        async def check(state: str) -> None:
            for response in (await http.get("/readyz"), await post(app, input="x")):
                assert response.status_code == 503
                assert error_of(response)["code"] == state
                assert int(response.headers["retry-after"]) > 0
            assert (await http.get("/healthz")).status_code == 200

        await check("loading")
        service.open(e5)
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        assert (await post(app, input="x")).status_code == 200
        service.drain()
        await check("draining")


async def test_metrics_count(fresh: Encoder) -> None:
    app = create_app(fresh)
    longest = "purr " * 5000
    tokens = sum(map(len, fresh.tokenize([*TEXTS, longest])))
    await post(app, input=[*TEXTS, longest])
    await post(app, input=[])
    assert await metric(app, 'llm_embeddings_tokens_total{role="document"}') == tokens
    assert await metric(app, 'llm_embeddings_texts_total{role="document"}') == len(TEXTS) + 1
    assert await metric(app, 'llm_embeddings_cut_texts_total{role="document"}') == 1
    for status in (200, 400):
        labels = f'{{route="/v1/embeddings",status="{status}"}}'
        assert await metric(app, f"llm_embeddings_requests_total{labels}") == 1
        assert await metric(app, f'llm_embeddings_request_seconds_count{{status="{status}"}}') == 1
    computed = await metric(app, "llm_embeddings_pass_fill_sum") * fresh.scheduler.runner.budget
    assert computed == pytest.approx(tokens)
    async with client(app) as http:
        await http.get(f"/{SECRET}?{SECRET}")
        assert "patient" not in (await http.get("/metrics")).text
    assert await metric(app, 'llm_embeddings_requests_total{route="other",status="404"}') == 1


async def test_log_holds_no_text(fresh: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llm_embeddings")
    app = create_app(fresh, api_key="correct horse")
    async with client(app, "correct horse") as http:
        for fields in ({}, {"role": SECRET}, {SECRET: 1}, {"model": SECRET}):
            await http.post(EMBEDDINGS, json={"model": "model", "input": SECRET, **fields})
        await http.get(f"/v1/models/{SECRET}", params={"input": SECRET})
        fresh.close()  # from here on a call fails with an exception
        response = await http.post(EMBEDDINGS, json={"model": "model", "input": SECRET})
    assert response.status_code == 500
    assert response.headers["x-request-id"] in error_of(response)["message"]
    assert "RuntimeError in request" in caplog.text
    assert "POST /v1/embeddings 200" in caplog.text
    assert "patient" not in caplog.text
    assert "horse" not in caplog.text


# -- bounds ----------------------------------------------------------------------------------------


async def test_full_queue_is_429_until_it_empties(fresh: Encoder) -> None:
    tokens = len(fresh.tokenize([TEXTS[0]])[0])
    app = create_app(fresh, limits=Limits(queue_tokens=2 * tokens))
    with gate(fresh) as closed:
        waiting = [asyncio.ensure_future(post(app, input=TEXTS[0])) for _ in range(2)]
        await until(closed.reached)
        await asyncio.sleep(0)
        assert await metric(app, "llm_embeddings_queue_tokens") == 2 * tokens
        refused = await post(app, input=TEXTS[0])
        assert refused.status_code == 429
        assert error_of(refused)["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        closed.open()
        assert [response.status_code for response in await asyncio.gather(*waiting)] == [200, 200]
        assert (await post(app, input=TEXTS[0])).status_code == 200
    assert await metric(app, "llm_embeddings_queue_tokens") == 0


async def test_requests_in_hand_are_bounded(fresh: Encoder) -> None:
    app = create_app(fresh, limits=Limits(queue_requests=1))
    with gate(fresh) as closed:
        waiting = asyncio.ensure_future(post(app, input=TEXTS[0]))
        await until(closed.reached)
        assert (await post(app, input="x")).status_code == 429
        closed.open()
        assert (await waiting).status_code == 200
    assert (await post(app, input="x")).status_code == 200


async def test_request_that_never_fits_is_400(e5: Encoder) -> None:
    app = create_app(e5, limits=Limits(queue_tokens=20))
    response = await post(app, input=TEXTS)
    assert response.status_code == 400
    assert error_of(response)["code"] == "too_many_tokens"


def test_waiting_time_follows_the_measured_speed() -> None:
    now = 0.0
    queue = Queue(Limits(queue_tokens=1000), lambda: now)
    with pytest.raises(ApiError) as first, queue.place(900), queue.place(200):
        pass
    assert first.value.headers == {"Retry-After": "1"}  # nothing was measured yet
    with queue.place(100):
        now += 10.0
    assert queue.seconds(100) == 10
    now += 1000.0  # nobody waited meanwhile
    with queue.place(500):
        now += 2.0
    assert queue.seconds(100) == 2
    assert queue.seconds(10**6) == 60
    assert (queue.tokens, queue.requests) == (0, 0)


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="timeout=0 must be more than 0"):
        Limits(timeout=0)


# -- clients that go, work that takes too long, a server that ends ---------------------------------


async def test_work_of_a_lost_client_is_dropped(fresh: Encoder) -> None:
    app = create_app(fresh)
    own = len(fresh.tokenize(["first"])[0])
    with gate(fresh) as closed:
        first = asyncio.ensure_future(post(app, input="first"))
        await until(closed.reached)
        lost = Wire(app, input=TEXTS)
        while await metric(app, "llm_embeddings_queue_requests") < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # it has handed in its texts
        lost.leave()
        await lost.task
        assert lost.sent == []
        assert await metric(app, "llm_embeddings_queue_tokens") == own
        closed.open()
        assert (await first).status_code == 200
        await post(app, input="last")
        assert sum(closed.tokens) == own + len(fresh.tokenize(["last"])[0])
    labels = '{route="/v1/embeddings",status="499"}'
    assert await metric(app, f"llm_embeddings_requests_total{labels}") == 1


async def test_late_work_is_given_up(fresh: Encoder) -> None:
    app = create_app(fresh, limits=Limits(timeout=0.1))
    with gate(fresh) as closed:
        first = asyncio.ensure_future(post(app, input="first"))
        await until(closed.reached)
        late = await post(app, input=TEXTS)
        for response in (late, await first):
            assert response.status_code == 503
            assert error_of(response)["code"] == "timeout"
        assert await metric(app, "llm_embeddings_queue_tokens") == 0
        closed.open()
        await asyncio.to_thread(fresh.encode, "last")
        assert sum(closed.tokens) == sum(map(len, fresh.tokenize(["first", "last"])))


async def test_body_that_does_not_come_is_408(e5: Encoder) -> None:
    wire = Wire(create_app(e5, limits=Limits(timeout=0.05)))
    await wire.task
    assert wire.status == 408


async def test_cancelled_request_is_answered(fresh: Encoder) -> None:
    app = create_app(fresh)
    with gate(fresh) as closed:
        wire = Wire(app, input=TEXTS)
        await until(closed.reached)
        wire.task.cancel()  # what uvicorn does at the end of its grace
        await wire.task
        assert wire.status == 503
        assert await metric(app, "llm_embeddings_queue_tokens") == 0


async def test_request_in_hand_outlives_the_call_to_end(fresh: Encoder) -> None:
    service = Service(Served(), Limits())
    service.open(fresh)
    app = build(service, None)
    wire = Wire(app)
    while not service.queue.requests:
        await asyncio.sleep(0)
    service.drain()
    wire.ask(input=TEXTS)
    await wire.task
    assert wire.status == 200


async def test_schema_describes_the_request(e5: Encoder) -> None:
    async with client(create_app(e5)) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    body = paths["/v1/embeddings"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert schema["required"] == ["input", "model"]
    assert schema["additionalProperties"] is False
    assert {kind["type"] for kind in schema["properties"]["input"]["anyOf"]} == {"string", "array"}

"""Whatever is thrown at the server gets a 4xx and an error in OpenAI's shape."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from helpers.serving import EMBEDDINGS, client, error_of

from llm_embeddings import Encoder
from llm_embeddings.serving import Limits, create_app
from llm_embeddings.serving.dialects.openai import EmbeddingRequest
from llm_embeddings.serving.request import parse

VALID = {"model": "model", "input": ["one", "two"]}
LIMITS = Limits(request_bytes=100_000, inputs=16)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def app(e5: Encoder) -> FastAPI:
    return create_app(e5, limits=LIMITS)


async def send(app: FastAPI, content: Any, headers: Any = None) -> httpx.Response:
    async with client(app) as http:
        return await http.post(EMBEDDINGS, content=content, headers=headers or JSON)


def with_value(name: str, value: Any) -> bytes:
    return json.dumps({**VALID, name: value}).encode()


NOT_JSON = {
    "empty": b"",
    "cut short": b'{"model": "model", "input": ["one',
    "two values": b"{}{}",
    "comment": b'{"model": "model", "input": "x"} // x',
    "single quotes": b"{'model': 'model', 'input': 'x'}",
    "NaN": b'{"model": "model", "input": NaN}',
    "infinity": b'{"model": "model", "input": "x", "dimensions": -Infinity}',
    "not UTF-8": b'{"model": "model", "input": "\xff\xfe"}',
    "UTF-8 cut within a character": b'{"model": "model", "input": "\xe2\x82"}',
    "UTF-16": '{"model": "model", "input": "x"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(VALID).encode(),
    "surrogate cut short": rb'{"model": "model", "input": "\ud80"}',
    "raw control character": b'{"model": "model", "input": "\x00"}',
    "deep arrays": b'{"model": "model", "input": ' + b"[" * 40_000,
    "deep closed arrays": b'{"model": "model", "input": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
    "deep objects": b'{"a":' * 15_000,
    "endless number": b'{"model": "model", "input": ' + b"9" * 50_000 + b"}",
    "binary": bytes(range(256)) * 10,
}

WRONG = {
    "array": (b"[]", "the body is an array"),
    "string": (b'"x"', "the body is a string"),
    "null": (b"null", "the body is null"),
    "no input": (b'{"model": "model"}', "input is missing"),
    "no model": (b'{"input": "x"}', "model is missing"),
    "no texts": (with_value("input", []), "input is empty"),
    "too many texts": (with_value("input", ["x"] * 17), "input has 17 texts and this server takes"),
    "too many arrays": (with_value("input", [[5]] * 17), "input has 17 texts"),
    "input null": (with_value("input", None), "input is null"),
    "input number": (with_value("input", 1.5), "input is a number"),
    "input true": (with_value("input", True), "input is true or false"),
    "input object": (with_value("input", {"a": 1}), "input is an object"),
    "null among texts": (with_value("input", ["x", None]), "input[1] is null"),
    "number among texts": (with_value("input", ["x", 3]), "input[1] is a number"),
    "text among numbers": (with_value("input", [3, "x"]), "input[0] must hold token ids"),
    "true among ids": (with_value("input", [[3, True]]), "input[0] must hold token ids"),
    "fraction among ids": (with_value("input", [[3, 4.0]]), "input[0] must hold token ids"),
    "text in an array": (with_value("input", [["x"]]), "input[0] must hold token ids"),
    "nested too deep": (with_value("input", [[[3]]]), "input[0] must hold token ids"),
    "array among texts": (with_value("input", ["x", [3]]), "input[1] is an array"),
    "model number": (with_value("model", 3), "model is 3"),
    "unknown model": (with_value("model", "m" * 5000), "is not served here"),
    "dimensions zero": (with_value("dimensions", 0), "dimensions is 0"),
    "dimensions negative": (with_value("dimensions", -3), "dimensions is -3"),
    "dimensions huge": (with_value("dimensions", 10**30), "dimensions is 10000"),
    "dimensions fraction": (with_value("dimensions", 3.0), "dimensions is 3.0"),
    "dimensions string": (with_value("dimensions", "3"), "dimensions is '3'"),
    "dimensions true": (with_value("dimensions", True), "dimensions is True"),
    "format": (with_value("encoding_format", "hex"), "encoding_format is 'hex'"),
    "role": (with_value("role", "passage"), "role is 'passage'"),
    "role array": (with_value("role", ["query"]), "role is ['query']"),
    "instruction number": (with_value("instruction", 3), "instruction is 3"),
    "user object": (with_value("user", {}), "user is {}"),
    "typing error": (with_value("dimension", 3), "did you mean 'dimensions'?"),
    "Cohere's word": (with_value("output_dimension", 3), "here it is 'dimensions'"),
    "Jina's word": (with_value("task", "retrieval.query"), "here it is 'input_type'"),
    "TEI's word": (with_value("inputs", "x"), "here it is 'input'"),
    "input_type": (with_value("input_type", "image"), "this model knows query, search_query"),
    "two roles": (b'{"model": "model:query", "input": "x", "input_type": "passage"}', "leave one"),
    "cut at the start": (with_value("truncate", "START"), "cuts texts at their ends alone"),
    "unknown field": (with_value("x" * 5000, 3), "known are input, model"),
    "long value": (with_value("role", "x" * 5000), "role is 'xxx"),
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_json(app: FastAPI, body: bytes) -> None:
    response = await send(app, body)
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_json"


@pytest.mark.parametrize(("body", "reason"), WRONG.values(), ids=WRONG)
async def test_what_has_another_shape(app: FastAPI, body: bytes, reason: str) -> None:
    response = await send(app, body)
    assert response.status_code in (400, 404)
    message = error_of(response)["message"]
    assert reason in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": ""}, 415),
        ({}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=UTF-8"}, 200),
    ],
)
async def test_content_types(app: FastAPI, headers: dict[str, str], status: int) -> None:
    async with client(app) as http:
        request = http.build_request("POST", EMBEDDINGS, content=json.dumps(VALID))
        request.headers.pop("content-type", None)
        request.headers.update(headers)
        response = await http.send(request)
    assert response.status_code == status
    if status != 200:
        assert "application/json" in error_of(response)["message"] or "gzip" in response.text


async def test_large_body_is_not_read_to_its_end(app: FastAPI) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 10_000
            yield b" " * 10_000

    response = await send(app, endless())
    assert response.status_code == 413
    assert read == LIMITS.request_bytes + 10_000
    assert "100000 bytes" in error_of(response)["message"]


async def test_declared_size_is_enough_to_refuse(app: FastAPI) -> None:
    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    for size in ("100001", "9" * 400):
        response = await send(app, untouched(), {**JSON, "Content-Length": size})
        assert response.status_code == 413
        error_of(response)


async def test_body_at_the_limit_is_taken(app: FastAPI) -> None:
    body = json.dumps(VALID).encode()
    response = await send(app, body + b" " * (LIMITS.request_bytes - len(body)))
    assert response.status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_other_methods(app: FastAPI, method: str) -> None:
    async with client(app) as http:
        response = await http.request(method, EMBEDDINGS, json=VALID)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/v1", ""),
        ("/v1/%00", ""),
        ("/ü", ""),
        ("/v1/embeddings/", "/v1/embeddings"),
        ("//v1/embeddings", "/v1/embeddings"),
        ("/v1/v1/embeddings", "/v1/embeddings"),
        ("/embeddings", "/v1/embeddings"),
        ("/v1/embed", "/v2/embed, /embed"),
        ("/v1/info", "/info"),
    ],
)
async def test_other_paths_name_the_right_ones(app: FastAPI, path: str, served: str) -> None:
    async with client(app) as http:
        response = await http.post(path, json=VALID)
    assert response.status_code == 404
    words = error_of(response)["message"].partition("served here: ")[2]
    assert words == served


async def test_random_bytes_and_mutations(app: FastAPI) -> None:
    """A thousand damaged bodies: a vector where they still mean something, else a 4xx."""
    draw = random.Random(7)
    whole = json.dumps(
        {
            **VALID,
            "input": ["ünö", "two"],
            "dimensions": 8,
            "encoding_format": "base64",
            "user": "u",
        },
        ensure_ascii=False,
    ).encode()
    seen = set()
    async with client(app) as http:
        for _ in range(1000):
            body = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                place = draw.randrange(len(body))
                kind = draw.randrange(4)
                if kind == 0:
                    body[place] = draw.randrange(256)
                elif kind == 1:
                    del body[place]
                elif kind == 2:
                    body[place:place] = draw.choice([b"[", b"{", b"}", b"]", b'"', b"1e999", b"-"])
                else:
                    body[place:place] = draw.randbytes(3)
            response = await http.post(EMBEDDINGS, content=bytes(body), headers=JSON)
            seen.add(response.status_code)
            if response.status_code != 200:
                error_of(response)
    assert seen <= {200, 400, 404}
    assert 400 in seen


def test_texts_are_not_kept() -> None:
    """A parser that caches short strings would keep texts of requests that are long answered."""
    first, second = (
        parse(json.dumps(VALID).encode(), EmbeddingRequest, 16).input for _ in range(2)
    )
    assert first[0] == second[0]
    assert first[0] is not second[0]

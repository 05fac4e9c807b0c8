"""Requests that are nearly right, and many callers at once: no 5xx, no other caller's vector."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 7, 10**9, 10**400, 0.5, float("nan"), float("inf"), "", "x", "query"),
    *([], {}, [[]], [None], {"a": {}}, [1, "a"], ["a", 1], [[1, 2], "a"], [1, 2, 3], "a" * 70_000),
    *("\0", "\ud800", "\u202e", "😀" * 50, ["x"] * 2049, "<s>[INST]", "model:query", "document"),
)
_FIELDS = (
    *("input", "model", "encoding_format", "dimensions", "user", "role", "instruction"),
    *("prompt_name", "inputs", "stream", "Input"),
)
_CALLS, _CLOSE = 5, 1e-5


@contextmanager
def served(encoder: Any) -> Iterator[int]:
    """The port of a server of an encoder, in a thread of this process."""
    import uvicorn

    from llm_embeddings.serving import create_app
    from llm_embeddings.serving.connections import guarded

    app = create_app(encoder, name="model")
    config = uvicorn.Config(app, http=guarded(), ws="none", lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def attack(encoder: Any, port: int, times: int, seed: int = 0) -> Counter[str]:
    """Send so many fuzzed requests to a server, and compare every vector with `encode`'s.

    Args:
        encoder: What the server serves, as "model".
        port: Its port.
        times: How many.
        seed: Seed of the requests.
    """
    chosen, found = random.Random(seed), Counter[str]()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for number in range(times):
        fields: dict[str, Any] = {"model": "model", "input": _texts(chosen, number)}
        for _ in range(chosen.randrange(3)):
            fields[chosen.choice(_FIELDS)] = chosen.choice(_VALUES)
        body, headers = _sent(fields, chosen)
        path = chosen.choice(["/v1/embeddings"] * 8 + ["/v1/models/x%00", "/metrics", "//", "/v1"])
        method = chosen.choice(["POST"] * 12 + ["GET", "PUT", "HEAD", "BREW"])
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            found["closed"] += 1
            continue
        kind = f"{response.status // 100}xx"
        found[f"WRONG {kind}" if kind == "5xx" else kind] += 1
        vectors = path == "/v1/embeddings" and method == "POST" and response.status == 200
        if vectors and not _right(encoder, json.loads(body), json.loads(answer)):
            found["WRONG vectors"] += 1
    connection.close()
    return found


def callers(encoder: Any, port: int, count: int) -> Counter[str]:
    """Let so many callers ask at once, each for texts of its own."""
    found, lock, begin = Counter[str](), threading.Lock(), threading.Barrier(count)

    def call(caller: int) -> None:
        begin.wait()
        for number in range(_CALLS):
            texts = [f"caller {caller} asks {number} {'again ' * (caller % 17)}{n}" for n in (0, 1)]
            body = json.dumps({"model": "model", "input": texts})
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            try:
                connection.request(
                    "POST", "/v1/embeddings", body, {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                answer = response.read()
            except OSError as error:
                what = f"WRONG {error!r:.60}"
            else:
                what = str(response.status)
                if response.status == 200:
                    data = json.loads(answer)["data"]
                    wanted = encoder.encode_document(texts)
                    same = np.allclose([one["embedding"] for one in data], wanted, atol=_CLOSE)
                    what = "right" if same else "WRONG vectors"
                elif response.status != 429:
                    what = f"WRONG {response.status}"
            finally:
                connection.close()
            with lock:
                found[what] += 1

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _texts(chosen: random.Random, number: int) -> Any:
    texts = [f"request {number} text {n} " + "word " * chosen.randrange(12) for n in range(3)]
    return chosen.choice([texts[0], texts[: chosen.randrange(1, 4)]])


def _sent(fields: dict[str, Any], chosen: random.Random) -> tuple[bytes, dict[str, str]]:
    """Body and headers, some of them damaged."""
    body = json.dumps(fields).encode()
    headers = {"Content-Type": "application/json"}
    kind = chosen.randrange(12)
    if kind == 0:
        body = body[: chosen.randrange(len(body))]
    elif kind == 1:
        other = bytearray(body)
        other[chosen.randrange(len(other))] ^= 1 << chosen.randrange(8)
        body = bytes(other)
    elif kind == 2:
        headers["Content-Type"] = chosen.choice(["", "text/plain", "application/json; charset=x"])
    elif kind == 3:
        headers["Content-Encoding"] = chosen.choice(["gzip", "", "identity"])
    elif kind == 4:
        body = chosen.choice(
            [b"", b"[" * 50_000, b"\xff\xfe", b"null", b"{}" * 9, b"\xef\xbb\xbf{}"]
        )
    elif kind == 5:
        headers["X-" + "a" * chosen.randrange(1, 9000)] = "b" * chosen.randrange(9000)
    return body, headers


def _right(encoder: Any, asked: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Whether an answer holds the vectors of exactly what was asked for."""
    texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    _, _, side = asked["model"].partition(":")
    role = asked.get("role") or side or "document"
    options = {"truncate_dim": asked.get("dimensions")}
    if asked.get("prompt_name") is not None:
        options["prompt_name"] = asked["prompt_name"]
    wanted = encoder.encode(texts, role, asked.get("instruction"), **options)
    found = [one["embedding"] for one in answer["data"]]
    if asked.get("encoding_format") == "base64":
        found = [np.frombuffer(base64.b64decode(one), "<f4") for one in found]
    return np.shape(found) == wanted.shape and np.allclose(found, wanted, atol=_CLOSE)

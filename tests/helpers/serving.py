"""What the tests of the server share: clients without a socket, a passage that can be closed."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from llm_embeddings import Encoder
from llm_embeddings.packed.attention import tokens_in

EMBEDDINGS = "/v1/embeddings"
LOOPBACK = "127.0.0.1"
ERROR_KEYS = {"message", "type", "param", "code"}


@contextmanager
def running(app: FastAPI, http: Any = "auto") -> Iterator[str]:
    """The application behind uvicorn in a thread; gives its address.

    With "auto" that is httptools and uvloop, where they are installed.
    """
    listener = socket.create_server((LOOPBACK, 0))
    loop: Any = "asyncio" if http == "h11" else "auto"
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_level="warning", http=http, loop=loop
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive()


def client(app: FastAPI, key: str | None = None) -> httpx.AsyncClient:
    """Calls the application in this process; an exception of its comes out here."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers)


async def post(app: FastAPI, **fields: Any) -> httpx.Response:
    """Ask for vectors; the model is the golden one unless it is named."""
    async with client(app) as http:
        return await http.post(EMBEDDINGS, json={"model": "model", **fields})


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in OpenAI's shape, and nothing beside it."""
    assert response.headers["content-type"] == "application/json"
    found = response.json()
    assert found.keys() == {"error"}
    assert found["error"].keys() == ERROR_KEYS
    assert found["error"]["message"]
    assert "Traceback" not in response.text
    error: dict[str, Any] = found["error"]
    return error


class Gate:
    """Stands before every forward pass of an encoder.

    Attributes:
        tokens: Of each pass that was let through or waits.
        reached: Set when a pass has come.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.tokens: list[int] = []
        self.reached, self._open = threading.Event(), threading.Event()
        self._handle = encoder.backbone.register_forward_pre_hook(self._wait, with_kwargs=True)

    def _wait(self, module: Any, arguments: Any, options: Any) -> None:
        self.tokens.append(tokens_in(options))
        self.reached.set()
        assert self._open.wait(20)

    def open(self) -> None:
        """Let everything through from now on."""
        self._open.set()

    def remove(self) -> None:
        self.open()
        self._handle.remove()


@contextmanager
def gate(encoder: Encoder) -> Iterator[Gate]:
    """A closed gate before an encoder's passes."""
    made = Gate(encoder)
    try:
        yield made
    finally:
        made.remove()


class Wire:
    """One request by hand, whose client can go; like a server's protocol, without one."""

    def __init__(self, app: FastAPI, **fields: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if fields:
            self.ask(**fields)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": EMBEDDINGS,
            "raw_path": EMBEDDINGS.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
            "server": ("server", 80),
            "client": ("127.0.0.1", 1),
        }
        self.task = asyncio.ensure_future(app(scope, self._messages.get, self._send))

    def ask(self, **fields: Any) -> None:
        """The body arrives."""
        body = json.dumps({"model": "model", **fields}).encode()
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": False})

    def leave(self) -> None:
        """The client closes its connection."""
        self._messages.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def until(event: threading.Event) -> None:
    """Wait for a thread, the event loop going on."""
    assert await asyncio.to_thread(event.wait, 20)

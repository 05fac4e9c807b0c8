"""Clients that connect and say nothing do not keep others out."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from llm_embeddings.serving.connections import Connections, guarded

pytestmark = pytest.mark.enable_socket


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answered"})


@pytest.fixture
def port() -> Iterator[int]:
    """A server that takes four connections, and waits half a second for headers."""
    config = uvicorn.Config(
        app, http=guarded(5, 4, 0.5), ws="none", lifespan="off", log_level="critical", port=0
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def connect(port: int, sent: bytes = b"") -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), timeout=5)
    if sent:
        found.sendall(sent)
    return found


def answered(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return b"answered" in connection.recv(4096)
    except OSError:
        return False


def test_silent_clients_make_room(port: int) -> None:
    silent = [connect(port), connect(port, b"GET / HT"), connect(port, b"GET / HTTP/1.1\r\nA: b")]
    working = connect(port)
    assert answered(working)
    surplus = connect(port)
    assert not answered(surplus), "one too many from this address"
    assert all(one.recv(1) == b"" for one in silent), "closed when their time was over"
    again = [connect(port) for _ in range(3)]
    assert all(map(answered, again))
    working.close()
    for one in (surplus, *silent, *again):
        one.close()


def test_a_second_request_has_its_time_too(port: int) -> None:
    connection = connect(port)
    assert answered(connection)
    connection.sendall(b"GET / HTTP/1.1\r\n")
    assert connection.recv(1) == b""
    connection.close()


def test_one_line_says_it(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(3, 2, 1.0)
    with caplog.at_level(logging.WARNING):
        taken = [connections.take(address) for address in ("a", "a", "a", "b", "b", "c")]
    assert taken == [True, True, False, True, False, False]
    assert len(caplog.records) == 1
    connections.drop("a")
    assert connections.take("c")

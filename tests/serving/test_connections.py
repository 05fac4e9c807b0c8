"""Clients that connect and say nothing do not keep others out."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from llm_embeddings.serving.connections import Connections, guarded

pytestmark = pytest.mark.enable_socket


GONE: list[str] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        try:
            while (await asyncio.wait_for(receive(), 0.6))["type"] != "http.disconnect":
                pass
            GONE.append("slow")
        except TimeoutError:
            pass
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


def all_of(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(4096):
        found += part
    connection.close()
    return found


SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_half_closed_client_gets_its_answers(port: int) -> None:
    connection = connect(port, SLOW)
    connection.shutdown(socket.SHUT_WR)
    interim, *rest = all_of(connection).split(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert b"answered" in b"".join(rest)
    connection = connect(port, SLOW + SLOW.replace(b"/slow", b"/") * 2)
    connection.shutdown(socket.SHUT_WR)
    assert all_of(connection).count(b"answered") == 3, "pipelined"
    connection = connect(port, SLOW.replace(b"1.1", b"1.0"))
    connection.shutdown(socket.SHUT_WR)
    assert all_of(connection).count(b"HTTP/1.") == 1, "it knows no interim responses"


@pytest.mark.parametrize(("pipelined", "reset"), [(1, False), (1, True), (3, True)])
def test_a_client_that_has_gone_is_noticed(port: int, pipelined: int, reset: bool) -> None:
    GONE.clear()
    connection = connect(port, SLOW * pipelined)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    begun = time.monotonic()
    while not GONE and time.monotonic() - begun < 5:
        time.sleep(0.01)
    assert GONE[:1] == ["slow"]


def test_one_line_says_it(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(3, 2, 1.0)
    with caplog.at_level(logging.WARNING):
        taken = [connections.take(address) for address in ("a", "a", "a", "b", "b", "c")]
    assert taken == [True, True, False, True, False, False]
    assert len(caplog.records) == 1
    connections.drop("a")
    assert connections.take("c")

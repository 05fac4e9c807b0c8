"""A server under siege: idle, half-open and vanishing connections while it loads and serves."""

from __future__ import annotations

import http.client
import os
import random
import re
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from llm_embeddings.serving.connections import MOST, MOST_OF_ONE, SECONDS_FOR_HEADERS

_BODY = b'{"model": "all", "input": "a text"}'
_HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_WHOLE = _HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY
_OPENINGS = (b"", b"P", _HEAD, _HEAD + b"Content-Length: 99\r\n\r\n{", b"\x16\x03\x01\x02\x00")


def attack(folder: Path, connections: int, seed: int = 0) -> Counter[str]:
    """Besiege a server from its first second with so many connections; what its clients saw.

    Args:
        folder: Where its log goes.
        connections: How many, more than it takes, from several addresses of this machine.
        seed: Seed of what they send.
    """
    chosen, found = random.Random(seed), Counter[str]()
    wanted = 2 * connections + 200
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], min(wanted, limit[1])), limit[1]))
    log = folder / "server.log"
    with _server(log) as (server, port):
        for phase in ("loading", "serving"):
            besiegers = [_connected(port, chosen, number) for number in range(connections)]
            time.sleep(1)
            if server.poll() is not None:
                found["WRONG the server has ended"] += 1
                return found
            time.sleep(SECONDS_FOR_HEADERS + 1)
            _ready(port)
            found[f"{phase}: connections"] += connections
            found["served behind them" if _answers(port) else "WRONG locked out"] += 1
            for one in besiegers:
                one.close()
        _clients(port, chosen, found)
        found["served at the end" if _answers(port) else "WRONG locked out at the end"] += 1
    words = log.read_text(encoding="utf-8")
    found["WRONG tracebacks"] += words.count("Traceback")
    full = len(re.findall("more of these are closed at once", words))
    found["lines about full" if 1 <= full <= 3 else "WRONG lines about full"] += full
    found["lines about clients that had gone"] += len(re.findall(r" 499 ", words))
    assert MOST_OF_ONE < MOST < connections
    return +found


def _clients(port: int, chosen: random.Random, found: Counter[str]) -> None:
    """Clients that are odd, and right."""
    with closing(_open(port, _WHOLE * 5)) as pipelining:
        pipelining.shutdown(socket.SHUT_WR)
        answers = _all_of(pipelining).count(b" 200 OK")
    found["pipelined and half-closed, answered" if answers == 5 else "WRONG pipelined"] += 1
    for path in ("/healthz", "/readyz"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("HEAD", path)
        response = connection.getresponse()
        right = response.status == 200 and not response.read()
        found["HEAD answered" if right else "WRONG HEAD"] += 1
        connection.close()
    for _ in range(20):  # some vanish with a reset, some in the middle of a body
        vanishing = _open(port, chosen.choice([_WHOLE, _WHOLE[:-3], _WHOLE * 3]))
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        vanishing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        vanishing.close()
        found["vanished"] += 1
    time.sleep(1)


def _connected(port: int, chosen: random.Random, number: int) -> socket.socket:
    """A connection that sends no whole request, from one of several addresses."""
    connection = socket.socket()
    connection.settimeout(10)
    connection.bind((f"127.0.0.{1 + number % 4}", 0))
    with suppress(OSError):  # closed at once
        connection.connect(("127.0.0.1", port))
        connection.sendall(chosen.choice(_OPENINGS))
    return connection


def _open(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(sent)
    return connection


def _all_of(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(2**16):
        found += part
    return found


def _answers(port: int) -> bool:
    try:
        with closing(_open(port, _WHOLE.replace(b"Host", b"Connection: close\r\nHost"))) as one:
            return b'"embedding"' in _all_of(one)
    except OSError:
        return False


def _ready(port: int) -> None:
    """Wait until the model is loaded."""
    begun = time.monotonic()
    while time.monotonic() - begun < 300:
        with suppress(OSError), closing(_open(port, b"GET /readyz HTTP/1.0\r\n\r\n")) as one:
            if b" 200 " in _all_of(one)[:20]:
                return
        time.sleep(0.2)


@contextmanager
def _server(log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The server of the bundled model, its log in a file."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "from llm_embeddings.cli import app; app()"
    command = [
        sys.executable,
        "-c",
        code,
        "serve",
        "--port",
        str(port),
        "--served-model-name",
        "all",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            while server.poll() is None:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    break
                time.sleep(0.02)
            yield server, port
        finally:
            server.terminate()
            server.wait()

"""Running the server: listening, loading the model, signals, and the end."""

from __future__ import annotations

import asyncio
import copy
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from ..encoder import Encoder
from ..inputs import names_checked
from .app import build
from .connections import guarded
from .judging import RankBy
from .limits import Limits
from .service import Served, Service

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 75  # longer than clients keep a connection, so that they close it first


class _Server(uvicorn.Server):
    """uvicorn's server, which tells the service of a signal to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to end: take no more requests, and finish those in hand."""
        self._service.drain()
        super().handle_exit(sig, frame)


@names_checked
def serve(
    load: Callable[[], Encoder],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    api_key: str | None = None,
    instruction: str | None = None,
    normalize: bool | None = None,
    token_arrays: bool = False,
    max_length: int | None = None,
    max_batch_tokens: int | None = None,
    rank_by: RankBy = "vectors",
    limits: Limits | None = None,
    grace: int = 30,
    log_level: str = "info",
) -> None:
    """Serve until SIGTERM or Ctrl-C; then finish the requests in hand and return.

    While the model loads, `/healthz` answers 200 and requests for vectors get 503.

    Args:
        load: Loads the encoder, which is closed at the end; called in a thread.
        host: Address to listen on.
        port: Port to listen on; 0 = any that is free.
        name: As in `create_app`.
        api_key: As in `create_app`.
        instruction: As in `create_app`.
        normalize: As in `create_app`.
        token_arrays: As in `create_app`.
        max_length: As in `create_app`.
        max_batch_tokens: As in `create_app`.
        rank_by: As in `create_app`.
        limits: As in `create_app`.
        grace: Seconds that requests in hand have at the end; after them they get 503.
        log_level: "debug", "info" (a line per request), "warning" or "error".

    Raises:
        OSError: the address cannot be listened on; the message names it.
        Exception: whatever `load` raises.
    """
    served = Served(
        name=name,
        instruction=instruction,
        normalize=normalize,
        token_arrays=token_arrays,
        max_length=max_length,
        max_batch_tokens=max_batch_tokens,
        rank_by=rank_by,
    )
    service = Service(served, limits or Limits())
    app = build(service, api_key)
    with _listening(host, port) as listener:
        config = _config(app, grace, log_level)
        server = _Server(config, service)
        loop = config.get_loop_factory()
        with _handled_signals(server), asyncio.Runner(loop_factory=loop) as runner:
            runner.run(_run(server, service, load, listener))


async def _run(
    server: _Server, service: Service, load: Callable[[], Encoder], listener: socket.socket
) -> None:
    """Serve, and load the model meanwhile; if that fails, the server ends."""
    host, port, *_ = listener.getsockname()
    host = f"[{host}]" if ":" in host else host

    def opened() -> Encoder:
        logger.info("loading; http://%s:%d/healthz answers", host, port)
        encoder = load()
        service.open(encoder)
        if service.state == "ready":
            logger.info("serving %s at http://%s:%d/v1", service.name, host, port)
        return encoder

    async def loading() -> Encoder:
        # In a thread that ends afterwards: while several threads of a process have a team of OpenMP
        # threads each, all teams sleep between operations, which makes a short pass a third longer.
        pool = ThreadPoolExecutor(1)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, opened)
        except BaseException:
            server.should_exit = True
            raise
        finally:
            pool.shutdown(wait=False)

    load_task = asyncio.create_task(loading())
    await server.serve([listener])
    encoder = await load_task
    await asyncio.to_thread(encoder.close)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens on an address.

    Raises:
        OSError: it cannot; the message names the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {host}, port {port}: {why}") from error
    with listener:
        yield listener


@contextmanager
def _handled_signals(server: _Server) -> Iterator[None]:
    """Handle signals to end while the block runs.

    uvicorn raises them again after its end, which would end the process with an error.
    """
    numbers = signal.SIGINT, signal.SIGTERM
    before = {number: signal.signal(number, server.handle_exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _config(app: FastAPI, grace: int, log_level: str) -> uvicorn.Config:
    """Uvicorn's configuration, with the log of this package in its format."""
    logs: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    logs["formatters"]["default"]["fmt"] = "%(asctime)s %(levelprefix)s %(message)s"
    own = {"handlers": ["default"], "level": log_level.upper(), "propagate": False}
    logs["loggers"]["llm_embeddings"] = own
    return uvicorn.Config(
        app,
        http=guarded(),
        ws="none",
        lifespan="off",
        access_log=False,  # its lines hold the query string; those of `middleware` do not
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=grace,
        log_config=logs,
        log_level=log_level,
    )

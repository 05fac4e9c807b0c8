"""A request's body, read within its limits; and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from .errors import ApiError, shown
from .options import Limits

T = TypeVar("T")


async def read_body(request: Request, limits: Limits) -> bytearray:
    """The body of a JSON request.

    Raises:
        ApiError: 415, not JSON in UTF-8; 413, too large, found out without reading the rest; 408,
            it does not come.
        ClientDisconnect: the client has gone.
    """
    _check_type(request)
    most = limits.request_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError as error:
        raise ApiError(
            408,
            f"the body did not arrive within {limits.timeout:g} s",
            code="timeout",
            headers={"Connection": "close"},
        ) from error
    return body


async def while_connected(request: Request, work: Coroutine[None, None, T]) -> T:
    """Do some work, and give it up when the client goes.

    Raises:
        ClientDisconnect: it has gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_leaving(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _leaving(request: Request) -> None:
    """End when the client has gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_type(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.partition("charset=")[2].strip(' "')
    if kind.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise ApiError(
            415,
            f"Content-Type is {shown(request.headers.get('content-type', ''))}: it must be "
            "application/json, in UTF-8",
        )
    coding = request.headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise ApiError(415, f"Content-Encoding {shown(coding)} is not supported: send plain JSON")


def _too_large(most: int) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than the {most} bytes that this server takes: send fewer texts at a "
        "time",
        code="request_too_large",
    )

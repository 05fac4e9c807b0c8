"""Reading the body of a request within its limits, and noticing that its client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from .errors import ApiError, shown
from .limits import Limits

T = TypeVar("T")


async def read_body(request: Request, limits: Limits) -> bytearray:
    """The body of a JSON request.

    Raises:
        ApiError: 415, it is not JSON in UTF-8; 413, it is too large (the rest is not read); 408, it
            does not arrive in time.
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
    """Do some work, and cancel it when the client disconnects.

    Args:
        request: The request, whose body has been read.
        work: What to do.

    Returns:
        What the work returns.

    Raises:
        ClientDisconnect: the client has gone.
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
    """Wait until the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_type(request: Request) -> None:
    """Check that the headers announce plain JSON in UTF-8.

    Raises:
        ApiError: 415, they announce something else.
    """
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

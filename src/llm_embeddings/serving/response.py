"""Vectors -> the JSON of a response, written in parts so that the event loop goes on."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import NDArray
from pydantic_core import to_json

_AT_ONCE = 2**16  # numbers; to write them as text takes milliseconds, which block the event loop

Written = Callable[[NDArray[Any]], bytes]


def numbers(vector: NDArray[Any]) -> bytes:
    """A vector, or rows of them, as numbers that read back as the same float32."""
    return to_json(vector.tolist())


def packed(vector: NDArray[Any]) -> bytes:
    """The bytes of a vector's little-endian float32 in base64, which is faster."""
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())


async def each(rows: Iterable[NDArray[Any]], write: Written) -> list[bytes]:
    """What each row is written as."""
    parts, written = [], 0
    for row in rows:
        parts.append(write(row))
        written += row.size
        if written > _AT_ONCE:
            written = 0
            await asyncio.sleep(0)
    return parts


async def array(rows: Iterable[NDArray[Any]], write: Written = numbers) -> bytes:
    """All rows as a JSON array."""
    return b"[%b]" % b",".join(await each(rows, write))


def with_values(fields: dict[str, object], **values: bytes) -> bytes:
    """A JSON object of fields, and of values that are JSON already."""
    parts = [(name, to_json(value)) for name, value in fields.items()]
    written = (b"%b:%b" % (to_json(name), value) for name, value in [*parts, *values.items()])
    return b"{%b}" % b",".join(written)

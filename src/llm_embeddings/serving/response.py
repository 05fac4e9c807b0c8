"""Vectors -> the body of a response."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic_core import to_json

from ..vectors import Vectors

_AT_ONCE = 2**16  # numbers; to write them as text takes milliseconds, which block the event loop


async def answer_body(
    vectors: Vectors, encoding: Literal["float", "base64"], model: str, tokens: int
) -> bytes:
    """The body of a response, in the JSON that OpenAI's clients read.

    Args:
        vectors: `[n, dim]`, float32.
        encoding: "float" = numbers, which read back as the same float32; "base64" = the bytes of
            little-endian float32, which is faster.
        model: Name of the model.
        tokens: Tokens that the model was fed, for the field `usage`.
    """
    parts = []
    written = 0
    for part in _items(vectors, encoding):
        parts.append(part)
        written += vectors.shape[1]
        if encoding == "float" and written > _AT_ONCE:
            written = 0
            await asyncio.sleep(0)
    usage = to_json({"prompt_tokens": tokens, "total_tokens": tokens})
    head, data = b'{"object":"list","data":[', b",".join(parts)
    return b'%b%b],"model":%b,"usage":%b}' % (head, data, to_json(model), usage)


def _items(vectors: Vectors, encoding: str) -> Iterator[bytes]:
    """The entries of the field `data`, one for each vector."""
    rows = np.ascontiguousarray(vectors, "<f4")
    for index, row in enumerate(rows):
        value = to_json(row.tolist()) if encoding == "float" else b'"%b"' % base64.b64encode(row)
        yield b'{"object":"embedding","index":%d,"embedding":%b}' % (index, value)

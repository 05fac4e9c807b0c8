"""Bounds on what a server takes on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..faces import init_checked


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a server; a request beyond one of them is refused, not cut.

    Attributes:
        queue_tokens: Most tokens of all requests that are not answered yet, and so of one request.
        queue_requests: Most requests in hand at once, those still being read included.
        request_bytes: Largest body of a request.
        inputs: Most texts in a request.
        timeout: Most seconds for reading a request, and again for answering it.

    Raises:
        ValueError: a bound that is not above 0.
    """

    queue_tokens: int = 2**20
    queue_requests: int = 256
    request_bytes: int = 8 * 2**20
    inputs: int = 2048
    timeout: float = 120.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name}={value} must be more than 0")

"""What a server is asked to hold, and no more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a server; a request beyond one of them is refused, not cut.

    Attributes:
        queue_tokens: Tokens taken on and not answered yet, in all requests together. Also the most
            that one request may have.
        queue_requests: Requests in hand at once, those that are still being read included.
        request_bytes: Size of a request's body.
        inputs: Texts in a request.
        timeout: Seconds that a request may take, reading it not counted, which may take as long
            again.
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

"""What a server has taken on, and what it cannot take on now."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import ApiError
from .options import Limits

_REMEMBERED_SECONDS = 30.0
_LONGEST_WAIT = 60  # openai's client ignores a longer Retry-After than one or two minutes


class Queue:
    """Requests in hand and tokens that are not computed yet; used by one event loop.

    Attributes:
        requests: Requests in hand.
        tokens: Tokens of theirs, as far as they are counted, that have no vectors yet.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is in hand."""
        self._limits, self._clock = limits, clock
        self.requests = self.tokens = 0
        self._done = self._seconds = self._since = 0.0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Have a request in hand, so that what waiting bodies take is bounded.

        Raises:
            ApiError: 429, there are too many.
        """
        if self.requests >= self._limits.queue_requests:
            raise self._full(f"{self.requests} requests", self.tokens)
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def place(self, tokens: int) -> Iterator[None]:
        """Have a request's tokens in the queue until they are computed or given up.

        Raises:
            ApiError: 400, more than ever fit; 429, more than fit now.
        """
        most = self._limits.queue_tokens
        if tokens > most:
            raise ApiError(
                400,
                f"the request has {tokens} tokens and this server takes {most}: send fewer texts "
                "at a time",
                code="too_many_tokens",
                param="input",
            )
        if self.tokens + tokens > most:
            raise self._full(f"{self.tokens} tokens", self.tokens + tokens - most)
        if not self.tokens:
            self._since = self._clock()
        self.tokens += tokens
        try:
            yield
            self._count(tokens)
        finally:
            self.tokens -= tokens

    def seconds(self, tokens: int) -> int:
        """How long to wait until so many tokens are done, by the speed of the last requests.

        Returns:
            Between 1 and 60.
        """
        needed = tokens * self._seconds / self._done if self._done else 0.0
        return min(max(math.ceil(needed), 1), _LONGEST_WAIT)

    def _count(self, tokens: int) -> None:
        """Remember how fast requests are finished while there are any."""
        now = self._clock()
        self._done += tokens
        self._seconds += now - self._since
        self._since = now
        if self._seconds > _REMEMBERED_SECONDS:
            self._done, self._seconds = self._done / 2, self._seconds / 2

    def _full(self, what: str, ahead: int) -> ApiError:
        seconds = self.seconds(ahead)
        return ApiError(
            429,
            f"the server is busy with {what}: try again in {seconds} s",
            code="queue_full",
            headers={"Retry-After": str(seconds)},
        )

"""The queue of a server: what it has in hand, and the refusal of what is too much."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import ApiError
from .limits import Limits

_REMEMBERED_SECONDS = 30.0  # of work, from which the speed is estimated
_LONGEST_WAIT = 60  # openai's client ignores a longer Retry-After than one or two minutes


class Queue:
    """Counts requests in hand and their tokens; used within one event loop.

    Attributes:
        requests: How many requests are in hand.
        tokens: How many of their tokens are not computed yet; requests not parsed yet have none.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing in hand; `clock` tells the time in seconds."""
        self._limits, self._clock = limits, clock
        self.requests = self.tokens = 0
        self._done = self._seconds = self._since = 0.0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as in hand while the block runs, so that waiting bodies are bounded.

        Raises:
            ApiError: 429, too many requests are in hand.
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
        """Count a request's tokens as in hand while the block runs, which computes them.

        Raises:
            ApiError: 400, they are more than ever fit; 429, more than fit now.
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
        """About how long so many tokens take, by the speed of the last requests.

        Returns:
            Seconds, from 1 to 60.
        """
        needed = tokens * self._seconds / self._done if self._done else 0.0
        return min(max(math.ceil(needed), 1), _LONGEST_WAIT)

    def _count(self, tokens: int) -> None:
        """Count tokens as done, with the time since the last ones; older ones count less."""
        now = self._clock()
        self._done += tokens
        self._seconds += now - self._since
        self._since = now
        if self._seconds > _REMEMBERED_SECONDS:
            self._done, self._seconds = self._done / 2, self._seconds / 2

    def _full(self, what: str, ahead: int) -> ApiError:
        """The refusal of a request while `ahead` tokens have to be done first."""
        seconds = self.seconds(ahead)
        return ApiError(
            429,
            f"the server is busy with {what}: try again in {seconds} s",
            code="queue_full",
            headers={"Retry-After": str(seconds)},
        )

"""Connections within bounds: how many, from one address, and how long one may say nothing.

Clients that connect and send no request, or half of one, would else take every file that the
process may open.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

logger = logging.getLogger(__name__)

MOST, MOST_OF_ONE = 800, 400  # under the 1,024 files that a process may open by default
SECONDS_FOR_HEADERS = 10.0
_SECONDS_BETWEEN_LINES = 60.0
_PROBES, _SECONDS_OF_A_PROBE = 2, 0.2
_PROTOCOL: Any = AutoHTTPProtocol


class Connections:
    """Counts connections, and says so once a minute when they are too many."""

    def __init__(self, most: int, most_of_one: int, seconds: float) -> None:
        """Start with none.

        Args:
            most: Most connections at once.
            most_of_one: Most of them from one address.
            seconds: How long one may wait with the headers of a request.
        """
        self._most, self._most_of_one, self.seconds = most, most_of_one, seconds
        self._open: Counter[str] = Counter()
        self._told = float("-inf")

    def take(self, address: str) -> bool:
        """Count a connection; False = it is one too many."""
        if self._open.total() < self._most and self._open[address] < self._most_of_one:
            self._open[address] += 1
            return True
        if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            words = "%d connections are open, %d of them from %s: more of these are closed at once"
            logger.warning(words, self._open.total(), self._open[address], address)
        return False

    def drop(self, address: str) -> None:
        """Count a connection no more."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class Guarded(_PROTOCOL):  # type: ignore[misc]
    """One connection; a server's class of them has the `counted` that all of its own share."""

    counted: Connections
    _address: str | None = None
    _deadline: asyncio.TimerHandle | None = None
    _cycles: tuple[Any, ...] = ()
    _before: Any = None  # the request before the one that is waited for

    @property
    def cycle(self) -> Any:
        """The newest request, as uvicorn knows it; those before it are answered first."""
        return self._cycles[-1] if self._cycles else None

    @cycle.setter
    def cycle(self, cycle: Any) -> None:
        if cycle is not None:
            self._cycles = (*(one for one in self._cycles if not one.response_complete), cycle)

    def connection_made(self, transport: Any) -> None:
        """Count it, or close it at once."""
        address = str((transport.get_extra_info("peername") or ("-",))[0])
        if not self.counted.take(address):
            transport.abort()
            return
        self._address = address
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        """Count it no more."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._address is not None:
            self.counted.drop(self._address)
            for cycle in self._cycles:  # uvicorn tells the newest alone
                if not cycle.response_complete:
                    cycle.disconnected = True
                    cycle.message_event.set()
            super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Take what has come; the headers of a request have their time from its first byte."""
        if self._address is not None:
            super().data_received(data)
            self._watch()

    def eof_received(self) -> bool:
        """Answer a client that has closed its half of the connection; one that has gone, do not.

        The two look the same. Two interim responses tell them apart: one that has gone refuses the
        first, so that the second finds no connection.
        """
        cycle = self.cycle
        if self._address is None or cycle is None or cycle.response_complete or cycle.more_body:
            return False
        cycle.keep_alive = False
        self._probe(_PROBES)
        return True

    def _probe(self, left: int) -> None:
        begun = self.pipeline or self.cycle.response_started  # an answer is on its way
        if begun or self.transport.is_closing() or self.cycle.scope["http_version"] != "1.1":
            return
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if left > 1:
            self.loop.call_later(_SECONDS_OF_A_PROBE, self._probe, left - 1)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            return
        if self._deadline is not None and self._before is self.cycle:
            return  # a byte now and then does not put it off
        if self._deadline is not None:
            self._deadline.cancel()
        self._before = self.cycle
        self._deadline = self.loop.call_later(self.counted.seconds, self._end)

    def _end(self) -> None:
        self._deadline = None
        if self.cycle is self._before and not self.transport.is_closing():
            self.transport.close()


def guarded(
    most: int = MOST, most_of_one: int = MOST_OF_ONE, seconds: float = SECONDS_FOR_HEADERS
) -> type[asyncio.Protocol]:
    """Uvicorn's HTTP protocol within bounds; the arguments are those of `Connections`."""
    connections = Connections(most, most_of_one, seconds)
    return type("Guarded", (Guarded,), {"counted": connections})

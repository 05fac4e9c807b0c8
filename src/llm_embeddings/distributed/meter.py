"""How far a run is: a bar of Ray's in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

_LOG_SECONDS = 30.0


class Meter:
    """Counts rows and tokens of this call; a context manager.

    Attributes:
        rows: With a vector, made in this call.
        tokens: Theirs, about.
    """

    def __init__(self, total: int, *, show: bool) -> None:
        """Start the clock.

        Args:
            total: Rows that are left.
            show: Whether to show anything.
        """
        self._total, self._done, self._show = total, 0, show
        self.rows = self.tokens = 0
        self._start = self._told = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Meter:
        if self._show and sys.stderr.isatty():
            from ray.experimental import tqdm_ray

            self._bar = tqdm_ray.tqdm(desc="rows", total=self._total, unit="row")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, rows: int, skipped: int, tokens: int) -> None:
        """A block is finished."""
        self.rows, self.tokens = self.rows + rows, self.tokens + tokens
        self._done += rows + skipped
        if self._bar is not None:
            self._bar.set_description(f"rows, {self.tokens / self.seconds:,.0f} tokens/s")
            self._bar.update(rows + skipped)
        elif self._show and time.monotonic() - self._told > _LOG_SECONDS:
            self._told = time.monotonic()
            sys.stderr.write(f"{self._words()}\n")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return max(time.monotonic() - self._start, 1e-9)

    def _words(self) -> str:
        left = timedelta(seconds=round(self.seconds * (self._total / max(self._done, 1) - 1)))
        return (
            f"{self._done:,} of {self._total:,} rows, {self.rows / self.seconds:,.0f} rows/s, "
            f"{self.tokens / self.seconds:,.0f} tokens/s, {left} left"
        )

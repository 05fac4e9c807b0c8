"""How far a long run is: a bar in a terminal, a line a minute in a log."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_WIDE = 76
_LOG_SECONDS = 60.0  # between two lines of a log


def bar(console: Console, words: str = "{task.description}", *, show: bool = True) -> Progress:
    """A bar with the share that is done and the time that is left; nothing outside a terminal."""
    return Progress(
        words,
        BarColumn(20),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    )


class Meter:
    """Counts what is embedded and its tokens; a context manager.

    Attributes:
        count: Texts or rows that this run embedded.
        tokens: Their tokens.
    """

    def __init__(
        self,
        console: Console,
        unit: str,
        *,
        begun: int = 0,
        total: int | None = None,
        show: bool = True,
    ) -> None:
        """Start the clock.

        Args:
            console: Where to show it.
            unit: What is counted, as "texts".
            begun: How many earlier runs finished.
            total: How many there are, these included; None = nobody knows.
            show: Whether to show anything.
        """
        self._console, self._unit, self._total, self._show = console, unit, total, show
        self._finished = begun
        self.count = self.tokens = 0
        self._start = self._told = time.monotonic()
        self._first = begun / total if total else 0.0
        self._bar = Progress(
            *([BarColumn(20)] if console.width >= _WIDE else []),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not (show and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def skip(self, fraction: float | None) -> None:
        """The input up to here was finished earlier."""
        self._first = fraction or 0.0

    def add(
        self, count: int, tokens: int, fraction: float | None = None, *, left_out: int = 0
    ) -> None:
        """Some are finished.

        Args:
            count: How many were embedded.
            tokens: Their tokens.
            fraction: How much of the input is done, if the total does not say so; None if nobody
                knows.
            left_out: How many more were looked at and not embedded.
        """
        self.count, self.tokens = self.count + count, self.tokens + tokens
        self._finished += count + left_out
        of = f" of {self._total:,}" if self._total else ""
        fraction = self._finished / self._total if self._total else fraction
        words = f"{self._finished:,}{of} {self._unit}, {self.rates()}{self._left(fraction)}"
        self._bar.update(
            self._task, description=words, completed=fraction or 0, total=fraction and 1
        )
        now = time.monotonic()
        if self._show and not self._console.is_terminal and now - self._told >= _LOG_SECONDS:
            self._told = now
            self._console.print(words)

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return max(time.monotonic() - self._start, 1e-9)

    def rates(self) -> str:
        """Texts or rows and tokens per second of this run."""
        return f"{self.count / self.seconds:,.0f}/s, {self.tokens / self.seconds:,.0f} tokens/s"

    def _left(self, fraction: float | None) -> str:
        done = (fraction or 0) - self._first
        if fraction is None or done <= 0:
            return ""
        seconds = self.seconds * (1 - fraction) / done
        return f", {timedelta(seconds=round(seconds))} left"

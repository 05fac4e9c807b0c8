"""How far an embedding run is: a bar in a terminal, now and then a line in a log."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_WIDE = 76
_LOG_SECONDS = 30.0


class Meter:
    """Counts texts and tokens; a context manager.

    Attributes:
        texts: Texts of this run.
        tokens: Their tokens.
    """

    def __init__(self, console: Console, begun: int, *, quiet: bool) -> None:
        """Start the clock.

        Args:
            console: Where to show it.
            begun: Texts that earlier runs finished.
            quiet: Show nothing.
        """
        self._console, self._begun, self._quiet = console, begun, quiet
        self.texts = self.tokens = 0
        self._start = self._told = time.monotonic()
        self._first: float | None = None
        bar = [BarColumn(20)] if console.width >= _WIDE else []
        self._bar = Progress(
            *bar,
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def skip(self, fraction: float | None) -> None:
        """Rows up to here were finished earlier."""
        self._first = fraction

    def add(self, texts: int, tokens: int, fraction: float | None) -> None:
        """Rows were finished.

        Args:
            texts: How many.
            tokens: Their tokens.
            fraction: How much of the input is done; None if nobody knows.
        """
        self.texts, self.tokens = self.texts + texts, self.tokens + tokens
        words = f"{self._begun + self.texts:,} texts, {self.rates()}{self._left(fraction)}"
        self._bar.update(
            self._task, description=words, completed=fraction or 0, total=fraction and 1
        )
        now = time.monotonic()
        if not self._quiet and not self._console.is_terminal and now - self._told > _LOG_SECONDS:
            self._told = now
            self._console.print(words)

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return max(time.monotonic() - self._start, 1e-9)

    def rates(self) -> str:
        """Texts and tokens per second of this run."""
        return f"{self.texts / self.seconds:,.0f}/s, {self.tokens / self.seconds:,.0f} tokens/s"

    def _left(self, fraction: float | None) -> str:
        done = (fraction or 0) - (self._first or 0)
        if fraction is None or done <= 0:
            return ""
        seconds = self.seconds * (1 - fraction) / done
        return f", {timedelta(seconds=round(seconds))} left"

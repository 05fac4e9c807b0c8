"""Rows of a call, on their way through the worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batching import Unit


class Job:
    """Rows of one call, or of a part of it, on their way.

    Attributes:
        units: What has not run yet, longest first.
        left: Tokens that have not run yet.
        future: Its result is an array `[rows, dim]`, float32, or, if hidden states are wanted, a
            list of arrays `[tokens, dim]`.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        pooled: bool = True,
        limit: int | None = None,
        on_texts: Callable[[int], object] | None = None,
    ) -> None:
        """Rows to run.

        Args:
            units: The rows, longest first; at least one.
            pooled: Whether vectors or all hidden states are wanted.
            limit: Tokens per pass; None = what suits the device.
            on_texts: Called by the worker with the number of texts that are finished.
        """
        self.units = deque(units)
        self.pooled, self.limit, self._on_texts = pooled, limit, on_texts
        self.left = sum(unit.tokens for unit in units)
        self.future: Future[Any] = Future()
        self._found: dict[int, Any] = {}

    def put(self, unit: Unit, states: Iterable[Any]) -> None:
        """Take the results of a unit; with the last one the future is done."""
        self.left -= unit.tokens
        self._found.update(zip(unit.places, states, strict=True))
        if self._on_texts is not None:
            self._on_texts(1)
        if not self.left:
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Hand an error to the one who waits."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def _finish(self) -> None:
        """Copy the results off the device, vectors all at once, and hand them over."""
        import torch

        ordered = [self._found[place] for place in range(len(self._found))]
        result = (
            torch.stack(ordered).cpu().numpy()
            if self.pooled
            else [states.cpu().numpy() for states in ordered]
        )
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(result)

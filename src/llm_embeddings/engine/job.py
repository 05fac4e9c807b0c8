"""Job: rows of one call, on their way through the workers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from ..vectors import Vectors

if TYPE_CHECKING:
    from ..batching import Unit


class Job:
    """Rows of one call, or of a part of it, on their way through the workers.

    Attributes:
        units: Rows that have not run yet, longest first.
        left: Tokens whose results are not there yet.
        longest: Tokens of the longest row.
        deaths: Processes that have died over a pack with rows of this job.
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
        known: Mapping[int, Vectors] | None = None,
    ) -> None:
        """Rows to run.

        Args:
            units: The rows, longest first.
            pooled: Whether vectors or all hidden states are wanted.
            limit: Tokens per pass; None = what suits the device.
            on_texts: Called by a worker with the number of texts that are finished.
            known: Vectors `[dim]` that need not be computed, by their place in the result; the
                rows take the places between them. With vectors and no rows the job is done.
        """
        self.units = deque(units)
        self.pooled, self.limit, self._on_texts = pooled, limit, on_texts
        self.left = sum([unit.tokens for unit in units])
        self.longest = max([unit.longest for unit in units], default=0)
        self.deaths = 0
        self.future: Future[Any] = Future()
        self._found: dict[int, Any] = {}
        self._known = known or {}
        self._lock = threading.Lock()  # several devices may work on one job
        if known and not units:
            self._finish()

    def take_all(self) -> Taken:
        """All units that have not run, as one pack."""
        taken = [(self, unit) for unit in self.units]
        self.units.clear()
        return taken

    def put(self, unit: Unit, states: Iterable[Any]) -> None:
        """Take the results of a unit; with the last one the future is done."""
        with self._lock:
            self.left -= unit.tokens
            self._found.update(zip(unit.places, states, strict=True))
            if self._on_texts is not None:
                self._on_texts(1)
            last = not self.left
        if last:
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Give an error to whoever waits for the result."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def _finish(self) -> None:
        """Copy the results off the device, vectors all at once, and hand them over."""
        import torch

        ordered = [self._found[place] for place in range(len(self._found))]
        if not self.pooled:
            result: Any = [states.cpu().numpy() for states in ordered]
        elif ordered:
            result = torch.stack(ordered).cpu().numpy()
        else:
            result = np.empty((0, len(next(iter(self._known.values())))), np.float32)
        if self._known:
            computed, result = (
                result,
                np.empty((len(result) + len(self._known), result.shape[1]), np.float32),
            )
            others = np.ones(len(result), bool)
            others[list(self._known)] = False
            result[list(self._known)], result[others] = list(self._known.values()), computed
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(result)


Taken = list[tuple[Job, "Unit"]]  # the units of one pack, each with its job


def hand_out(taken: Taken, states: Iterable[Any]) -> None:
    """Give the results of a pack, `[dim]` or `[tokens, dim]` a row, to the jobs of its rows."""
    left = iter(states)
    for job, unit in taken:
        found = [next(left) for _ in unit.rows]
        try:
            job.put(unit, found)
        except BaseException as error:  # from the caller's callback or the copy
            job.fail(error)

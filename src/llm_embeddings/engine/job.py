"""Rows of a call, on their way through the worker."""

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

_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


class Job:
    """Rows of one call, or of a part of it, on their way.

    Attributes:
        units: What has not run yet, longest first.
        left: Tokens whose results are not there yet.
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
        self.left = sum(unit.tokens for unit in units)
        self.deaths = 0
        self.future: Future[Any] = Future()
        self._found: dict[int, Any] = {}
        self._known = known or {}
        self._lock = threading.Lock()  # several devices may work on one job
        if known and not units:
            self._finish()

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
        """Hand an error to the one who waits."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def _finish(self) -> None:
        """Copy the results off the device, vectors all at once, and hand them over."""
        import torch

        ordered = [self._found[place] for place in range(len(self._found))]
        result: Any = (
            [states.cpu().numpy() for states in ordered]
            if not self.pooled
            else torch.stack(ordered).cpu().numpy()
            if ordered
            else np.empty((0, len(next(iter(self._known.values())))), np.float32)
        )
        if self._known:
            result = _among(result, self._known)
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(result)


def _among(computed: Vectors, known: Mapping[int, Vectors]) -> Vectors:
    """Rows `[m, dim]` and vectors at their places in one array `[n, dim]`."""
    result = np.empty((len(computed) + len(known), computed.shape[1]), np.float32)
    result[list(known)] = list(known.values())
    others = np.ones(len(result), bool)
    others[list(known)] = False
    result[others] = computed
    return result


def on_cpu(states: Sequence[Any], *, pooled: bool) -> Sequence[Any]:
    """Results of a pack, where those of other devices are."""
    import torch

    return list(torch.stack(list(states)).cpu()) if pooled else [one.cpu() for one in states]


def hand_out(taken: list[tuple[Job, Unit]], states: Iterable[Any]) -> None:
    """Give the rows of a pack to the jobs they belong to."""
    left = iter(states)
    for job, unit in taken:
        found = [next(left) for _ in unit.rows]
        try:
            job.put(unit, found)
        except BaseException as error:  # of the caller's own callback, or of the copy
            job.fail(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether fewer rows at once might do."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(t in str(error) for t in _CPU_OUT_OF_MEMORY)

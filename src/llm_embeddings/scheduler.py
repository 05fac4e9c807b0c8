"""One worker per backbone behind every entry point: calls of threads and coroutines share passes.

A call hands in its rows as jobs and waits for their futures. The worker cuts packs from the jobs
that are there: while it runs one, others arrive, so that full packs come of themselves and nobody
waits for company. The worker is a thread that lives while there is work and a minute longer (a new
one would fault in all its memory again); it ends sooner with the encoder or the interpreter, and a
forked child starts its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .jobs import Job

if TYPE_CHECKING:
    from .batching import Unit
    from .passes import Runner

_GROWTH = 1.01
_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")
_QUICK_CHARACTERS = 8192
_IDLE_SECONDS, _POLL_SECONDS = 60.0, 0.05


class Scheduler:
    """Runs the jobs of one backbone, a pass at a time."""

    _jobs: list[Job]
    _thread: threading.Thread | None

    def __init__(self, runner: Runner) -> None:
        """Nothing starts before the first job."""
        self.runner = runner
        self._closed = False
        self._start()

    def __reduce__(self) -> tuple[Any, ...]:
        return Scheduler, (self.runner,)

    def run(
        self, windows: Iterable[list[str]], job_of: Callable[[list[str]], Job]
    ) -> Iterator[tuple[list[str], Any]]:
        """Windows of texts and their results, in order.

        The next window is made into a job (tokenised) while the one before it runs. Whoever stops
        early cancels what has not run.

        Raises:
            RuntimeError: the scheduler is closed.
        """
        waiting: deque[tuple[list[str], Job]] = deque()
        try:
            for window, job in self._begun(windows, job_of):
                waiting.append((window, job))
                if len(waiting) > 1:
                    yield waiting[0][0], waiting[0][1].future.result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][0], waiting[0][1].future.result()
                waiting.popleft()
        finally:
            for _, job in waiting:
                job.future.cancel()

    async def arun(
        self, windows: Iterable[list[str]], job_of: Callable[[list[str]], Job]
    ) -> AsyncIterator[tuple[list[str], Any]]:
        """`run` for coroutines.

        All coroutines that are ready get to hand in their job before the worker is woken, so that
        a burst of single queries is one pass. Large windows are tokenised in a thread.
        """
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[list[str], Job]] = deque()
        try:
            for window in windows:
                quick = sum(map(len, window)) < _QUICK_CHARACTERS
                job = job_of(window) if quick else await asyncio.to_thread(job_of, window)
                waiting.append((window, job))
                self._add(job)
                loop.call_soon(self._wake)
                if len(waiting) > 1:
                    yield waiting[0][0], await asyncio.wrap_future(waiting[0][1].future)
                    waiting.popleft()
            while waiting:
                yield waiting[0][0], await asyncio.wrap_future(waiting[0][1].future)
                waiting.popleft()
        finally:
            for _, job in waiting:
                job.future.cancel()

    def close(self) -> None:
        """Cancel what waits, let the pass that runs end, and stop the thread."""
        with self._lock:
            self._closed = True
            waiting, self._jobs = self._jobs, []
            thread = self._thread
        for job in waiting:
            job.future.cancel()
        self._woken.set()
        if thread is not None:
            thread.join()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._jobs = []
        self._smallest_first = False
        self._learnt: float | None = None
        self._woken = threading.Event()
        self._thread = None

    def _begun(
        self, windows: Iterable[list[str]], job_of: Callable[[list[str]], Job]
    ) -> Iterator[tuple[list[str], Job]]:
        """Jobs, begun. One that could not be made is a failed one: those before it come first."""
        source = iter(windows)
        while True:
            try:
                window = next(source)
                job = job_of(window)
            except StopIteration:
                return
            except Exception as error:
                failed = Job(())
                failed.fail(error)
                yield [], failed
                return
            self._add(job)
            self._wake()
            yield window, job

    def _add(self, job: Job) -> None:
        if self._process != os.getpid():
            self._start()  # a forked child has none of its parent's threads
        with self._lock:
            if self._closed:
                raise RuntimeError("this encoder is closed: load it again to encode more")
            self._jobs.append(job)

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None and self._jobs:
                arguments = weakref.ref(self), self._woken
                self._thread = threading.Thread(
                    target=_serve, args=arguments, name="llm-embeddings"
                )
                self._thread.start()
        self._woken.set()

    def _step(self) -> bool:
        """Run one pass; False if there is nothing to do."""
        with self._lock:
            self._jobs = [job for job in self._jobs if not job.future.done()]
            taken = self._take(self._jobs) if self._jobs else []
        if taken:
            self._pass(taken)
        return bool(taken)

    def _retire(self, *, idle: bool) -> bool:
        """Let the thread end, unless a job has come meanwhile."""
        with self._lock:
            if self._jobs or not (idle or self._closed):
                return False
            self._thread = None
            return True

    def _take(self, jobs: list[Job]) -> list[tuple[Job, Unit]]:
        """Cut the next pack.

        In turns, the job with the least left and the one that came first goes first: a query does
        not wait for a bulk job, and a stream of queries does not hold up the bulk job for ever.
        """
        self._smallest_first = not self._smallest_first
        order = sorted(jobs, key=lambda job: job.left) if self._smallest_first else jobs
        taken: list[tuple[Job, Unit]] = []
        tokens = rows = longest = 0
        limit = self._learnt or float("inf")
        for job in order:
            if job.pooled != order[0].pooled:
                continue
            limit = min(limit, job.limit or self.runner.budget)
            while job.units:
                unit = job.units[0]
                tokens, rows = tokens + unit.tokens, rows + len(unit.rows)
                longest = max(longest, unit.longest)
                size = tokens if self.runner.packed else rows * longest
                if taken and (size > limit or unit.alone or taken[0][1].alone):
                    return taken
                taken.append((job, job.units.popleft()))
        return taken

    def _pass(self, taken: list[tuple[Job, Unit]]) -> None:
        """Run a pack; one that is too large for the memory is cut again, smaller."""
        failure: BaseException | None = None
        states: list[Any] = []
        try:
            states = self.runner.run([unit for _, unit in taken], pooled=taken[0][0].pooled)
        except BaseException as error:  # the caller's to see, whatever it is
            failure = error
        if failure is None:
            self._grow()
            _hand_out(taken, states)
        elif _is_out_of_memory(failure) and len(taken) > 1:
            failure = None  # its traceback holds the tensors of the pass
            self._shrink(taken)
        else:
            for job, _ in taken:
                job.fail(failure)

    def _shrink(self, taken: list[tuple[Job, Unit]]) -> None:
        import torch

        for job, unit in reversed(taken):
            job.units.appendleft(unit)
        self._learnt = max(1.0, sum(unit.tokens for _, unit in taken) / 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _grow(self) -> None:
        if self._learnt is not None:
            self._learnt *= _GROWTH
            if self._learnt >= self.runner.budget:
                self._learnt = None


def _serve(scheduler: weakref.ref[Scheduler], woken: threading.Event) -> None:
    """The worker thread: holds the scheduler, and so the backbone, only while a pass runs."""
    idle_since = time.monotonic()
    while (owner := scheduler()) is not None:
        woken.clear()
        if owner._step():
            idle_since = time.monotonic()
            continue
        ends = not threading.main_thread().is_alive()
        if owner._retire(idle=ends or time.monotonic() - idle_since > _IDLE_SECONDS):
            return
        del owner
        woken.wait(_POLL_SECONDS)


def _hand_out(taken: list[tuple[Job, Unit]], states: Iterable[Any]) -> None:
    left = iter(states)
    for job, unit in taken:
        found = [next(left) for _ in unit.rows]
        try:
            job.put(unit, found)
        except BaseException as error:  # of the caller's own callback, or of the copy
            job.fail(error)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(t in str(error) for t in _CPU_OUT_OF_MEMORY)

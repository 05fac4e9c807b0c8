"""One worker per device behind every entry point: calls of threads and coroutines share passes.

A call hands in its rows as jobs and waits for their futures. A worker cuts packs from the jobs
that are there: while it runs one, others arrive, so that full packs come of themselves and nobody
waits for company; with several devices, whichever is free takes the next pack. A worker is a thread
that lives while there is work and a minute longer (a new one would fault in all its memory again);
it ends sooner with the encoder or the interpreter, and a forked child starts its own.

A CPU has two workers: two packs at once, each with half of the cores, run faster than one after the
other with all of them, because the small operations between matrix products gain little from more
cores.

What one pass can do, and nothing else waits for, runs in the main thread if that is what calls: no
thread has to be woken, and OpenMP, which puts threads to sleep between operations where two of a
process's threads compute, does not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from .dispatch import HERE, Place, Turns
from .job import Job, hand_out, is_out_of_memory, on_cpu
from .processes import DeviceWorker, WorkerDied
from .threads import Cores

if TYPE_CHECKING:
    from ..batching import Unit
    from ..forward import Runner

logger = logging.getLogger(__name__)

_QUICK_CHARACTERS = 8192
_IDLE_SECONDS, _POLL_SECONDS = 60.0, 0.05
_MOST_DEATHS = 2


class Scheduler:
    """Runs the jobs of one model, a pass per device at a time, or two on a CPU.

    Attributes:
        runner: Of the device in this process.
        passes_at_once: On a CPU with more cores than one. 1 = the same packs and the same bits
            for the same calls, whatever the timing.
    """

    def __init__(self, runner: Runner) -> None:
        """Nothing starts before the first job."""
        self.runner = runner
        self.passes_at_once = 2 if runner.concurrent else 1
        self._closed = self._forked = False
        self._start()

    def add(self, workers: Iterable[DeviceWorker]) -> None:
        """Take in devices of other processes; they are closed with the scheduler."""
        for worker in workers:
            self._turns.add(worker)

    @property
    def devices(self) -> list[str]:
        """Where passes run; a device whose process has died is no longer there."""
        return [place.runner.device for place in self._turns.devices]

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
        """Cancel what waits, let the passes that run end, and stop threads and processes."""
        with self._lock:
            self._closed = True
            waiting, self._turns.jobs = self._turns.jobs, []
            places = list(self._turns.places.values())
            threads = [place.thread for place in places if place.thread is not None]
        for job in waiting:
            job.future.cancel()
        for place in places:
            place.woken.set()
        for thread in threads:
            thread.join()
        for place in places:
            if isinstance(place.runner, DeviceWorker):
                place.runner.close()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._turns = Turns(self.runner)
        self._cores = Cores()

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
            if not self._ran_here(job):
                self._wake()
            yield window, job

    def _add(self, job: Job) -> None:
        if self._process != os.getpid():
            self._start()  # a forked child has none of its parent's threads
            self._forked = True
        with self._lock:
            if self._closed:
                raise RuntimeError("this encoder is closed: load it again to encode more")
            if self.passes_at_once > 1 and self._cores.count() > 1:
                self._turns.add_beside()
            self._turns.jobs.append(job)

    def _ran_here(self, job: Job) -> bool:
        """Run a job in the main thread, if one pass does it and nothing else is there."""
        # In a forked child, OpenMP waits for ever for the threads that the parent's main one had.
        if self._forked or threading.current_thread() is not threading.main_thread():
            return False
        with self._lock:
            taken = self._turns.take_alone(job)
        if not taken:
            return False
        place = self._turns.places[HERE]
        try:
            self._pass(taken, HERE, place)
        finally:  # a KeyboardInterrupt comes to this thread
            place.tokens = 0
            self._wake()  # others may have come
        return True

    def _wake(self) -> None:
        with self._lock:
            if not self._turns.waiting:
                return
            for number, place in list(self._turns.places.items()):
                if place.thread is None:
                    arguments = weakref.ref(self), number, place.woken
                    place.thread = threading.Thread(
                        target=_serve, args=arguments, name="llm-embeddings"
                    )
                    place.thread.start()
            for place in self._turns.called():
                place.woken.set()

    def _step(self, number: int) -> bool:
        """Run one pass on a device; False if there is nothing to do."""
        with self._lock:
            place = self._turns.places.get(number)
            taken = self._turns.take(place) if place is not None and not place.tokens else []
            for other in self._turns.called():
                if other is not place:
                    other.woken.set()
            if place is None or not taken:
                return False
            half = self._turns.shares_cores(place)
        with self._cores.half() if half else nullcontext():
            self._pass(taken, number, place)
        place.tokens = 0
        return True

    def _retire(self, number: int, *, idle: bool) -> bool:
        """Let a device's thread end, unless a job has come meanwhile."""
        with self._lock:
            place = self._turns.places.get(number)
            if place is None:
                return True
            if self._turns.jobs or not (idle or self._closed):
                return False
            place.thread = None
            return True

    def _pass(self, taken: list[tuple[Job, Unit]], number: int, place: Place) -> None:
        """Run a pack; one that is too large for the memory is cut again, smaller."""
        failure: BaseException | None = None
        states: Sequence[Any] = []
        try:
            states = place.runner.run([unit for _, unit in taken], pooled=taken[0][0].pooled)
            if len(self.devices) > 1:
                states = on_cpu(states, pooled=taken[0][0].pooled)
        except BaseException as error:  # the caller's to see, whatever it is
            failure = error
        if failure is None:
            with self._lock:
                self._turns.grow()
            hand_out(taken, states)
        elif isinstance(failure, WorkerDied):
            self._bury(number, taken, failure)
        elif is_out_of_memory(failure) and len(taken) > 1:
            failure = None  # its traceback holds the tensors of the pass
            self._shrink(taken)
        else:
            for job, _ in taken:
                job.fail(failure)

    def _bury(self, number: int, taken: list[tuple[Job, Unit]], failure: WorkerDied) -> None:
        """Go on without a device whose process has died; its pack is run by another.

        Texts that were there when a second one died are not tried again.
        """
        logger.warning("%s; going on without it", failure)
        for job in {id(job): job for job, _ in taken}.values():
            job.deaths += 1
            if job.deaths == _MOST_DEATHS:
                job.fail(failure)
        with self._lock:
            del self._turns.places[number]
            self._turns.put_back(taken)
        self._wake()

    def _shrink(self, taken: list[tuple[Job, Unit]]) -> None:
        import torch

        with self._lock:
            self._turns.put_back(taken)
            self._turns.shrink(taken)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _serve(scheduler: weakref.ref[Scheduler], number: int, woken: threading.Event) -> None:
    """A device's thread: holds the scheduler, and so the model, only while a pass runs."""
    idle_since = time.monotonic()
    while (owner := scheduler()) is not None:
        woken.clear()
        if owner._step(number):
            idle_since = time.monotonic()
            continue
        ends = not threading.main_thread().is_alive()
        if owner._retire(number, idle=ends or time.monotonic() - idle_since > _IDLE_SECONDS):
            return
        del owner
        woken.wait(_POLL_SECONDS)

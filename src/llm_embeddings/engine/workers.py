"""The threads behind devices: when they look for jobs, and what happens when a pass fails."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from .dispatch import Dispatch, Place
from .job import Job, Taken, hand_out
from .processes import DeviceWorker, WorkerDied

if TYPE_CHECKING:
    from ..forward import Runner

logger = logging.getLogger(__name__)

_IDLE_SECONDS, _POLL_SECONDS = 60.0, 0.05
_MOST_DEATHS = 2
_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


class Workers:
    """A thread for each place where passes run, while there is work.

    Attributes:
        dispatch: The jobs that wait, and the places; used with the lock held.
        lock: Guards `dispatch`.
        several: Whether there are devices of other processes.
        closed: Whether jobs are taken no more.
        threads: Torch's, in this process, as the last caller had set them.
    """

    def __init__(self, runner: Runner) -> None:
        """Nothing starts before the first job."""
        self.lock, self.dispatch = threading.Lock(), Dispatch(runner)
        self.several = self.closed = False
        self.threads = 1

    def add_devices(self, workers: Iterable[DeviceWorker]) -> None:
        """Take in devices of other processes."""
        for worker in workers:
            self.dispatch.add(worker)
            self.several = True

    def add(self, job: Job, *, beside: bool) -> None:
        """Let a job wait; `wake` has to follow.

        Args:
            job: The job.
            beside: Whether a second pass may run beside the first one in this process.
        """
        with self.lock:
            if beside:
                self.dispatch.add_beside()
            self.dispatch.jobs.append(job)

    def wake(self) -> None:
        """Let the threads look for jobs; starts those that are not there."""
        with self.lock:
            called = self.dispatch.called()
            if not called:
                return
            for number, place in list(self.dispatch.places.items()):
                if place.thread is None:
                    arguments = weakref.ref(self), number, place.woken
                    # A daemon's child would be one, and be ended within an operation of torch.
                    place.thread = threading.Thread(
                        target=_serve, args=arguments, name="llm-embeddings", daemon=False
                    )
                    place.thread.start()
            for place in called:
                place.woken.set()

    def close(self) -> None:
        """Cancel what waits, let the passes that run end, and stop threads and processes."""
        with self.lock:
            self.closed = True
            waiting, self.dispatch.jobs = self.dispatch.jobs, []
            places = list(self.dispatch.places.values())
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

    def failed(self, taken: Taken, number: int, failure: BaseException) -> None:
        """A pack could not be run: cut it again, give it to another device, or tell its callers.

        Args:
            taken: Its units, each with its job.
            number: Number of the place where it ran.
            failure: What was raised.
        """
        if isinstance(failure, WorkerDied):
            self._bury(number, taken, failure)
        elif _is_out_of_memory(failure) and len(taken) > 1:
            failure.__traceback__ = None  # it holds the tensors of the pass
            self._shrink(taken)
        else:
            for job, _ in taken:
                job.fail(failure)

    def _step(self, number: int) -> bool:
        """Run one pass at a place; False if there is nothing to do."""
        with self.lock:
            place = self.dispatch.places.get(number)
            taken = self.dispatch.take(place) if place is not None and not place.tokens else []
            for other in self.dispatch.called():
                if other is not place:
                    other.woken.set()
            if place is None or not taken:
                return False
            half = self.dispatch.shares_cores(place)
        with _half_of(self.threads) if half else nullcontext():
            self._run(taken, number, place)
        place.tokens = 0
        return True

    def _run(self, taken: Taken, number: int, place: Place) -> None:
        pooled = taken[0][0].pooled
        try:
            states = place.runner.run([unit for _, unit in taken], pooled=pooled)
            if self.several:
                states = _on_cpu(states, pooled=pooled)
        except BaseException as error:  # whatever it is, the caller gets it
            self.failed(taken, number, error)
            return
        with self.lock:
            self.dispatch.grow()
        hand_out(taken, states)

    def _retire(self, number: int, *, idle: bool) -> bool:
        """Let the thread of a place end, unless a job has come meanwhile."""
        with self.lock:
            place = self.dispatch.places.get(number)
            if place is None:
                return True
            if self.dispatch.jobs or not (idle or self.closed):
                return False
            place.thread = None
            return True

    def _bury(self, number: int, taken: Taken, failure: WorkerDied) -> None:
        """Go on without a device whose process has died; its pack is run by another.

        Texts that were there when a second one died are not tried again.
        """
        logger.warning("%s; going on without it", failure)
        for job in {id(job): job for job, _ in taken}.values():
            job.deaths += 1
            if job.deaths == _MOST_DEATHS:
                job.fail(failure)
        with self.lock:
            del self.dispatch.places[number]
            self.dispatch.put_back(taken)
        self.wake()

    def _shrink(self, taken: Taken) -> None:
        import torch

        with self.lock:
            self.dispatch.put_back(taken)
            self.dispatch.shrink(taken)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _serve(workers: weakref.ref[Workers], number: int, woken: threading.Event) -> None:
    """The thread of a place: holds the workers, and so the model, only while a pass runs."""
    idle_since = time.monotonic()
    while (owner := workers()) is not None:
        woken.clear()
        if owner._step(number):
            idle_since = time.monotonic()
            continue
        ends = not threading.main_thread().is_alive()
        if owner._retire(number, idle=ends or time.monotonic() - idle_since > _IDLE_SECONDS):
            return
        del owner
        woken.wait(_POLL_SECONDS)


@contextmanager
def _half_of(threads: int) -> Iterator[None]:
    """Let the calling thread, and it alone, compute with half of torch's threads."""
    import torch

    # torch keeps the number per thread, and hands the last one set to threads that begin.
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _on_cpu(states: Sequence[Any], *, pooled: bool) -> Sequence[Any]:
    """Results of a pack on the CPU, where those of other processes arrive."""
    import torch

    return list(torch.stack(list(states)).cpu()) if pooled else [one.cpu() for one in states]


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, so that fewer rows at once might do."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(t in str(error) for t in _CPU_OUT_OF_MEMORY)

"""One worker per device behind every entry point: calls of threads and coroutines share passes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .dispatch import HERE
from .job import Job, Taken, hand_out
from .processes import DeviceWorker
from .workers import Workers

if TYPE_CHECKING:
    from ..forward import Runner


class Scheduler:
    """Runs the jobs of one model, a pass per device at a time, or two on a CPU.

    Attributes:
        runner: Runs passes on the device of this process.
        passes_at_once: On a CPU with more cores than one. 1 = the same packs and the same bits
            for the same calls, whatever the timing.
        workers: The threads that run the jobs which a caller's thread does not run itself.
    """

    def __init__(self, runner: Runner) -> None:
        """Nothing starts before the first job."""
        self.runner = runner
        self.passes_at_once = 2 if runner.concurrent else 1
        self.workers, self._process, self._forked = Workers(runner), os.getpid(), False

    def __reduce__(self) -> tuple[Any, ...]:
        return Scheduler, (self.runner,)

    @property
    def devices(self) -> list[str]:
        """Where passes run; a device whose process has died is no longer there."""
        return [place.runner.device for place in self.workers.dispatch.devices]

    def add_devices(self, workers: Iterable[DeviceWorker]) -> None:
        """Take in devices of other processes; they are closed with the scheduler."""
        self.workers.add_devices(workers)

    def start(self, job: Job) -> None:
        """Take a job on: run it here and now if that is best, else leave it to the workers.

        Raises:
            RuntimeError: the scheduler is closed.
        """
        taken = self._taken_here(job)
        if not taken:
            self.add(job)
            self.wake()
            return
        try:
            states = self.runner.run([unit for _, unit in taken], pooled=job.pooled)
        except BaseException as error:  # a KeyboardInterrupt comes to this thread
            self.workers.failed(taken, HERE, error)
        else:
            hand_out(taken, states)
        finally:
            self.workers.dispatch.places[HERE].tokens = 0
            if self.workers.dispatch.jobs:  # that came meanwhile
                self.wake()

    def add(self, job: Job) -> None:
        """Queue a job; `wake` has to be called afterwards.

        Raises:
            RuntimeError: the scheduler is closed.
        """
        self._check()
        self.workers.add(job, beside=self._halves())

    def wake(self) -> None:
        """Let the workers look for jobs."""
        self.workers.wake()

    def close(self) -> None:
        """Cancel what waits, let the passes that run end, and stop threads and processes."""
        self.workers.close()

    def _check(self) -> None:
        if self._process != os.getpid():  # a forked child has none of its parent's threads
            closed, self._process, self._forked = self.workers.closed, os.getpid(), True
            self.workers = Workers(self.runner)
            self.workers.closed = closed
        if self.workers.closed:
            raise RuntimeError("this encoder is closed: load it again to encode more")

    def _halves(self) -> bool:
        """Whether two passes at once, with half of the threads each, are to be run here."""
        import torch

        self.workers.threads = torch.get_num_threads()
        return self.passes_at_once > 1 and self.workers.threads > 1

    def _taken_here(self, job: Job) -> Taken:
        """All rows of a job, if this is the main thread, one pass does them and nothing else runs.

        Otherwise nothing is taken.
        """
        self._check()
        # In a forked child, OpenMP waits for ever for the threads that the parent's main one had.
        if self._forked or threading.current_thread() is not threading.main_thread():
            return []
        workers, budget = self.workers, self.runner.budget
        most = budget // 2 if workers.several or self._halves() else budget
        rows = sum([len(unit.rows) for unit in job.units])
        size = job.left if self.runner.packed else rows * job.longest
        whole = size <= min(most, job.limit or budget) and not any([u.alone for u in job.units])
        with workers.lock:
            dispatch = workers.dispatch
            waiting = [other for other in dispatch.jobs if not other.future.done()]
            busy = any([place.tokens for place in dispatch.places.values()])
            if waiting or busy or dispatch.learnt or HERE not in dispatch.places:
                return []
            if not job.units or (not whole and len(job.units) > 1):
                return []
            dispatch.places[HERE].tokens = max(job.left, 1)
            return job.take_all()

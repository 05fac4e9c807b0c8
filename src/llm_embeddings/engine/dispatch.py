"""Jobs that wait, and which of their rows run next, and where. Starts nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .job import Job, Taken

if TYPE_CHECKING:
    from ..forward import Runner
    from .processes import DeviceWorker

_GROWTH = 1.01  # of the learnt limit, with each pack that fits the memory
_LEAST_SHARE = 4  # of a budget, where the last texts are spread over places
HERE, _BESIDE = 0, -1  # the places in this process


@dataclass(slots=True)
class Place:
    """Where passes run: a device's runner and, while there is work, its thread.

    Attributes:
        runner: What runs them.
        tokens: Tokens of the pass that runs; 0 = none runs.
        thread: Runs the passes, one after the other; None = not started.
        woken: Set when there may be work.
    """

    runner: Runner | DeviceWorker
    tokens: int = 0
    thread: threading.Thread | None = None
    woken: threading.Event = field(default_factory=threading.Event)


class Dispatch:
    """Jobs that wait and places that take packs from them; for one thread at a time.

    Attributes:
        jobs: Jobs in the order they came; finished ones are removed when a pack is cut.
        places: The places by their number.
        learnt: Most tokens of a pack, learnt from one that did not fit the memory; None = no limit.
    """

    def __init__(self, runner: Runner) -> None:
        """One place, for the device in this process."""
        self.jobs: list[Job] = []
        self.places = {HERE: Place(runner)}
        self._runner = runner
        self._smallest_first = False
        self.learnt: float | None = None

    @property
    def devices(self) -> list[Place]:
        """The places, those on one device once."""
        return [place for number, place in list(self.places.items()) if number != _BESIDE]

    def add(self, worker: DeviceWorker) -> None:
        """Add a place for a device of another process."""
        self.places[max(self.places) + 1] = Place(worker)

    def add_beside(self) -> None:
        """Add a second place on the device in this process."""
        self.places.setdefault(_BESIDE, Place(self._runner))

    def called(self) -> list[Place]:
        """The idle places that are to look for work; none where nothing waits.

        The second place on a device is one only while the first is busy: single calls, one after
        the other, stay in one thread and its caches.
        """
        if not any([job.units for job in self.jobs]):
            return []
        idle = {number: place for number, place in self.places.items() if not place.tokens}
        if HERE in idle:
            idle.pop(_BESIDE, None)
        return list(idle.values())

    def take(self, place: Place) -> Taken:
        """Cut the next pack for a place.

        In turns, the job with the least left and the one that came first goes first: a query does
        not wait for a bulk job, and a stream of queries does not hold up the bulk job for ever.
        What is left at the end is spread over the places. Two packs on one device are together no
        larger than one alone, so that memory stays the same.
        """
        self.jobs = [job for job in self.jobs if not job.future.done()]
        jobs = [job for job in self.jobs if job.units]
        if not jobs:
            return []
        budget, beside = place.runner.budget, self._beside(place)
        if place is self.places.get(_BESIDE) and beside is not None and not beside.tokens:
            return []  # the first place is about to look, and calls the second if there is more
        limit = self.share(sum([job.left for job in jobs]), place)
        smallest_first = not self._smallest_first
        order = sorted(jobs, key=lambda job: job.left) if smallest_first else jobs
        taken = _cut(order, place.runner, limit)
        tokens = _tokens(taken)
        if beside is not None and beside.tokens and beside.tokens + tokens > budget:
            self.put_back(taken)
            return []
        place.tokens, self._smallest_first = tokens, smallest_first
        return taken

    def put_back(self, taken: Taken) -> None:
        """Put back units that did not run: they come first in the next pack."""
        for job, unit in reversed(taken):
            job.units.appendleft(unit)
            if job not in self.jobs:
                self.jobs.insert(0, job)

    def shares_cores(self, place: Place) -> bool:
        """Whether another pass runs on the same device, or can beside the place's own."""
        beside = self._beside(place)
        if beside is None:
            return False
        room = place.runner.budget - place.tokens
        return beside.tokens > 0 or any(
            job.units and job.units[0].tokens <= room for job in self.jobs
        )

    def shrink(self, taken: Taken) -> None:
        """Learn that a pack was too large for the memory."""
        self.learnt = max(1.0, _tokens(taken) / 2)

    def grow(self) -> None:
        """Learn that a pack was not too large: raise the limit a little."""
        if self.learnt is not None:
            self.learnt *= _GROWTH
            if self.learnt >= self._runner.budget:
                self.learnt = None

    def share(self, left: int, place: Place) -> float:
        """Tokens that a place may take of those that are left."""
        limit, budget = self.learnt or float("inf"), place.runner.budget
        two = self._beside(place) is not None
        if two:
            limit = min(limit, budget / 2)
        workers, least = len(self.devices) + two, budget / _LEAST_SHARE
        return min(limit, max(left / workers, least)) if left >= workers * least else limit

    def _beside(self, place: Place) -> Place | None:
        """The other place on the same device, if there are two."""
        other = self.places.get(_BESIDE)
        if other is None or place.runner is not self._runner:
            return None
        return self.places[HERE] if place is other else other


def _cut(jobs: Sequence[Job], runner: Runner | DeviceWorker, limit: float) -> Taken:
    """Take the rows of the next pack from jobs, in their order; at least one unit.

    Args:
        jobs: The first says whether the pack is pooled; those with no units give none.
        runner: Says how rows share a pass.
        limit: Tokens the pass may have; jobs and the runner may want fewer.
    """
    taken: Taken = []
    tokens = rows = longest = 0
    for job in jobs:
        if job.pooled != jobs[0].pooled:
            continue
        limit = min(limit, job.limit or runner.budget)
        while job.units:
            unit = job.units[0]
            tokens, rows = tokens + unit.tokens, rows + len(unit.rows)
            longest = max(longest, unit.longest)
            size = tokens if runner.packed else rows * longest
            if taken and (size > limit or unit.alone or taken[0][1].alone):
                return taken
            taken.append((job, job.units.popleft()))
    return taken


def _tokens(taken: Taken) -> int:
    return sum([unit.tokens for _, unit in taken])

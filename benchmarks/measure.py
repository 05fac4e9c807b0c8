"""Timing on a shared machine: interleaved samples, contended ones dropped, medians.

A sample is contended if other processes, or the hypervisor, took more than `LIMIT` of the machine
meanwhile. /proc/stat has what all took and `cpu` what the contender took. Linux only; standard
library only, because the reference loops run in environments of their own.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LIMIT = 0.06
Clock = Callable[[], float]
_SHORTEST_BLOCK = 0.5  # seconds: /proc/stat counts in hundredths
_PATIENCE = 3  # attempts per wanted clean sample
LONGEST_WAIT = 20.0  # seconds, before one sample


@dataclass(frozen=True, slots=True)
class Sample:
    """One timing.

    Attributes:
        seconds: Wall clock, per call.
        others: Share of the whole machine that others used meanwhile.
    """

    seconds: float
    others: float

    @property
    def clean(self) -> bool:
        """Whether the machine was ours."""
        return self.others <= LIMIT


@dataclass(frozen=True, slots=True)
class Timing:
    """All samples of a contender.

    Attributes:
        samples: In the order taken.
    """

    samples: tuple[Sample, ...]

    @property
    def clean(self) -> tuple[Sample, ...]:
        """The samples that count."""
        return tuple(sample for sample in self.samples if sample.clean)

    @property
    def seconds(self) -> float:
        """Median of the clean samples; of all where none is clean (see `clean`)."""
        return statistics.median(sample.seconds for sample in self.clean or self.samples)

    @property
    def best(self) -> float:
        """Fastest sample, whether clean or not: contention only ever adds."""
        return min(sample.seconds for sample in self.samples)


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed.

    Attributes:
        run: The call.
        seconds: About how long it lasts.
        cpu: CPU seconds used on its behalf so far, in all processes.
    """

    run: Callable[[], object]
    seconds: float = 1.0
    cpu: Clock = time.process_time


def busy_seconds() -> float:
    """CPU seconds the machine has spent on anything so far, all cores together; stolen ones too."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """CPU seconds of another process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def take(task: Task, calls: int = 1) -> Sample:
    """Time `calls` calls in a row."""
    busy, own, start = busy_seconds(), task.cpu(), time.perf_counter()
    for _ in range(calls):
        task.run()
    elapsed = time.perf_counter() - start
    others = busy_seconds() - busy - (task.cpu() - own)
    return Sample(elapsed / calls, max(others, 0.0) / (elapsed * (os.cpu_count() or 1)))


def wait_until_quiet(seconds: float) -> None:
    """Wait for a moment in which nobody else computes, but not longer than that."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline and not take(Task(lambda: time.sleep(0.2))).clean:
        time.sleep(0.3)


def interleave(
    tasks: Mapping[str, Task],
    repeats: int,
    *,
    attempts: int | None = None,
    longest_wait: float = LONGEST_WAIT,
) -> dict[str, Timing]:
    """Take turns until each task has `repeats` clean samples or enough was tried.

    The order turns with every round, so that none always runs on what another left in the caches.

    Args:
        tasks: By name; each must have run before (nothing is warmed up here).
        repeats: Clean samples wanted of each.
        attempts: Samples taken of each at most; None = three times `repeats`.
        longest_wait: Seconds to wait for a quiet moment before a sample.

    Returns:
        Timings by name.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in tasks}
    names = list(tasks)
    for turn in range(attempts or repeats * _PATIENCE):
        waiting = [name for name in names if _clean(samples[name]) < repeats]
        if not waiting:
            break
        shift = turn % len(waiting)
        for name in waiting[shift:] + waiting[:shift]:
            wait_until_quiet(longest_wait)
            samples[name].append(take(tasks[name], calls_of(tasks[name])))
    return {name: Timing(tuple(found)) for name, found in samples.items()}


def calls_of(task: Task) -> int:
    """How many calls last as long as a sample must."""
    return max(1, round(_SHORTEST_BLOCK / max(task.seconds, 1e-6)))


def _clean(samples: list[Sample]) -> int:
    return sum(sample.clean for sample in samples)

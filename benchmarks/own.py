"""CPU seconds of a process and of all that it starts."""

from __future__ import annotations

import contextlib
import threading

import psutil


class Own:
    """CPU seconds of this process and all below it; a context manager that looks now and then.

    A process that has ended counts with what it had when it was seen last.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], tuple[float, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Own:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    @property
    def seconds(self) -> float:
        """Since it was entered."""
        return sum(last - first for first, last in self._seen.values())

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self._look()

    def _look(self) -> None:
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                key, now = (process.pid, process.create_time()), times.user + times.system
                begun = now if not self._thread.is_alive() and key not in self._seen else 0.0
                first, _ = self._seen.get(key, (begun, now))
                self._seen[key] = first, now

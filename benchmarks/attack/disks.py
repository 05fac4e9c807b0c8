"""Disks that are full or may only be read, clocks that go back: nothing kept is lost or wrong."""

from __future__ import annotations

import os
import random
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

from .forked import Outcome, run
from .stores import Done, Store, nobody

_YEARS = 10 * 365 * 86400
_ROOM = 2**26


def can_mount() -> bool:
    """Whether this process may mount a small disk, which needs Linux and root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and Path("/proc/mounts").exists()


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes in a folder that is made for it."""
    place.mkdir()
    _mount(place, f"size={size}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def _mount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)


def full(store: Store, folder: Path, times: int, seed: int = 0) -> Counter[str]:
    """Fill the disk while a store is written, make room, and go on."""
    chosen, found = random.Random(seed), Counter[str]()
    store.write(folder / "whole", nobody)
    files = [path for path in (folder / "whole").rglob("*") if path.is_file()]
    needed = sum(path.stat().st_size for path in files)
    for number in range(times):
        with small_disk(folder / str(number), chosen.randrange(needed // 8, needed)) as disk:
            place = disk / "store"
            first = run(partial(_quietly, store, place))
            if first.error and not first.named:
                found[f"WRONG {first.error:.160}"] += 1
            found[
                "said that the disk is full" if first.error else "had enough or went without"
            ] += 1
            _mount_again(disk, f"size={_ROOM}")
            found[_outcome(store, place, first)] += 1
    return found


def read_only(store: Store, folder: Path) -> Counter[str]:
    """Write and read a store on a disk that may only be read."""
    found = Counter[str]()
    with small_disk(folder / "disk", _ROOM) as disk:
        place = disk / "store"
        store.write(place, nobody)
        before = _bytes(place)
        _mount_again(disk, "ro")
        for what, there in (("whole", place), ("new", disk / "another")):
            result = run(partial(_quietly, store, there))
            if result.error:
                found[f"{what}: refused by name" if result.named else f"WRONG {result.error}"] += 1
            else:
                found[f"{what}: nothing to write"] += 1
        result = run(partial(_compare, store, place))
        if result.error:
            named = result.named and "WRONG" not in result.error
            found["read: refused by name" if named else f"WRONG {result.error}"] += 1
        else:
            found["read"] += 1
        if _bytes(place) != before:
            found["WRONG written"] += 1
    return found


def clocks(store: Store, folder: Path, times: int, seed: int = 0) -> Counter[str]:
    """Let the clock, and the times of files, go back or ahead by years while a store is written."""
    chosen, found = random.Random(seed), Counter[str]()
    for number in range(times):
        place = folder / str(number)
        first = run(partial(store.write, place), chosen.uniform(0, 0.3))
        shift = chosen.choice((-_YEARS, _YEARS))
        for path in [*place.rglob("*")] if place.exists() else []:
            then = time.time() - shift
            os.utime(path, (then, then))
        with mock.patch.object(time, "time", partial(_shifted, time.time, shift)):
            found[_outcome(store, place, first)] += 1
    return found


def _outcome(store: Store, place: Path, first: Outcome) -> str:
    last = run(partial(store.write, place))
    if last.error:
        return f"WRONG {last.error:.160}"
    if set(first.done) & set(last.done):
        return "WRONG done twice"
    result = run(partial(_compare, store, place))
    return f"WRONG {result.error:.160}" if result.error else "stores that went on"


def _quietly(store: Store, place: Path, done: Done) -> None:
    """Write; what a store only warns of was not kept."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        store.write(place, lambda name: None if warned else done(name))


def _compare(store: Store, place: Path, done: Done) -> None:
    if wrong := store.wrong(place):
        raise RuntimeError(f"WRONG {wrong}")


def _shifted(now: Callable[[], float], shift: float) -> float:
    return now() + shift


def _mount_again(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def _bytes(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}

"""Pages of weights that are mapped from their files, and let go when they are not needed.

On Linux; elsewhere the system does as it thinks best.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_DONTNEED = 4  # MADV_DONTNEED of Linux


def leave_memory(weights: Sequence[torch.Tensor]) -> None:
    """Let the pages of mapped files go from memory; they are read again when they are needed.

    Only for weights that are those
    of the files: what was written into such pages (a merged adapter) would be lost with them. Those
    of which torch counts a change stay.
    """
    mapped = mapped_places()
    for weight in weights:
        leave(weight, mapped)


def leave(weight: torch.Tensor, mapped: list[tuple[int, int]]) -> None:
    """Let the pages of a weight go from memory if it lies in one of the mapped places."""
    place = _pages(weight, mapped)
    if place is not None and weight._version == 0:
        libc: Any = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(place[0]), ctypes.c_size_t(place[1]), _DONTNEED)


def _pages(weight: torch.Tensor, mapped: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Start and length of the whole pages of a weight; None where it is not mapped."""
    start, end = weight.data_ptr(), weight.data_ptr() + weight.nbytes
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    number = bisect.bisect(mapped, (start, sys.maxsize)) - 1
    inside = length > 0 and number >= 0 and end <= mapped[number][1]
    return (first, length) if inside else None


def mapped_places() -> list[tuple[int, int]]:
    """Where this process has mapped files of weights, in order; nothing but on Linux."""
    found: list[tuple[int, int]] = []
    if not sys.platform.startswith("linux"):
        return found
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, _, _, _, *path = line.split(maxsplit=5)
        if path and path[0].endswith(".safetensors"):
            first, last = place.split("-")
            found.append((int(first, 16), int(last, 16)))
    return found

"""How much memory there is, and how much weights take."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from safetensors import safe_open

_CONTAINER = Path("/sys/fs/cgroup")
_LIMIT_AND_USED = (  # files of control groups, versions 2 and 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
_UNKNOWN = 2**33
SHARE = 0.7  # of all memory that weights may take where there is a smaller form
_SMALLER = {"bfloat16": 2, "int8": 1}


def total_memory() -> int:
    """Bytes of the machine's memory, or of a container's share of it; 8 GiB where unknown."""
    found = [_number(_CONTAINER / limit) for limit, _ in _LIMIT_AND_USED]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((number for number in found if number), default=_UNKNOWN)


def free_memory() -> int:
    """Bytes of the machine's memory that are free, or of a container's share of it."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for names in _LIMIT_AND_USED:
        limit, used = (_number(_CONTAINER / name) for name in names)
        if limit is not None and used is not None:
            free = min(free, limit - used)
    return max(free, 0)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none: no such file, or "max"
        return None


def stored_values(directory: Path) -> int:
    """How many numbers the weights of a checkpoint hold, read off the headers of their files."""
    count = 0
    for shard in directory.glob("model*.safetensors"):
        with safe_open(shard, framework="pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return count


def fits(directory: Path, dtype: torch.dtype) -> bool:
    """Whether the weights of a checkpoint leave room in memory when they are held in a dtype."""
    return stored_values(directory) * dtype.itemsize <= SHARE * total_memory()


def check_memory(directory: Path, dtype: torch.dtype) -> None:
    """Raise before the weights of a checkpoint are read that cannot be held.

    Raises:
        ValueError: as `check_values`.
    """
    check_values(stored_values(directory), dtype, directory)


def check_values(count: int, dtype: torch.dtype, place: Path) -> None:
    """Raise if so many numbers cannot be held in a dtype.

    Args:
        count: How many numbers.
        dtype: What they are held in.
        place: The directory or file that they lie in, for the message.

    Raises:
        ValueError: they take more than all memory; the message has the numbers and smaller forms.
    """
    memory = total_memory()
    if count * dtype.itemsize <= memory:
        return
    name = str(dtype).removeprefix("torch.")
    smaller = [
        f"{form} ({count * size / 2**30:.1f} GiB)"
        for form, size in _SMALLER.items()
        if size < dtype.itemsize
    ]
    form = f"choose a smaller form, {' or '.join(smaller)}, by dtype= or quantization=, or"
    raise ValueError(
        f"the weights in {place} take {count * dtype.itemsize / 2**30:.1f} GiB in {name}, and "
        f"this machine has {memory / 2**30:.1f} GiB: {form if smaller else 'take'} a larger machine"
    )

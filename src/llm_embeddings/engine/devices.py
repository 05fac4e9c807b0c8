"""Names of devices, checked, and the processor cores that each of several devices may use."""

from __future__ import annotations

import os
from collections.abc import Sequence


def check_devices(devices: Sequence[str]) -> list[str]:
    """Names of devices, each with its number.

    Raises:
        TypeError: not a list of names.
        ValueError: none, of several kinds, or one that this machine does not have.
    """
    import torch

    if isinstance(devices, str):
        raise TypeError(f"devices={devices!r} is one name: pass a list, or device={devices!r}")
    if not devices:
        raise ValueError("devices=[] names none: leave it out, or name one or more")
    found = [torch.device(device) for device in devices]
    if len({device.type for device in found}) > 1:
        raise ValueError(f"devices={list(devices)} are of several kinds: vectors would differ")
    if found[0].type == "cuda":
        count = torch.cuda.device_count()
        missing = [str(device) for device in found if (device.index or 0) >= count]
        if missing:
            raise ValueError(
                f"devices names {', '.join(missing)}, and this machine has {count} CUDA devices"
            )
        return [f"cuda:{device.index or 0}" for device in found]
    return list(map(str, found))


def share_cores(devices: Sequence[str]) -> list[list[int]]:
    """The processor cores of each device: all of them on a GPU, an even part each on CPUs."""
    import torch

    cores = sorted(_own_cores())
    if torch.device(devices[0]).type != "cpu":
        return [cores] * len(devices)
    count = len(devices)
    if count > len(cores):
        raise ValueError(f"devices has {count} CPUs, and this process may use {len(cores)} cores")
    return [cores[len(cores) * i // count : len(cores) * (i + 1) // count] for i in range(count)]


def use_cores(cores: Sequence[int]) -> None:
    """Keep this process to some processor cores, and torch to a thread for each."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before torch counts them
    import torch

    torch.set_num_threads(len(cores))


def _own_cores() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return list(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)

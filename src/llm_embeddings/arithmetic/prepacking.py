"""Weights in the layout that oneDNN multiplies in, on a CPU.

torch's own linear layer lays its weight out anew at each product: a third or more of the work for
a few rows, a twentieth for a thousand. Here that is done once, when a layer first runs, in a tree
of modules that serves inference alone. The weight itself stays, as what is saved, trained and
compared with.
"""

from __future__ import annotations

import copy
import functools
import os
import platform
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_DTYPES = (torch.bfloat16, torch.float32)
_PROCESSORS = ("x86_64", "AMD64")  # measured on these alone
_SIDE = 32
_SHARE = 0.25  # of all memory
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of control groups, versions 2 and 1
_UNKNOWN = 2**33


def prepack(twin: nn.Module) -> int:
    """Let the `nn.Linear`s of a tree multiply with copies of their weights, if that pays.

    The tree is for inference, and its owner makes another when a weight has changed: a layer does
    not look. The copies take the memory of these weights once more: nothing is done if that is more
    than a quarter of the machine's or of the container's. (A weight whose file is mapped, because
    it is stored in the dtype of the pass, can leave memory in exchange.) Neither this nor whether
    it pays is measured, so that the same command on the same machine gives the same bits again.

    Args:
        twin: Modules whose children may be replaced; the layers themselves stay as they are.

    Returns:
        Bytes of the copies.
    """
    found = [
        (parent, name, child)
        for parent in twin.modules()
        for name, child in parent._modules.items()
        if type(child) is nn.Linear and _can_copy(child.weight) and _works(child.weight.dtype)
    ]
    size = sum(child.weight.nbytes for _, _, child in found)
    if size > _SHARE * total_memory():
        return 0
    for parent, name, child in found:
        parent._modules[name] = prepacked(child)
    return size


def prepacked(linear: nn.Linear) -> nn.Linear:
    """A layer for inference with the same parameters and a copy of its weight."""
    twin: Any = copy.copy(linear)
    twin.forward = _Prepacked(linear)
    return twin  # type: ignore[no-any-return]


class _Prepacked:
    """The forward of a linear layer whose weight is laid out at the first call."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear, self._lock = linear, threading.Lock()
        self._run: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if self._run is None:
            with self._lock:
                if self._run is None:
                    weight, bias = _packed(self._linear.weight), self._linear.bias
                    self._run = partial(_product(), W=weight, B=bias, **_PLAIN)
        return self._run(rows)


def total_memory() -> int:
    """Bytes of the machine's memory, or of a container's share of it; 8 GiB where unknown."""
    found = [_limit(Path("/sys/fs/cgroup") / name) for name in _LIMITS]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((number for number in found if number), default=_UNKNOWN)


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # there is none: no such file, or "max"
        return None


def _can_copy(weight: torch.Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype in _DTYPES
        and weight.layout == torch.strided
        and weight.is_contiguous()
        and not weight.is_inference()  # torch does not count changes of these
    )


@functools.cache
def _works(dtype: torch.dtype) -> bool:
    """Whether this build of torch gives the same products, on a processor where it is faster."""
    if not torch.backends.mkldnn.is_available() or platform.machine() not in _PROCESSORS:
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_SIDE, _SIDE, generator=generator).to(dtype)
    rows = torch.randn(_SIDE, _SIDE, generator=generator).to(dtype)
    with torch.inference_mode():
        try:
            found = _product()(rows, W=_packed(weight), B=None, **_PLAIN)
        except (AttributeError, NotImplementedError, RuntimeError):
            return False  # operators for torch's compiler: a build may lack or refuse them
        wanted = functional.linear(rows, weight)
    return float((found - wanted).norm() / wanted.norm()) < 4 * torch.finfo(dtype).eps


_PLAIN: dict[str, Any] = {"attr": "none", "scalars": [], "algorithm": ""}


def _product() -> Any:
    return torch.ops.mkldnn._linear_pointwise.default


def _packed(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return packed

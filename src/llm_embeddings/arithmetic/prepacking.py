"""Weights in the layout that oneDNN multiplies in, on a CPU.

torch's own linear layer lays its weight out anew at each product: a third or more of the work for
a few rows, a twentieth for a thousand. Here that is done once. The weight itself stays, as what is
saved, trained and compared with; if it changes, it is laid out again.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_DTYPES = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
_PROCESSORS = ("x86_64", "AMD64")  # measured on these alone
_SIDE = 32
_SAMPLES = 64
_SHARE = 0.25  # of all memory
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of control groups, versions 2 and 1
_UNKNOWN = 2**33


class PrepackedLinear(nn.Linear):
    """An `nn.Linear` with a second copy of its weight, for inference."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the parameters of a layer."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._copy: _Copy | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """States `[..., in]` -> `[..., out]`, in the same dtype."""
        weight = self.weight
        plain = torch.is_grad_enabled() or torch.is_autocast_enabled(weight.device.type)
        if plain or not _can_copy(weight) or input.dtype != weight.dtype:
            return super().forward(input)
        copy = self._copy
        if copy is None or not copy.is_of(weight):
            copy = self._copy = _Copy(weight)
        return _product(input, copy.packed, self.bias)

    def sample(self) -> bytes | None:
        """Some of the weight's present values, if they can be had at once."""
        copy = self._copy
        return copy.sample() if copy is not None and copy.is_at(self.weight) else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copy": None}


class _Copy:
    """A weight in oneDNN's layout, and what tells that the weight is still the same.

    torch counts changes in place, but not those through `.data`, which is how PEFT merges: 64 of
    the values are compared, too.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.packed = _packed(weight)
        self._version, self._address = weight._version, weight.data_ptr()
        flat = weight.detach().view(-1).view(_DTYPES[weight.dtype])
        self._some = flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES].numpy()
        self._values = self.sample()

    def sample(self) -> bytes:
        return self._some.tobytes()

    def is_at(self, weight: torch.Tensor) -> bool:
        return self._address == weight.data_ptr()

    def is_of(self, weight: torch.Tensor) -> bool:
        same = self._version == weight._version and self.is_at(weight)
        return same and self.sample() == self._values


def prepack(backbone: nn.Module) -> None:
    """Prepack the `nn.Linear`s of a backbone, in place, if that pays and there is memory for it.

    The copies take the memory of these weights once more: nothing is done if that is more than a
    quarter of the machine's or of the container's. (A weight whose file is mapped, because it is
    stored in the dtype of the pass, can leave memory in exchange.) Neither this nor whether it pays
    is measured, so that the same command on the same machine gives the same bits again.
    """
    found = [
        (parent, name, child)
        for parent in backbone.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and _can_copy(child.weight) and _works(child.weight.dtype)
    ]
    size = sum(child.weight.nbytes for _, _, child in found)
    if size > _SHARE * total_memory():
        return
    for parent, name, child in found:
        prepacked = PrepackedLinear(child).train(child.training)
        prepacked._copy = _Copy(child.weight)
        setattr(parent, name, prepacked)


def prepacked_bytes(backbone: nn.Module) -> int:
    """Bytes of the copies that `prepack` made."""
    modules = backbone.modules()
    return sum(m.weight.nbytes for m in modules if isinstance(m, PrepackedLinear))


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
            found = _product(rows, _packed(weight), None)
        except (AttributeError, NotImplementedError, RuntimeError):
            return False  # operators for torch's compiler: a build may lack or refuse them
        wanted = functional.linear(rows, weight)
    return float((found - wanted).norm() / wanted.norm()) < 4 * torch.finfo(dtype).eps


def _packed(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return packed


def _product(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product

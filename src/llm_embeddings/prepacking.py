"""Weights in the layout that oneDNN multiplies in, on a CPU.

torch's own linear layer lays its weight out anew at each product: most of the work for a few rows,
a twentieth for a thousand. Here that is done once. The weight itself stays, as what is saved,
trained and compared with; if it changes, it is laid out again.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_DTYPES = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
_SIDE, _ROWS, _ROUNDS = 1024, 16, 5
_SAMPLES = 64
_SHARE = 0.5  # of the memory that is free
_UNKNOWN = 2**32


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
        self._sample = flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES].numpy()
        self._values = self._sample.tobytes()

    def is_of(self, weight: torch.Tensor) -> bool:
        same = self._version == weight._version and self._address == weight.data_ptr()
        return same and self._sample.tobytes() == self._values


def prepack(backbone: nn.Module) -> None:
    """Prepack the `nn.Linear`s of a backbone, in place, if that pays and there is memory for it.

    The copies take the memory of these weights once more: nothing is done if that were more than
    half of what is free. (A weight whose file is mapped, because it is stored in the dtype of the
    pass, can leave memory in exchange.)
    """
    found = [
        (parent, name, child)
        for parent in backbone.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and _can_copy(child.weight) and _pays(child.weight.dtype)
    ]
    size = sum(child.weight.nbytes for _, _, child in found)
    if size > _SHARE * free_memory():
        return
    for parent, name, child in found:
        prepacked = PrepackedLinear(child).train(child.training)
        prepacked._copy = _Copy(child.weight)
        setattr(parent, name, prepacked)


def prepacked_bytes(backbone: nn.Module) -> int:
    """Bytes of the copies that `prepack` made."""
    modules = backbone.modules()
    return sum(m.weight.nbytes for m in modules if isinstance(m, PrepackedLinear))


def free_memory() -> int:
    """Bytes that can be had: the system's, or what is left of a container's share; Linux.

    Elsewhere 4 GiB are assumed.
    """
    system = _read("/proc/meminfo", "MemAvailable:")
    groups = Path("/sys/fs/cgroup")
    limit, used = _read(groups / "memory.max"), _read(groups / "memory.current")
    left = None if limit is None or used is None else limit - used
    return min((n for n in (system and system * 1024, left) if n is not None), default=_UNKNOWN)


def _read(path: str | Path, name: str = "") -> int | None:
    """The number behind `name` in a system file; None if there is none."""
    try:
        words = Path(path).read_text().split()
        return int(words[words.index(name) + 1 if name else 0])
    except (OSError, ValueError):
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
def _pays(dtype: torch.dtype) -> bool:
    """Whether this build of torch can do it, with the same products, and faster."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_SIDE, _SIDE, generator=generator).to(dtype)
    rows = torch.randn(_ROWS, _SIDE, generator=generator).to(dtype)
    with torch.inference_mode():
        try:
            packed = _packed(weight)
            found = _product(rows, packed, None)
        except (AttributeError, NotImplementedError, RuntimeError):
            return False
        wanted = functional.linear(rows, weight)
        close = float((found - wanted).norm() / wanted.norm()) < 4 * torch.finfo(dtype).eps
        return close and _best(lambda: _product(rows, packed, None)) < _best(
            lambda: functional.linear(rows, weight)
        )


def _best(function: Callable[[], torch.Tensor]) -> float:
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _packed(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return packed


def _product(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product

"""Linear layers that multiply through oneDNN, on a CPU, with weights in its layout or not.

A product lays its weight out anew: a third of the work for a few rows, a thirtieth for hundreds.
For those who ask single queries that is done once, in a tree of modules that serves inference
alone. The weight itself stays, as what is saved, trained and compared with.
"""

from __future__ import annotations

import copy
import functools
import platform
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .mapped import leave, mapped_places
from .memory import SHARE, total_memory
from .stored import StoredLinear

_DTYPES = (torch.bfloat16, torch.float32)
_PROCESSORS = ("x86_64", "AMD64")  # measured on these alone
_SIDE = 32
_SHARE = 0.25  # of all memory that copies may take beside the weights


def through_onednn(twin: nn.Module) -> list[nn.Linear]:
    """Let the `nn.Linear`s of a tree multiply through oneDNN, if this processor is better for it.

    The tree is for inference, and its owner makes another when a weight is replaced: a layer does
    not look. Whether it pays is not measured, so that the same command on the same machine gives
    the same bits again.

    Args:
        twin: Modules whose children may be replaced; the layers themselves stay as they are.

    Returns:
        The layers put in their place, for `prepack`.
    """
    layers = []
    for parent in list(twin.modules()):
        for name, child in parent._modules.items():
            if type(child) is nn.Linear and _can_copy(child.weight) and _works(child.weight.dtype):
                layer: Any = copy.copy(child)
                layer.forward = partial(_product(), W=child.weight.detach(), B=child.bias, **_PLAIN)
            elif isinstance(child, StoredLinear) and _works(child.dtype):
                layer = copy.copy(child)
                layer.forward = partial(_converted_product, child)
            else:
                continue
            parent._modules[name] = layer
            layers.append(layer)
    return layers


def prepack(layers: Sequence[nn.Linear]) -> int:
    """Lay out the weights of such layers once and for all, where that is not too much memory.

    The copies take the memory of the weights once more: nothing is done if that is more than a
    quarter of the machine's or of the container's. (A weight whose file is mapped, because it is
    stored in the dtype of the pass, can leave memory in exchange; one that is converted at every
    product does, so that the copies may take as much as weights may.) The products are the same,
    bit by bit; a single row alone is multiplied in another order in float32.

    Returns:
        Bytes of the copies.
    """
    stored = any(isinstance(layer, StoredLinear) for layer in layers)
    size = sum(layer.weight.numel() * _dtype(layer).itemsize for layer in layers)
    if size > (SHARE if stored else _SHARE) * total_memory():
        return 0
    mapped = mapped_places()
    for layer in layers:
        weight = layer.computed_weight() if isinstance(layer, StoredLinear) else layer.weight
        packed: Any = partial(_product(), W=_packed(weight), B=layer.bias, **_PLAIN)
        layer.forward = packed  # type: ignore[method-assign]
        if isinstance(layer, StoredLinear):
            leave(layer.weight.detach(), mapped)
    return size


def _converted_product(layer: StoredLinear, states: torch.Tensor) -> torch.Tensor:
    """The product with a weight that is converted for it."""
    found: torch.Tensor = _product()(states, W=layer.computed_weight(), B=layer.bias, **_PLAIN)
    return found


def _dtype(layer: nn.Linear) -> torch.dtype:
    return layer.dtype if isinstance(layer, StoredLinear) else layer.weight.dtype


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

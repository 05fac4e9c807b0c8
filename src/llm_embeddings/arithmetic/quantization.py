"""Opt-in int8 and fp8 arithmetic for the linear layers of a decoder.

Weights get one scale per output channel, once; activations one scale per token, at each pass; sums
are scaled back in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..faces import require
from .int8 import ACTIVATIONS, Int8GatedMlp, Int8Linear, Kernels, is_replaced, replace_linears
from .kinds import Quantization, check_quantization
from .mapped import leave_memory
from .stored import computed_in, convert, convert_part, is_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

_FIRST_FP8 = (8, 9)  # CUDA compute capability: Ada, then Hopper
_MARK = "llm_embeddings_quantization"


def quantize(backbone: PreTrainedModel, kind: Quantization) -> None:
    """Quantize the `nn.Linear`s in the decoder layers, in place.

    Embeddings, norms, biases, a head and `v_proj` (see `is_replaced`) stay as they are, and so does
    what is not an `nn.Linear`: the routers and experts of Mixtral are bare parameters, so only its
    attention is quantized. On a CPU gated MLPs (SwiGLU, GeGLU) become one module that stays in
    float32 between its products. The backbone cannot be trained afterwards.

    On a CPU the first use on a machine compiles C++ for some seconds; torch keeps the result.

    Args:
        backbone: A decoder on its device, adapters merged.
        kind: "int8" (CPU, CUDA), or "fp8" (CUDA of compute capability 8.9 or later).

    Raises:
        ValueError: an unknown kind, a device that cannot compute it, or no layer to quantize.
        ImportError: torchao is missing (CUDA only).
        RuntimeError: no working C++ compiler (CPU only).
    """
    check_quantization(kind)
    layers = _layers(backbone)
    device = _device(layers, kind)
    if not any(is_replaced(module, name) for name, module in layers.named_modules()):
        raise ValueError(
            f"quantization={kind!r}: the layers of {type(backbone).__name__} hold no nn.Linear, or "
            "are quantized already; load it without quantization"
        )
    if device.type == "cuda":
        _quantize_on_cuda(layers, kind, torch.cuda.get_device_capability(device))
    else:
        kernels = Kernels()
        kernels.check_compiler()
        stored = is_stored(backbone)
        for layer in layers:
            weights = [weight.detach() for weight in layer.parameters()] if stored else []
            if stored:
                convert_part(layer, computed_in(backbone))
            replace_linears(layer, kernels)
            leave_memory(weights)
        convert(backbone)
    backbone.requires_grad_(False)
    setattr(backbone, _MARK, kind)


def quantization_of(backbone: nn.Module) -> Quantization | None:
    """What `quantize` made of a backbone; None = nothing."""
    found: Quantization | None = getattr(backbone, _MARK, None)
    return found


def prepare_int8(backbone: PreTrainedModel, activations: Mapping[str, str]) -> None:
    """Give a backbone the modules that `quantize` gives it on a CPU, their weights to be set.

    Args:
        backbone: Of the architecture that was quantized, on a CPU, with any values.
        activations: Its gated MLPs, as `activations_of` names them.

    Raises:
        ValueError: an activation, or an architecture, that is none.
        RuntimeError: no working C++ compiler.
    """
    wrong = sorted(set(activations.values()) - set(ACTIVATIONS))
    if wrong:
        raise ValueError(f"activation {wrong[0]!r:.40} is not one of {', '.join(ACTIVATIONS)}")
    layers = _layers(backbone)
    kernels = Kernels()
    kernels.check_compiler()
    for module in layers.modules():
        if type(module) is nn.Linear:
            module.to("meta")
    for number, layer in enumerate(layers):
        replace_linears(layer, kernels, activations, f"{number}.")
    backbone.requires_grad_(False)
    setattr(backbone, _MARK, "int8")


def is_int8_on_cpu(backbone: nn.Module) -> bool:
    """Whether `quantize` has put the int8 modules of a CPU into a backbone."""
    return any(isinstance(module, Int8Linear) for module in backbone.modules())


def activations_of(backbone: PreTrainedModel) -> dict[str, str]:
    """The activations of gated MLPs in int8, by the names of these among the decoder layers."""
    return {
        name: module.activation
        for name, module in _layers(backbone).named_modules()
        if isinstance(module, Int8GatedMlp)
    }


def refuse_quantized(backbone: nn.Module, remedy: str) -> None:
    """Raise `ValueError` if `quantize` was there.

    Args:
        backbone: A backbone that only its float weights are of use of.
        remedy: What cannot be done, and what to do instead.
    """
    kind = quantization_of(backbone)
    if kind is not None:
        raise ValueError(f"a model computed in {kind} cannot be {remedy}")


def check_blocks(backbone: nn.Module) -> None:
    """See that bitsandbytes reads 4-bit weights right where they lie.

    On a CPU it takes each row for a whole number of the blocks that share a scale, and reads others
    with scales of their neighbours, or fails.

    Raises:
        ValueError: a layer on a CPU has other rows.
    """
    for name, layer in backbone.named_modules():
        size = getattr(layer.weight, "blocksize", None) if isinstance(layer, nn.Linear) else None
        if size and layer.weight.device.type == "cpu" and layer.in_features % size:
            raise ValueError(
                f"weights in 4 bits: {name} is {layer.in_features} wide, and on a CPU bitsandbytes "
                f"reads only multiples of {size} right: load whole weights, with "
                "quantization='int8' if you like, or take a GPU"
            )


def sample_cosine(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Lowest cosine between rows `[n, dim]` of the same texts, in float64.

    Raises:
        ValueError: the shapes differ, or there is no row.
    """
    if before.shape != after.shape or before.ndim != 2 or not len(before):
        raise ValueError(f"shapes {before.shape} and {after.shape} are not twice [n, dim], n >= 1")
    a, b = before.astype(np.float64), after.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).min())


def _layers(backbone: PreTrainedModel) -> nn.ModuleList:
    layers = getattr(backbone.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise ValueError(
            f"{type(backbone).__name__} keeps its decoder layers elsewhere than in `layers`: it "
            "cannot be quantized; load it without quantization"
        )
    return layers


def _device(layers: nn.ModuleList, kind: Quantization) -> torch.device:
    devices = sorted({parameter.device for parameter in layers.parameters()}, key=str)
    types = {device.type for device in devices}
    if len(types) > 1 or not types <= {"cpu", "cuda"}:
        raise ValueError(
            f"quantization={kind!r} runs on a CPU or on CUDA, and the layers are on "
            f"{', '.join(map(str, devices))}: pass device='cpu' or device='cuda'"
        )
    if kind == "fp8" and types == {"cpu"}:
        raise ValueError(
            "quantization='fp8' needs a CUDA device, and the layers are on the CPU: pass "
            "quantization='int8', or device='cuda'"
        )
    return devices[0]


def _quantize_on_cuda(
    layers: nn.ModuleList, kind: Quantization, capability: tuple[int, int]
) -> None:
    if kind == "fp8" and capability < _FIRST_FP8:
        raise ValueError(
            f"quantization='fp8' needs compute capability 8.9, and this device has "
            f"{capability[0]}.{capability[1]}: pass quantization='int8'"
        )
    ao = require(
        "torchao.quantization", f"quantization={kind!r} on CUDA needs torchao", extra="quant"
    )
    config = (
        ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())
        if kind == "fp8"
        else ao.Int8DynamicActivationInt8WeightConfig()
    )
    ao.quantize_(layers, config, filter_fn=is_replaced)

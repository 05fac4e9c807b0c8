"""What follows the pooling, in tensors: sentence-transformers' Dense, LayerNorm and Normalize."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..recipe import Head

# Activations of torch.nn that need no arguments and work value by value.
ACTIVATIONS = (
    "CELU",
    "ELU",
    "GELU",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "ReLU",
    "ReLU6",
    "SELU",
    "Sigmoid",
    "SiLU",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
)


def build(heads: Sequence[Head], width: int) -> nn.Sequential | None:
    """Modules of some heads, their weights at random; None = there are no heads.

    Args:
        heads: What follows the pooling, in order.
        width: Length of a pooled vector.

    Raises:
        ValueError: lengths that do not chain, or an unknown activation.
    """
    modules: list[nn.Module] = []
    for number, head in enumerate(heads):
        length = head.length(width)
        if head.kind in ("layer_norm", "normalize") and length != width:
            raise ValueError(
                f"head {number} ({head.kind}) is for {length} values and is given {width}: the "
                "heads do not fit each other, or not this model"
            )
        modules.append(_module(head, width, length))
        width = length
    return nn.Sequential(*modules).float() if modules else None


def in_words(heads: Sequence[Head]) -> str:
    """Kinds and widths of heads, in order, for people."""
    parts = (head.kind if head.width is None else f"{head.kind} ({head.width})" for head in heads)
    return ", ".join(parts)


def _module(head: Head, given: int, length: int) -> nn.Module:
    if head.kind == "dense":
        return Dense(head, given, length)
    if head.kind == "layer_norm":
        return LayerNorm(length)
    if head.kind == "truncate":
        return Truncate(length)
    return Normalize() if head.kind == "normalize" else TanhInt8()


class Dense(nn.Module):
    """sentence-transformers 6 `Dense`: `activation(linear(x))`, plus x or a linear map of it."""

    def __init__(self, head: Head, given: int, length: int) -> None:
        """Make layers from `given` to `length` values.

        Raises:
            ValueError: an activation that is not one of `ACTIVATIONS`.
        """
        super().__init__()
        if head.activation not in ACTIVATIONS:
            raise ValueError(
                f"a dense head's activation {head.activation!r} is not one of {ACTIVATIONS}"
            )
        self.linear = nn.Linear(given, length, bias=head.bias)
        self.activation = getattr(nn, head.activation)()
        self._adds = head.residual
        if head.residual and length != given:
            self.residual = nn.Linear(given, length, bias=False)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`[rows, given]` to `[rows, length]`."""
        found: torch.Tensor = self.activation(self.linear(vectors))
        if not self._adds:
            return found
        added: torch.Tensor = self.residual(vectors) if hasattr(self, "residual") else vectors
        return found + added


class LayerNorm(nn.Module):
    """sentence-transformers 6 `LayerNorm`: torch's, with its default epsilon."""

    def __init__(self, width: int) -> None:
        """Make the layer."""
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`[rows, width]` to the same."""
        found: torch.Tensor = self.norm(vectors)
        return found


class Normalize(nn.Module):
    """Unit L2 length; zero stays zero."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`[rows, width]` to the same."""
        return nn.functional.normalize(vectors, dim=-1)


class Truncate(nn.Module):
    """The first values of a vector."""

    def __init__(self, width: int) -> None:
        """Keep `width` values."""
        super().__init__()
        self._width = width

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`[rows, more]` to `[rows, width]`."""
        return vectors[..., : self._width]


class TanhInt8(nn.Module):
    """pplx-embed-v1's quantiser (`st_quantize.py` of its repository, `Int8TanhQuantizer`).

    `clamp(round(127 * tanh(x)), -128, 127)`; gradients are those of `tanh(x)`.
    """

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """`[rows, width]` to the same, whole numbers in float32."""
        soft = vectors.tanh()
        hard = (soft * 127).round().clamp(-128, 127)
        return hard if not soft.requires_grad else hard.detach() + soft - soft.detach()

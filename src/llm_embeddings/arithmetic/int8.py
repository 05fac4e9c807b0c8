"""Linear layers with int8 weights and int8 activations on a CPU.

`torch._int_mm` sums products of integers in int32. What stands between two such sums is elementwise
and would, operation by operation, cost more than the integers save: `torch.compile` fuses it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn import functional

Activation = Callable[[torch.Tensor], torch.Tensor]

_LARGEST = 127  # symmetric: -128 is not used
_SMALLEST_PEAK = 1e-30  # a row of zeros stays a row of zeros
_SAME_INPUT = ("q_proj", "k_proj")
_SAME_FORMULA = 0.02  # bfloat16 rounding gives 0.005, another activation 0.1


def is_replaced(module: nn.Module, name: str) -> bool:
    """Whether a module of this name is to be quantized.

    Values stay as they are: attention averages them over tokens, so that what one outlying channel
    of the input costs all others adds up. In the bundled model they made nearly all of the loss
    (lowest cosine of 128 passages 0.9988 with them, 0.9999 without), for 2 to 8 % of the work.
    """
    return _is_linear(module) and name.rpartition(".")[2] != "v_proj"


def _is_linear(module: object) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear


def replace_linears(
    module: nn.Module,
    kernels: Kernels,
    activations: Mapping[str, str] | None = None,
    place: str = "",
) -> None:
    """Put int8 modules in the place of `nn.Linear`s and of gated MLPs, at any depth, in place.

    Args:
        module: Holds them.
        kernels: What they compute with.
        activations: Which MLPs are gated, by the names of their activations; None = by trying.
        place: Goes before the names in `activations`.
    """
    shared = [name for name in _SAME_INPUT if _is_linear(getattr(module, name, None))]
    for name, child in list(module.named_children()):
        inside = f"{place}{name}"
        if isinstance(child, nn.Linear) and is_replaced(child, name):
            again = name in shared[:-1]
            setattr(module, name, Int8Linear(child, kernels, input_again=again))
        elif (layers := _gated_layers(child)) is not None and (
            found := _activation_of(child, *layers)
            if activations is None
            else activations.get(inside)
        ):
            setattr(module, name, Int8GatedMlp(*layers, found, kernels))
        else:
            replace_linears(child, kernels, activations, f"{inside}.")


def _gated_layers(mlp: nn.Module) -> tuple[nn.Linear, nn.Linear, nn.Linear] | None:
    """Gate, up and down layer of what may be a gated MLP."""
    linears = {name: child for name, child in mlp.named_children() if _is_linear(child)}
    if any(layer.bias is not None for layer in linears.values()):
        return None
    if linears.keys() == {"gate_proj", "up_proj", "down_proj"}:
        gate, up = linears["gate_proj"], linears["up_proj"]
    elif linears.keys() == {"gate_up_proj", "down_proj"}:
        gate, up = _halves(linears["gate_up_proj"])
    else:
        return None
    return gate, up, linears["down_proj"]


def _activation_of(mlp: nn.Module, gate: nn.Linear, up: nn.Linear, down: nn.Linear) -> str | None:
    """Name of the activation with which `down(activation(gate(x)) * up(x))` is its map, if any."""
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(4, gate.in_features, generator=generator).to(gate.weight.dtype)
    errors = {}
    with torch.no_grad():
        sample = sample * (2 / gate(sample).std())  # far enough from 0 to tell activations apart
        wanted = mlp(sample).float()
        for name, activation in ACTIVATIONS.items():
            found = down(activation(gate(sample)) * up(sample)).float()
            errors[name] = float((found - wanted).norm() / wanted.norm())
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] < _SAME_FORMULA else None


def quantize_rows(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows `[n, k]` of any float dtype -> int8 `[n, k]` and their scales, float32 `[n, 1]`.

    A NaN makes its row's scale NaN, so that it is not lost among the integers.
    """
    states = states.float()
    scales = states.abs().amax(-1, keepdim=True).clamp(min=_SMALLEST_PEAK) * (1 / _LARGEST)
    return torch.round(states * (1 / scales)).to(torch.int8), scales


def _dequantize(
    sums: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    found = sums.float() * rows * columns
    return (found if bias is None else found + bias).to(dtype)


def _gate_rows(
    gate: torch.Tensor,
    up: torch.Tensor,
    rows: torch.Tensor,
    gate_columns: torch.Tensor,
    up_columns: torch.Tensor,
    activation: Activation,
) -> tuple[torch.Tensor, torch.Tensor]:
    gated = activation(gate.float() * rows * gate_columns) * (up.float() * rows * up_columns)
    return quantize_rows(gated)


def _halves(linear: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """The two layers that a fused one holds, sharing its memory."""
    halves = []
    for weight in linear.weight.detach().chunk(2):
        half = nn.Linear(linear.in_features, len(weight), bias=False, device="meta")
        half.weight = nn.Parameter(weight, requires_grad=False)
        halves.append(half)
    return halves[0], halves[1]


def _gelu_tanh(states: torch.Tensor) -> torch.Tensor:
    return functional.gelu(states, approximate="tanh")


ACTIVATIONS: dict[str, Activation] = {
    "silu": functional.silu,
    "gelu_tanh": _gelu_tanh,
    "gelu": functional.gelu,
}


class Kernels:
    """Compiled elementwise functions of one backbone, and memory for its integer sums.

    The sums are as large as the widest activation twice over. Fresh memory of that size comes from
    the system page by page at each product, so it is kept, for each thread.
    """

    def __init__(self) -> None:
        """Compile nothing yet: that happens at the first call."""
        with warnings.catch_warnings():
            # The import behind `torch.compile` still uses what torch itself calls deprecated.
            warnings.filterwarnings("ignore", ".torch.jit.script_method. is deprecated")
            self._compiled = {
                function: torch.compile(function, dynamic=True)
                for function in (quantize_rows, _dequantize, _gate_rows)
            }
        self._memory = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return Kernels, ()

    def check_compiler(self) -> None:
        """Compile the smallest function.

        Raises:
            RuntimeError: that does not work.
        """
        try:
            with torch.inference_mode():
                self._compiled[quantize_rows](torch.ones(3, 4))
        except RuntimeError as error:
            raise RuntimeError(
                "quantization='int8' on a CPU compiles C++: install g++ and the headers of Python "
                "(Debian: apt install g++ python3-dev), or name a compiler in the environment "
                "variable CXX; without quantization none is needed"
            ) from error

    def run(self, function: Callable[..., Any], first: torch.Tensor, *others: Any) -> Any:
        """`function` compiled; a single row runs plainly, as a compiler treats size 1 apart."""
        # Detached from their class, parameters too are compiled once for all their sizes.
        others = tuple(o.detach() if isinstance(o, nn.Parameter) else o for o in others)
        return (function if len(first) == 1 else self._compiled[function])(first, *others)

    def quantized(
        self, states: torch.Tensor, *, again: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`quantize_rows` of states `[..., k]`; `again`: the next call brings them once more."""
        states, owner = states.reshape(-1, states.shape[-1]), states
        before = getattr(self._memory, "quantized", None)
        if before is not None and before[0] is owner:
            found: tuple[torch.Tensor, torch.Tensor] = before[1]
        else:
            found = self.run(quantize_rows, states)
        self._memory.quantized = (owner, found) if again else None
        return found

    def product(self, rows: torch.Tensor, weight: torch.Tensor, slot: int = 0) -> torch.Tensor:
        """Int32 sums `[n, out]`, valid until the next product in this slot."""
        size = len(rows) * len(weight)
        kept: dict[int, torch.Tensor] = self._memory.__dict__.setdefault("sums", {})
        if slot not in kept or len(kept[slot]) < size:
            with torch.inference_mode(False):
                kept[slot] = torch.empty(size, dtype=torch.int32)
        sums = kept[slot][:size].view(len(rows), len(weight))
        torch._int_mm(rows, weight.t(), out=sums)
        return sums


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, computed in int8.

    Attributes:
        weight: int8 `[out, in]`.
        scale: float32 `[out]`: times `weight`, about the layer it was made from.
        bias: As in that layer, or None.
    """

    def __init__(self, linear: nn.Linear, kernels: Kernels, *, input_again: bool = False) -> None:
        """Quantize a layer; `input_again`: the next layer that runs takes the same input."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = quantize_rows(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = nn.Parameter(scale[:, 0].contiguous(), requires_grad=False)
        self.bias = linear.bias
        self._kernels, self._input_again = kernels, input_again

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States `[..., in]` -> `[..., out]` in the same dtype."""
        rows, scales = self._kernels.quantized(states, again=self._input_again)
        return self.finish(rows, scales, states)

    def finish(self, rows: torch.Tensor, scales: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Quantized rows -> states in the dtype and leading shape of `like`."""
        sums = self._kernels.product(rows, self.weight)
        found: torch.Tensor = self._kernels.run(
            _dequantize, sums, scales, self.scale, self.bias, like.dtype
        )
        return found.view(*like.shape[:-1], self.out_features)


class Int8GatedMlp(nn.Module):
    """`down(activation(gate(x)) * up(x))` in int8; what is between the products stays float32."""

    def __init__(
        self,
        gate: nn.Linear,
        up: nn.Linear,
        down: nn.Linear,
        activation: str,
        kernels: Kernels,
    ) -> None:
        """Quantize the three layers of a gated MLP; the activation is one of `ACTIVATIONS`."""
        super().__init__()
        self.gate_proj = Int8Linear(gate, kernels)
        self.up_proj = Int8Linear(up, kernels)
        self.down_proj = Int8Linear(down, kernels)
        self._activation, self._kernels = ACTIVATIONS[activation], kernels

    @property
    def activation(self) -> str:
        """Its name in `ACTIVATIONS`."""
        return next(name for name, one in ACTIVATIONS.items() if one is self._activation)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States `[..., hidden]` -> the same shape and dtype."""
        rows, scales = self._kernels.quantized(states)
        gate = self._kernels.product(rows, self.gate_proj.weight, 0)
        up = self._kernels.product(rows, self.up_proj.weight, 1)
        rows, scales = self._kernels.run(
            _gate_rows, gate, up, scales, self.gate_proj.scale, self.up_proj.scale, self._activation
        )
        return self.down_proj.finish(rows, scales, states)

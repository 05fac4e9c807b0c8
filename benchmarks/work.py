"""What a machine can do, and what a text costs: GEMM peak, FLOPs, tokens really computed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from . import measure
from .models import Shape

if TYPE_CHECKING:
    import torch

_GEMM_ROWS = 1024


def linear_parameters(shape: Shape) -> int:
    """Weights of all linear layers: what is multiplied once per token. Embeddings are looked up."""
    keys = shape.kv_heads * shape.head_dim
    attention = shape.hidden * (2 * shape.hidden + 2 * keys)
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def flops(shape: Shape, lengths: Sequence[int], *, causal: bool) -> float:
    """Floating point operations of one pass over texts of the given tokens, nothing skipped.

    Two per weight and token; attention has `4 x length^2 x hidden` per layer, half of it causal.
    """
    linear = 2.0 * linear_parameters(shape) * sum(lengths)
    squares = float(sum(length * length for length in lengths))
    attention = 4.0 * shape.layers * shape.hidden * squares
    return linear + (attention / 2 if causal else attention)


@dataclass(slots=True)
class GemmPeak:
    """The fastest matrix product seen in this run, for one shape and dtype.

    Measured anew before and after every comparison: the machine's clock and neighbours change.

    Attributes:
        shape: Whose weight matrices are multiplied with 1,024 rows.
        dtype: Name of the torch dtype.
        device: Where.
        samples: FLOP/s per matrix, clean samples only.
    """

    shape: Shape
    dtype: str
    device: str = "cpu"
    samples: dict[str, list[float]] = field(default_factory=dict)

    def update(self) -> None:
        """Take one sample of each matrix."""
        import torch

        dtype = getattr(torch, self.dtype)
        rows = _GEMM_ROWS if self.device == "cpu" else 8 * _GEMM_ROWS
        for name, (inputs, outputs) in self._matrices().items():
            x = torch.randn(rows, inputs, device=self.device).to(dtype)
            weight = torch.randn(outputs, inputs, device=self.device).to(dtype)
            sample = self._time(partial(torch.nn.functional.linear, x, weight))
            if sample is not None:
                speed = 2.0 * rows * inputs * outputs / sample
                self.samples.setdefault(name, []).append(speed)

    @property
    def value(self) -> float | None:
        """FLOP/s of the fastest matrix, median over the run; None without a clean sample."""
        return max(map(statistics.median, self.samples.values()), default=None)

    def _matrices(self) -> dict[str, tuple[int, int]]:
        shape = self.shape
        keys = shape.kv_heads * shape.head_dim
        return {
            "query, key, value": (shape.hidden, shape.hidden + 2 * keys),
            "gate, up": (shape.hidden, 2 * shape.intermediate),
            "down": (shape.intermediate, shape.hidden),
        }

    def _time(self, multiply: Callable[[], torch.Tensor]) -> float | None:
        """Seconds per product, or None if the machine was not ours."""
        import torch

        def run() -> None:
            for _ in range(20):
                multiply()
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)

        with torch.inference_mode():
            run()
            once = max(measure.take(measure.Task(run)).seconds, 1e-6)
            sample = measure.take(measure.Task(run), max(1, round(0.3 / once)))
        return sample.seconds / 20 if sample.clean else None


@contextmanager
def counted_tokens(backbone: Any) -> Iterator[list[int]]:
    """Rows that go through the first layer's MLP meanwhile, padding included; one entry per pass.

    `backbone` is a transformers decoder with `layers`, the one that really runs; with None, nothing
    is counted.
    """
    seen: list[int] = []
    if backbone is None:
        yield seen
        return

    def hook(_module: Any, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        seen.append(inputs[0].shape[:-1].numel())

    handle = backbone.layers[0].mlp.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()

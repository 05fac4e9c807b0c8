"""How the next token is chosen: the likeliest, or a sample that is the same in any batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; fields as in `Generator.generate`."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be 0 or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is not between 0 and 1")

    def processors(self, rows: int) -> LogitsProcessorList:
        """Logits processors for `rows` rows that make the likeliest token a sample."""
        found = LogitsProcessorList()
        if self.temperature > 0:
            found.append(TemperatureLogitsWarper(self.temperature))
            if self.top_k is not None:
                found.append(TopKLogitsWarper(self.top_k))
            if self.top_p is not None:
                found.append(TopPLogitsWarper(self.top_p))
            found.append(_Noise(rows, self.seed))
        return found


class _Noise(LogitsProcessor):
    """Adds Gumbel noise to logits: the likeliest token is then a sample of the softmax.

    (Gumbel 1954.) Each row has its own source of noise, whereas torch's sampling draws from one
    that all threads and all rows of a batch share.
    """

    def __init__(self, rows: int, seed: int | None) -> None:
        self._streams = [torch.Generator() for _ in range(rows)]
        for stream in self._streams:
            _ = stream.seed() if seed is None else stream.manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        drawn = torch.stack(
            [torch.empty(scores.shape[1]).exponential_(generator=one) for one in self._streams]
        )
        return scores.float() - drawn.clamp(min=1e-30).log().to(scores.device)

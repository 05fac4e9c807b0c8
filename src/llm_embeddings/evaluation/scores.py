"""Numbers out of numbers: rank correlation, gains of a ranking, and confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric.

    Attributes:
        value: On all pairs, queries or texts.
        low: 2.5th percentile over resamples of them.
        high: 97.5th percentile.
        count: How many there are.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How confidence intervals are made (Efron 1979).

    Attributes:
        resamples: Samples with replacement; 0 = no interval.
        seed: Of the samples.
    """

    resamples: int = 1000
    seed: int = 0

    def of(self, metric: Callable[[Indices], float], count: int) -> Score:
        """The metric on everything, and its percentiles over samples.

        Args:
            metric: Of the pairs, queries or texts at these places.
            count: How many there are.
        """
        value = metric(np.arange(count))
        if not self.resamples:
            return Score(value, value, value, count)
        rng = np.random.default_rng(self.seed)
        found = [metric(rng.integers(0, count, count)) for _ in range(self.resamples)]
        low, high = np.percentile(found, [2.5, 97.5])
        return Score(value, float(low), float(high), count)

    def mean(self, values: Sequence[float] | Floats) -> Score:
        """The mean of a value per query or text."""
        array = np.asarray(values, np.float64)
        return self.of(lambda chosen: float(array[chosen].mean()), len(array))


def ndcg(ranked: Sequence[float], gains: Sequence[float], cut: int = 10) -> float:
    """Normalised discounted cumulative gain: gain / log2(rank + 1), over that of the best ranking.

    Args:
        ranked: Gains of what was found, the best first.
        gains: All gains there are; one must be above 0.
        cut: Ranks that count.
    """
    best = sorted(gains, reverse=True)
    return _discounted(ranked[:cut]) / _discounted(best[:cut])


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation of two `[n]` arrays; equal values share a rank. 0 if one is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / scale if scale else 0.0


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Rows of unit length, in float32.

    Raises:
        ValueError: a vector is not finite.
    """
    rows = finite(vectors)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def finite(vectors: Floats) -> NDArray[np.float32]:
    """Vectors in float32.

    Raises:
        ValueError: one is not finite.
    """
    rows = np.asarray(vectors, np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("the model gives vectors that are not finite: nothing to evaluate")
    return rows


def _ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks from 1; equal values get the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _discounted(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, 1)))

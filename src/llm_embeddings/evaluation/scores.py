"""Scores with confidence intervals, and the arithmetic of metrics: rank correlation, nDCG."""

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
    """A metric's value and its 95% confidence interval.

    Attributes:
        value: The metric on all samples (pairs, queries or texts).
        low: 2.5th percentile over resamples.
        high: 97.5th percentile.
        count: How many samples there are.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Makes confidence intervals by resampling (Efron 1979).

    Attributes:
        resamples: How often as many samples as there are are drawn, with replacement; 0 = no
            interval.
        seed: Seed of the draws.
    """

    resamples: int = 1000
    seed: int = 0

    def of(self, metric: Callable[[Indices], float], count: int) -> Score:
        """The score of a metric.

        Args:
            metric: Places of samples (pairs, queries or texts) -> the metric's value on these.
            count: How many samples there are.
        """
        value = metric(np.arange(count))
        if not self.resamples:
            return Score(value, value, value, count)
        rng = np.random.default_rng(self.seed)
        found = [metric(rng.integers(0, count, count)) for _ in range(self.resamples)]
        low, high = np.percentile(found, [2.5, 97.5])
        return Score(value, float(low), float(high), count)

    def mean(self, values: Sequence[float] | Floats) -> Score:
        """The score that is the mean of one value per sample."""
        array = np.asarray(values, np.float64)
        return self.of(lambda chosen: float(array[chosen].mean()), len(array))


def ndcg(ranked: Sequence[float], gains: Sequence[float], cut: int = 10) -> float:
    """Normalised discounted cumulative gain: gain / log2(rank + 1), over that of the best ranking.

    Args:
        ranked: Gains of the documents found, in the order of their ranks.
        gains: Gains of all relevant documents; one must be above 0.
        cut: How many ranks count.
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
    """Vectors `[n, dim]` scaled to unit length, in float32.

    Raises:
        ValueError: a vector is not finite.
    """
    rows = finite(vectors)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def finite(vectors: Floats) -> NDArray[np.float32]:
    """Vectors `[n, dim]` in float32, checked.

    Raises:
        ValueError: a vector is not finite.
    """
    rows = np.asarray(vectors, np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("the model gives vectors that are not finite: nothing to evaluate")
    return rows


def _ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks of values, from 1; equal values all get the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _discounted(gains: Sequence[float]) -> float:
    """Discounted cumulative gain of gains in the order of their ranks."""
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, 1)))

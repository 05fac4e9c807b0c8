"""Scores drawn as pictures, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..faces import require
from .results import Result
from .scores import Score

_BAR, _LINE, _OTHER = "#9db8d9", "#1f3a5f", "#c2571a"


def plot_scores(results: Sequence[Result], path: Path) -> None:
    """Draw the first metric of each set as a bar with its interval, and BM25's as a mark.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the ending of `path` is not that of a picture.
    """
    figure, axes = _figure(1.2 + 0.5 * len(results))
    for place, result in enumerate(results):
        score = next(iter(result.scores.values()))
        axes.barh(place, score.value, color=_BAR, xerr=_interval(score), ecolor=_LINE, capsize=3)
        if result.bm25 is not None:
            axes.plot(next(iter(result.bm25.values())).value, place, "D", color=_OTHER)
    if any(result.bm25 for result in results):
        axes.plot([], [], "D", color=_OTHER, label="BM25")
        figure.legend(loc="outside upper right", frameon=False)
    names = [f"{result.name}\n{next(iter(result.scores))}" for result in results]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    low = min((next(iter(result.scores.values())).low for result in results), default=0.0)
    axes.set_xlim(min(0.0, low), 1)
    axes.set_xlabel("score, with its 95% interval")
    _save(figure, path)


def plot_passkey(scores: Mapping[int, Score], path: Path) -> None:
    """Draw passkey accuracy by length, on a logarithmic axis.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the ending of `path` is not that of a picture.
    """
    figure, axes = _figure(3.2)
    lengths = sorted(scores)
    values = [scores[length].value for length in lengths]
    axes.plot(lengths, values, "o-", color=_LINE)
    lows, highs = ([getattr(scores[length], end) for length in lengths] for end in ("low", "high"))
    axes.fill_between(lengths, lows, highs, color=_BAR, alpha=0.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("tokens in a document")
    axes.set_ylabel("pass keys found")
    _save(figure, path)


def plot_run(lines: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the loss of a training run by update and, below it, what was scored on the way.

    Args:
        lines: Those of metrics.jsonl. What held-out queries score is no curve.
        path: The picture.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the ending of `path` is not that of a picture.
    """
    names = dict.fromkeys(name for line in lines for name in line)
    scores = [name for name in names if "/" in name and not name.startswith("held_out/")]
    figure, (first, *others) = _panels(3.2, 2 if scores else 1)
    for name, axes in (("loss", first), *((name, axes) for axes in others for name in scores)):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(
            *zip(*points, strict=True), "o-" if "/" in name else "-", markersize=3, label=name
        )
    first.set_ylabel("loss")
    for axes in others:
        axes.set_ylabel("scores")
        axes.legend(frameon=False)
    figure.supxlabel("updates")
    _save(figure, path)


def find_matplotlib() -> Any:
    """The module of matplotlib's figures.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return require("matplotlib.figure", "plots need matplotlib", extra="eval")


def _figure(height: float) -> tuple[Any, Any]:
    """An empty figure, `height` inches high, and its axes."""
    figure, (axes,) = _panels(height, 1)
    return figure, axes


def _panels(height: float, count: int) -> tuple[Any, list[Any]]:
    """An empty figure of panels below each other, each `height` inches high, and their axes."""
    figure = find_matplotlib().Figure(figsize=(7, height * count), layout="constrained")
    panels = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _interval(score: Score) -> list[list[float]]:
    """How far an interval reaches below and above its value, as `xerr` takes it.

    Not below 0: an interval of percentiles need not contain the value.
    """
    return [[max(0.0, score.value - score.low)], [max(0.0, score.high - score.value)]]


def _save(figure: Any, path: Path) -> None:
    """Write a figure into a file, whose folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

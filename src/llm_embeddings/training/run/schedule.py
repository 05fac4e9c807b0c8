"""How many updates a run has, and the learning rate of each."""

from __future__ import annotations

import math

from ..options import StageOptions


def updates_of(options: StageOptions, available: int | None) -> int | None:
    """How many updates a run has; None = until the data ends.

    Args:
        options: `max_steps` and the schedule are used.
        available: How many batches the data has; None = not known.

    Raises:
        ValueError: the learning rate is to fall, and the number of updates is not known.
    """
    known = [count for count in (options.max_steps, available) if count is not None]
    total = min(known, default=None)
    planned = options.schedule_steps or total
    if planned is None and (options.schedule != "constant" or 0 < options.warmup < 1):
        raise ValueError(
            f"schedule={options.schedule!r} needs to know how many updates there will be: give "
            "max_steps or schedule_steps"
        )
    return total


def learning_rate(options: StageOptions, step: int, total: int | None) -> float:
    """The learning rate of update `step`, counted from 0, as transformers' schedules have it."""
    planned = options.schedule_steps or total or 0
    warmup = _warmup(options, total)
    if step < warmup:
        return options.learning_rate * step / warmup
    if options.schedule == "constant":
        return options.learning_rate
    done = min((step - warmup) / max(planned - warmup, 1), 1.0)
    left = 1 - done if options.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return options.learning_rate * left


def still_rising(options: StageOptions, total: int | None) -> str:
    """A remark on a run that ends before its warm-up does; empty where none is needed."""
    warmup = _warmup(options, total)
    if total is None or warmup < total:
        return ""
    return (
        f"the learning rate rises for {warmup:g} updates and this run has {total}: it ends at "
        f"{learning_rate(options, total - 1, total):.1e} and not at {options.learning_rate:.1e}. "
        "Lower warmup; 0.1 is a tenth of the run"
    )


def _warmup(options: StageOptions, total: int | None) -> float:
    """Updates of the warm-up, where it is given as a share, too."""
    planned = options.schedule_steps or total or 0
    return options.warmup * planned if options.warmup < 1 else options.warmup

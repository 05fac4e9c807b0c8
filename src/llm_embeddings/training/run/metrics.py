"""Metrics of a run, written to progress bar, console, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...evaluation.plots import find_matplotlib, plot_run
from ...faces import require
from ..options import StageOptions
from .checkpoints import LOGS, METRICS
from .stage import Progress

if TYPE_CHECKING:
    from io import TextIOWrapper


CURVE = "curve.png"


class MetricsWriter:
    """Writes, every `log_every` updates, means over the updates since the last time.

    A context manager: the files are open inside its block.
    """

    def __init__(
        self, options: StageOptions, total: int | None, first: int, *, visible: bool
    ) -> None:
        """Keep the settings; nothing is opened yet.

        Args:
            options: The run's options.
            total: How many updates the run will have; None = not known.
            first: How many updates are already done.
            visible: Whether this process writes at all.
        """
        self._options, self._total, self._first, self._visible = options, total, first, visible
        self._waiting: list[tuple[Progress, float]] = []
        self._since = time.monotonic()
        self._bar: Any = None
        self._board: Any = None
        self._file: TextIOWrapper | None = None

    def __enter__(self) -> MetricsWriter:
        """Open the bar and the files.

        Raises:
            ImportError: TensorBoard or a picture is wanted, and what makes it is not installed.
        """
        if not self._visible:
            return self
        if self._options.curve:
            find_matplotlib()
        if self._options.tensorboard:
            self._board = _board(str(self._options.output / LOGS))
        path = self._options.output / METRICS
        self._file = path.open("a", encoding="utf-8")
        if self._options.show_progress:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total, initial=self._first, unit="update", dynamic_ncols=True
            )
        self._since = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        """Close the bar and the files, and draw the run if it came to its end."""
        for thing in (self._bar, self._board, self._file):
            if thing is not None:
                thing.close()
        if self._visible and self._options.curve and error[0] is None:
            text = (self._options.output / METRICS).read_text(encoding="utf-8")
            plot_run([json.loads(line) for line in text.splitlines()], self._options.output / CURVE)

    def tell(self, remark: str) -> None:
        """Print a remark, if there is one and a bar is shown."""
        if remark and self._bar is not None:
            self._bar.write(remark)

    def update(self, step: int, progress: Progress, *, rate: float, norm: float) -> None:
        """Count in update number `step`, from 1, with its learning rate and gradient norm."""
        self._waiting.append((progress, norm))
        if self._bar is not None:
            self._bar.update(1)
        if step % self._options.log_every == 0 or step == self._total:
            self.flush(step, rate)

    def flush(self, step: int, rate: float) -> None:
        """Write a line about the updates since the last one, if there are any."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        seconds = time.monotonic() - self._since
        tokens = sum(progress.tokens for progress, _ in waiting)
        names = waiting[-1][0].losses
        line: dict[str, float] = {
            name: sum(progress.losses[name] for progress, _ in waiting) / len(waiting)
            for name in names
        }
        line |= {
            "learning_rate": rate,
            "gradient_norm": sum(norm for _, norm in waiting) / len(waiting),
            "examples": sum(progress.examples for progress, _ in waiting),
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
        }
        self.write(step, line)
        if self._bar is not None:
            speed = f"{tokens / seconds:,.0f}"
            self._bar.set_postfix_str(f"loss {line['loss']:.4f}, {speed} tokens/s")
            shown = ", ".join(f"{name} {line[name]:.4f}" for name in names)
            self._bar.write(f"update {step}: {shown}, lr {rate:.2e}, {speed} tokens/s")
        self._since = time.monotonic()

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Write the scores of an evaluation; its time does not count as training."""
        self.write(step, scores)
        if self._bar is not None:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self._bar.write(f"update {step}: {shown}")
        self._since = time.monotonic()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values of update `step` as a line of metrics.jsonl and to TensorBoard."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def _board(directory: str) -> Any:
    """TensorBoard's writer of a folder."""
    need = "tensorboard=True needs TensorBoard"
    return require("torch.utils.tensorboard", need, extra="train").SummaryWriter(directory)

"""Training that can be stopped at any step: state on disk, signals, and a log of the speed."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of a fixed number of updates."""

    name: str
    folder: Path
    steps: int
    warmup: int = 100
    save_every: int = 50
    log_every: int = 25

    @property
    def checkpoint(self) -> Path:
        """Where the state lies between two starts."""
        return self.folder / f"{self.name}.checkpoint"


def rate(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: up in `warmup` steps, then a cosine down to 2 %."""
    up = min(1.0, (step + 1) / warmup)
    return up * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))


def train(
    run: Run,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    update: Callable[[int], tuple[torch.Tensor, int]],
) -> None:
    """Call `update(step)` for (loss, tokens) until `run.steps`, from the last saved state on.

    A batch is drawn from its step number alone, so that a restart sees what it would have seen.
    SIGTERM and SIGINT save the state and end the process.
    """
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: rate(s, run.steps, run.warmup)
    )
    first = restore(run, model, optimizer, scheduler)
    stop: list[int] = []
    watched = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.signal(number, lambda n, _: stop.append(n)) for number in watched]
    tokens, losses, since = 0, [], time.process_time()
    for step in range(first, run.steps):
        loss, count = update(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        tokens += count
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"{run.name}: loss is {losses[-1]} at step {step}")
        if (step + 1) % run.log_every == 0:
            speed = tokens / (time.process_time() - since)
            mean = sum(losses) / len(losses)
            write_line(run, f"{step + 1}/{run.steps} loss {mean:.4f}, {speed:.0f} tokens/CPU s")
            tokens, losses, since = 0, [], time.process_time()
        if stop or (step + 1) % run.save_every == 0 or step + 1 == run.steps:
            save(run, model, optimizer, scheduler, step + 1)
        if stop:
            raise SystemExit(128 + stop[0])
    for number, handler in zip(watched, handlers, strict=True):
        signal.signal(number, handler)


def write_line(run: Run, text: str) -> None:
    """Add a line to the log that all runs of a folder share."""
    with (run.folder / "log").open("a", encoding="utf-8") as log:
        log.write(f"{run.name} {text}\n")


def restore(
    run: Run,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    """Take up the saved state, if there is one, and say which step comes next."""
    if not run.checkpoint.exists():
        return 0
    state = torch.load(run.checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    step: int = state["step"]
    return step


def save(
    run: Run,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    step: int,
) -> None:
    """Write the state beside its place, then move it there: never half a checkpoint."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "step": step,
    }
    partial = run.checkpoint.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(run.checkpoint)

"""What the tests of contrastive, LLaRA and GRIT training share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from helpers import BUNDLED

MODEL = str(BUNDLED / "gritlm-7b/model")  # the smallest golden checkpoint with a head
WORDS = "red green blue amber violet black white brown grey pink".split()


def write_rows(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def triplets(path: Path, count: int = 8) -> str:
    rows = [
        {
            "query": f"which stone is {WORDS[i % 10]} number {i}",
            "pos": [f"stone {i} is {WORDS[i % 10]}", f"the {WORDS[i % 10]} stone is {i}"],
            "neg": [f"stone {i + 1} is {WORDS[(i + 1) % 10]}", "no stone at all"],
        }
        for i in range(count)
    ]
    return write_rows(path, rows)


def quick(folder: Path, data: Any, **more: Any) -> dict[str, Any]:
    """Options of a short run in float32, without warm-up and progress bar."""
    values: dict[str, Any] = {
        "model": MODEL,
        "output": folder / "result",
        "data": data,
        "dtype": "float32",
        "batch_size": 4,
        "warmup": 0,
        "max_steps": 2,
        "show_progress": False,
    }
    return values | more


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


def update(stage: Any, batch: Any) -> tuple[Mapping[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients of one update of a stage, in one process."""
    from accelerate import Accelerator

    stage.model.zero_grad()
    stage.model.train()
    progress = stage.update(Accelerator(cpu=True), stage.model, batch)
    return progress.losses, gradients(stage.model)


def assert_same_gradients(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], tolerance: float = 1e-5
) -> None:
    """Each within `tolerance` of the largest element."""
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = gradient.abs().max().clamp(min=1e-12)
        assert float((found[name] - gradient).abs().max() / scale) <= tolerance, name


def losses_of(output: Path) -> list[float]:
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]

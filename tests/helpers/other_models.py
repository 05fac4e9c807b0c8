"""Models that lie, one after the other, under one path, and embed differently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from . import BUNDLED

E5 = BUNDLED / "e5-mistral/model"
SHARD = "model-00002-of-00002.safetensors"


def copy_of(path: Path) -> Path:
    """A checkpoint that a test may change."""
    shutil.copytree(E5, path)
    return path


def configured(path: Path, **values: Any) -> None:
    """Change the config of a checkpoint."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    (path / "config.json").write_text(json.dumps(config | values), encoding="utf-8")


def _rows(path: Path) -> None:
    """Three of four values of a weight, none of them among 256 evenly spaced ones."""
    tensors = load_file(path / SHARD)
    name = next(name for name in tensors if name.endswith("2.mlp.down_proj.weight"))
    flat = tensors[name].view(-1)
    for first in (1, 2, 3, 4, 5, 6, 7):
        flat[first::8] *= -3
    save_file(tensors, path / SHARD, metadata={"format": "pt"})


CHANGES: dict[str, Callable[[Path], None]] = {
    "rope": lambda path: configured(path, rope_theta=30.0),
    "activation": lambda path: configured(path, hidden_act="relu"),
    "epsilon": lambda path: configured(path, rms_norm_eps=0.5),
    "window": lambda path: configured(path, sliding_window=2),
    "rows": _rows,
}

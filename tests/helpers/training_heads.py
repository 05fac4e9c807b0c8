"""Run by `torch.distributed.run`: trains a new head by both versions of FSDP on the CPU.

The one argument is the folder that holds rows.jsonl.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch.distributed.fsdp import _init_utils

from helpers.training import quick
from helpers.training_sharded import Sharding
from llm_embeddings.recipe import Head
from llm_embeddings.training import Contrastive, LoraOptions, train_contrastive
from llm_embeddings.training.mntp import MNTP_RECIPE

WIDTH = 20
HEADED = MNTP_RECIPE.replace(family="custom", heads=(Head(kind="dense", width=WIDTH),))


def options(folder: Path, **more: Any) -> Contrastive:
    values: dict[str, Any] = {
        "recipe": HEADED,
        "lora": LoraOptions(dropout=0.0),
        "temperature": 0.2,
        "learning_rate": 1e-2,
        "schedule": "constant",
        "log_every": 1,
    }
    return Contrastive(**quick(folder, str(folder / "rows.jsonl"), **values | more))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    accelerate.Accelerator = Sharding  # type: ignore[misc]
    # FSDP1 compares "cpu" with accelerate's "cpu:0".
    _init_utils._get_device_from_device_id = lambda *_: torch.device("cpu")  # type: ignore[assignment]
    for Sharding.version in (1, 2):
        train_contrastive(options(folder, output=folder / f"fsdp{Sharding.version}"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

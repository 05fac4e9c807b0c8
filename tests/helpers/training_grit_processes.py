"""Run by `torch.distributed.run`: trains GRIT on the folder that is the one argument."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from helpers.training import quick
from llm_embeddings.recipe import Head
from llm_embeddings.training.grit import GRIT, GRIT_RECIPE, train_grit


def options(folder: Path, name: str) -> GRIT:
    values = quick(
        folder,
        str(folder / "stones.jsonl"),
        output=folder / name,
        generative=(str(folder / "talks.jsonl"),),
        generative_batch_size=4,
        mixed_group=2,
        temperature=0.2,
        learning_rate=1e-2,
        batch_tokens=60,
        log_every=1,
        recipe=GRIT_RECIPE.replace(heads=(Head(kind="dense", width=16),)),
    )
    return GRIT(**values)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_grit(options(Path(sys.argv[1]), "double"))

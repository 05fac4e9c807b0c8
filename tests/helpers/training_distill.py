"""Run by `torch.distributed.run`: learns a teacher's vectors.

Arguments: the texts, an output folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from llm_embeddings.training import Distill, LoraOptions, train_distill

from . import BUNDLED

STUDENT = str(BUNDLED / "gritlm-7b/model")
NEAR = str(BUNDLED / "llm2vec-mistral/mntp")  # of the student's dimension
FAR = str(BUNDLED / "e5-mistral/model")


def teach(texts: str, output: Path) -> Distill:
    """Options of three updates, whose chunks are shared by processes."""
    return Distill(
        model=STUDENT,
        teacher=FAR,
        data=(texts,),
        output=output,
        linear_map=True,
        lora=LoraOptions(dropout=0.0),
        dtype="float32",
        batch_size=6,
        batch_tokens=40,
        learning_rate=1e-2,
        max_steps=3,
        log_every=1,
        show_progress=False,
    )


if __name__ == "__main__":
    train_distill(teach(sys.argv[1], Path(sys.argv[2])))

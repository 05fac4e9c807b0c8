"""Make the bundled model, on two CPU cores: one command, stopped and started again at will.

    python scripts/small/train.py --data DATA --work build/small2

Each stage runs in a process of its own and leaves its result in the work folder. What is there is
not made again; what was broken off goes on from its last checkpoint. `--stages` picks some.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import stages
from stages import Options

ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",  # threads that spin starve a shared machine
    "MALLOC_MMAP_THRESHOLD_": "4000000000",  # glibc keeps freed memory: 40 % more tokens a second
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "TRANSFORMERS_VERBOSITY": "error",
}


STAGES: dict[str, tuple[Callable[[Options], None], str]] = {
    "prepare": (stages.prepare, "prepared.npz"),
    "pretrain": (stages.language_model, "pretrained/tokenizer.json"),
    "mntp": (stages.mntp, "mntp/llm_embeddings.json"),
    "simcse": (stages.simcse, "simcse/llm_embeddings.json"),
    "lessons": (stages.lessons, "lessons/done"),
    "words": (stages.words, "words/llm_embeddings.json"),
    "distill": (stages.distillation, "distilled/llm_embeddings.json"),
    "contrastive": (stages.contrastive, "contrastive/llm_embeddings.json"),
    "store": (stages.store, "final/llm_embeddings.json"),
}
"""Stages in order, and the file that a finished one has left."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the corpus folder")
    parser.add_argument("--work", type=Path, default=Path("build/small2"))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = Options(data=args.data, work=args.work)
    if args.inside:
        import torch

        torch.set_num_threads(options.threads)
        STAGES[args.stages[0]][0](options)
        return
    (options.work / "log").mkdir(parents=True, exist_ok=True)
    for name in args.stages:
        if not (options.work / STAGES[name][1]).exists():
            print(f"{name} ...", flush=True)
            common = ["--data", str(options.data), "--work", str(options.work), "--inside"]
            command = [sys.executable, __file__, *common, "--stages", name]
            subprocess.run(command, check=True, env=os.environ | ENVIRONMENT)


if __name__ == "__main__":
    main()

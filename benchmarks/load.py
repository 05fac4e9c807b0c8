"""Load, first vector and memory beside sentence-transformers: `python -m benchmarks.load`.

    --folder DIR     a checkpoint in sentence-transformers' layout; else 0.94 billion random
                     numbers in e5-mistral's layout, in the dtype of --stored
    --stored DTYPE   float16 (default), bfloat16 or float32
    --dtypes A,B     what it is loaded as; "auto" is each side's own default
    --rounds N       fresh processes per side, in turns (default 5)

All modules are imported before the clock starts. Prints wall and CPU seconds, and the peak memory
of the process, each as the median of its rounds, and the ratio of ours to theirs. On a busy machine
the CPU seconds are the ones to read. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .models import E5_TOKENIZER, ROOT, WORK

_SIZES: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 7168,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "sliding_window": None,
}
_QUERY = "what is the capital of France"
_SIDES = ("ours", "sentence-transformers")
_HEAD = f"{'dtype':10} {'what':22} {'ours':>8} {'theirs':>8} {'ratio':>6}"


def main() -> None:
    """Load in turns, and print a line for each measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--stored", default="float16")
    parser.add_argument("--dtypes", default="auto,bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(_measure(given.side, given.folder, given.dtypes)))
        return
    folder = given.folder or _made(given.stored)
    print(_HEAD)
    for dtype in given.dtypes.split(","):
        found: dict[str, list[dict[str, float]]] = {side: [] for side in _SIDES}
        for _ in range(given.rounds):
            for side in _SIDES:
                found[side].append(_ask(side, folder, dtype))
        for what in found["ours"][0]:
            ours, theirs = (statistics.median(r[what] for r in found[side]) for side in _SIDES)
            print(f"{dtype:10} {what:22} {ours:8.2f} {theirs:8.2f} {ours / theirs:6.2f}")


def _ask(side: str, folder: Path, dtype: str) -> dict[str, float]:
    """One load in a new process."""
    command = [sys.executable, "-m", "benchmarks.load", "--side", side, "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--dtypes", dtype],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(side: str, folder: Path, dtype: str) -> dict[str, float]:
    load = _ours if side == "ours" else _theirs
    opened = load(folder, dtype)
    start, start_cpu = time.perf_counter(), time.process_time()
    model = opened()
    loaded, loaded_cpu = time.perf_counter(), time.process_time()
    model.encode_query(_QUERY)
    end, end_cpu = time.perf_counter(), time.process_time()
    return {
        "load, s": loaded - start,
        "load, CPU s": loaded_cpu - start_cpu,
        "first vector, s": end - start,
        "first vector, CPU s": end_cpu - start_cpu,
        "peak memory, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _ours(folder: Path, dtype: str) -> Any:
    import sentence_transformers  # noqa: F401  # the same modules of transformers as the other side
    import transformers.models.mistral.modeling_mistral  # noqa: F401

    import llm_embeddings.checkpoint.loading
    import llm_embeddings.packed.served  # noqa: F401
    from llm_embeddings import Encoder

    return lambda: Encoder.from_pretrained(folder, device="cpu", dtype=dtype)


def _theirs(folder: Path, dtype: str) -> Any:
    import transformers.models.mistral.modeling_mistral  # noqa: F401
    from sentence_transformers import SentenceTransformer

    return lambda: SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})


def _made(stored: str) -> Path:
    """A checkpoint of 0.94 billion random numbers."""
    import shutil

    import torch
    from transformers import MistralConfig, MistralModel

    folder = WORK / f"load-{stored}"
    if (folder / "modules.json").is_file():
        return folder
    torch.manual_seed(0)
    model = MistralModel(MistralConfig(**_SIZES)).to(getattr(torch, stored))
    model.save_pretrained(folder)
    for file in E5_TOKENIZER.iterdir():
        if file.is_dir():
            shutil.copytree(file, folder / file.name, dirs_exist_ok=True)
        elif file.name != "config.json" and not file.name.startswith("model.safetensors"):
            shutil.copyfile(file, folder / file.name)
    shutil.copyfile(E5_TOKENIZER / "modules.json", folder / "modules.json")
    return folder


if __name__ == "__main__":
    main()

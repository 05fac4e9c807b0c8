"""Load, first vector and memory beside sentence-transformers: `python -m benchmarks.load`.

    --folder DIR     a checkpoint in sentence-transformers' layout; else random numbers in
                     e5-mistral's layout, in the size of --size and the dtype of --stored
    --size SIZE      1b (default; 0.94 billion) or 7b (7.1 billion, as e5-mistral-7b-instruct)
    --stored DTYPE   float16 (default), bfloat16 or float32
    --quantization   of ours: int8
    --dtypes A,B     what it is loaded as; "auto" is each side's own default
    --rounds N       fresh processes per side, in turns (default 5)

All modules are imported before the clock starts, and both sides read the same prompt and query.
Prints wall and CPU seconds, and the peak memory
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

_COMMON: dict[str, Any] = {
    "vocab_size": 32000,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "sliding_window": None,
}
_SIZES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 7168,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
_QUERY = "what is the capital of France"
_PROMPT = "web_search_query"  # of e5-mistral's files; what our recipe puts before a query
_SIDES = ("ours", "sentence-transformers")
_HEAD = f"{'dtype':10} {'what':22} {'ours':>8} {'theirs':>8} {'ratio':>6}"


def main() -> None:
    """Load in turns, and print a line for each measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--size", choices=_SIZES, default="1b")
    parser.add_argument("--stored", default="float16")
    parser.add_argument("--quantization")
    parser.add_argument("--dtypes", default="auto,bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=_SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        measured = _measure(given.side, given.folder, given.dtypes, given.quantization)
        print(json.dumps(measured))
        return
    folder = given.folder or _made(given.size, given.stored)
    print(_HEAD)
    for dtype in given.dtypes.split(","):
        found: dict[str, list[dict[str, float]]] = {side: [] for side in _SIDES}
        for _ in range(given.rounds):
            for side in _SIDES:
                found[side].append(_ask(side, folder, dtype, given.quantization))
        for what in found["ours"][0]:
            ours, theirs = (statistics.median(r[what] for r in found[side]) for side in _SIDES)
            print(f"{dtype:10} {what:22} {ours:8.2f} {theirs:8.2f} {ours / theirs:6.2f}")


def _ask(side: str, folder: Path, dtype: str, quantization: str | None) -> dict[str, float]:
    """One load in a new process."""
    command = [sys.executable, "-m", "benchmarks.load", "--side", side, "--folder", str(folder)]
    more = ["--quantization", quantization] if quantization else []
    done = subprocess.run(
        [*command, "--dtypes", dtype, *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(side: str, folder: Path, dtype: str, quantization: str | None) -> dict[str, float]:
    ours = side == "ours"
    opened = _ours(folder, dtype, quantization) if ours else _theirs(folder, dtype)
    options = {} if ours else {"prompt_name": _PROMPT}  # it puts none by itself
    start, start_cpu = time.perf_counter(), time.process_time()
    model = opened()
    loaded, loaded_cpu = time.perf_counter(), time.process_time()
    model.encode_query(_QUERY, **options)
    end, end_cpu = time.perf_counter(), time.process_time()
    return {
        "load, s": loaded - start,
        "load, CPU s": loaded_cpu - start_cpu,
        "first vector, s": end - start,
        "first vector, CPU s": end_cpu - start_cpu,
        "peak memory, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _ours(folder: Path, dtype: str, quantization: str | None = None) -> Any:
    import sentence_transformers  # noqa: F401  # the same modules of transformers as the other side
    import transformers.models.mistral.modeling_mistral  # noqa: F401

    import llm_embeddings.checkpoint.loading
    import llm_embeddings.packed.served  # noqa: F401
    from llm_embeddings import Encoder

    options: dict[str, Any] = {"device": "cpu", "dtype": dtype, "quantization": quantization}
    return lambda: Encoder.from_pretrained(folder, **options)


def _theirs(folder: Path, dtype: str) -> Any:
    import transformers.models.mistral.modeling_mistral  # noqa: F401
    from sentence_transformers import SentenceTransformer

    return lambda: SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})


def _made(size: str, stored: str) -> Path:
    """A checkpoint of random numbers, a shard for every four layers, which are all alike."""
    import shutil

    folder = WORK / (f"load-{stored}" if size == "1b" else f"load-{size}-{stored}")
    if (folder / "modules.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, size, stored)
    for file in E5_TOKENIZER.iterdir():
        if file.is_dir():
            shutil.copytree(file, folder / file.name, dirs_exist_ok=True)
        elif file.name != "config.json" and not file.name.startswith("model"):
            shutil.copyfile(file, folder / file.name)
    shutil.copyfile(E5_TOKENIZER / "modules.json", folder / "modules.json")
    return folder


def _write_weights(folder: Path, size: str, stored: str) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import MistralConfig, MistralModel

    torch.manual_seed(0)
    config = MistralConfig(**_COMMON, **_SIZES[size])
    depth, config.num_hidden_layers = config.num_hidden_layers, 1
    first = MistralModel(config).to(getattr(torch, stored)).state_dict()
    config.num_hidden_layers, config.architectures, config.dtype = depth, ["MistralModel"], stored
    config.save_pretrained(folder)
    layer = {name: one for name, one in first.items() if name.startswith("layers.0.")}
    shards = [{name: one for name, one in first.items() if name not in layer}]
    for start in range(0, depth, 4):
        numbers = range(start, min(start + 4, depth))
        shards.append(
            {
                name.replace("layers.0.", f"layers.{number}."): one
                for number in numbers
                for name, one in layer.items()
            }
        )
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        copies = {name: one.clone() for name, one in shard.items()}
        save_file(copies, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    written = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    main()

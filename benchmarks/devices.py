"""Several devices against one, and the cache of vectors against computing them.

`python -m benchmarks.devices`: W2's documents through one process with all cores and through one
process per core (`devices=["cpu", ...]`), and again from a cache that holds all of them or none.
The contenders take turns; their vectors are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from llm_embeddings import Encoder
from llm_embeddings.engine.processes import DeviceWorker
from llm_embeddings.vector_cache.store import VectorCache

from .measure import Task, interleave, process_seconds, take
from .models import LAYOUTS, SHAPES, checkpoint
from .workloads import documents

_LOWEST_COSINE = 0.999
_LONGEST_WAIT = 5.0
ONE, MANY, FULL, EMPTY = "one process", "a process per core", "all kept", "none kept"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="small", choices=SHAPES)
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    layout = LAYOUTS["gritlm"]
    path, texts = checkpoint(SHAPES[given.shape], layout), documents(given.documents)
    load = partial(Encoder.from_pretrained, path, recipe=layout.recipe)
    cores = os.cpu_count() or 1
    one, many = load(device="cpu"), load(devices=["cpu"] * cores)
    for encoder in (one, many):
        vectors = encoder.encode(texts)
    lowest = float(np.diag(one.similarity(one.encode(texts), vectors)).min())
    if lowest < _LOWEST_COSINE:
        raise SystemExit(f"lowest cosine {lowest:.6f}: nothing is timed")
    with tempfile.TemporaryDirectory() as directory:
        kept, unkept = load(device="cpu"), load(device="cpu")
        kept.vector_cache = VectorCache(Path(directory) / "kept.sqlite")
        unkept.vector_cache = VectorCache(Path(directory) / "unkept.sqlite")
        kept.encode(texts)
        runs = {ONE: one, MANY: many, FULL: kept, EMPTY: unkept}
        tasks = {}
        for name, encoder in runs.items():
            run = partial(_encode, encoder, texts, forget=name == EMPTY)
            tasks[name] = Task(run, take(Task(run)).seconds, partial(_cpu_seconds, many))
        timings = interleave(tasks, given.repeats, longest_wait=_LONGEST_WAIT)
    for name, timing in timings.items():
        print(
            f"{name}: {timing.seconds:.3f} s, {timings[ONE].seconds / timing.seconds:.2f} times as "
            f"fast as one process, {len(timing.clean)} of {len(timing.samples)} samples clean"
        )
    per_text = 1e6 * timings[FULL].seconds / len(texts)
    print(f"a text that is kept costs {per_text:.0f} us, vectors of {one.dimension} dimensions")


def _encode(encoder: Encoder, texts: list[str], *, forget: bool) -> None:
    if forget and encoder.vector_cache is not None:
        encoder.vector_cache.clear()
    encoder.encode(texts)


def _cpu_seconds(encoder: Encoder) -> float:
    """Of this process and of those behind the encoder's devices."""
    workers = [place.runner for place in encoder.scheduler.workers.dispatch.places.values()]
    pids = [worker.pid for worker in workers if isinstance(worker, DeviceWorker)]
    return time.process_time() + sum(map(process_seconds, pids))


if __name__ == "__main__":
    main()

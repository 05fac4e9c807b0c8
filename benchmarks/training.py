"""Training throughput against a plain loop and sentence-transformers' trainer; memory of caching.

`python -m benchmarks.training`: tokens per second of the same LoRA updates on the same model, data
and dtype, the contenders taking turns; losses of equal updates are compared before anything is
timed. A peer's time is that of its training step alone: what its collator does is not counted.
`python -m benchmarks.training memory BATCH BUDGET` prints the peak of one update in MiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from .measure import Task, interleave, take
from .memory import _growth
from .models import ROOT
from .peers import be_silent
from .training_updates import BATCHES, ours, plain_loop, sentence_transformers

MEMORY_BATCHES = (16, 32, 64, 128)
_LONGEST_WAIT = 5.0


def main() -> None:
    """Measure and print ratios; fail where one is below 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("memory", nargs="*", help="memory BATCH BUDGET: one peak, in MiB")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    be_silent()
    if given.memory:
        print(memory(int(given.memory[1]), int(given.memory[2])))
        return
    slower = []
    for stage in BATCHES:
        ratios = throughput(stage, given.dtype, given.repeats)
        slower += [f"{stage} against {name}" for name, ratio in ratios.items() if ratio < 1]
    for budget in (2048, 10**9):
        print(f"contrastive, peak over the model, {budget} tokens per chunk:")
        for batch in MEMORY_BATCHES if budget < 10**9 else MEMORY_BATCHES[:2]:
            print(f"  batch {batch:4}: {_memory_elsewhere(batch, budget):6.0f} MiB")
    if slower:
        raise SystemExit(f"slower than a peer: {', '.join(slower)}")


def throughput(stage: str, dtype: str, repeats: int) -> dict[str, float]:
    """Our tokens per second over each peer's, after a look at the losses."""
    contenders = {"ours": ours, "plain loop": plain_loop}
    if stage == "contrastive":
        contenders["sentence-transformers"] = sentence_transformers
    updates = {name: make(stage, dtype) for name, make in contenders.items()}
    losses = {name: update()[0] for name, update in updates.items()}
    allowed = 1e-3 if dtype == "float32" else 5e-2
    if max(losses.values()) - min(losses.values()) > allowed * losses["ours"]:
        raise SystemExit(f"{stage}: the losses differ, nothing is timed: {losses}")
    tasks = {name: Task(update, take(Task(update)).seconds) for name, update in updates.items()}
    timings = interleave(tasks, repeats, attempts=2 * repeats, longest_wait=_LONGEST_WAIT)
    tokens = updates["ours"]()[1]
    for name, timing in timings.items():
        note = "" if timing.clean else "  (contended: no clean sample)"
        print(f"{stage}, {name}: {tokens / timing.seconds:,.0f} tokens/s{note}")
    own = timings.pop("ours").seconds
    ratios = {name: timing.seconds / own for name, timing in timings.items()}
    for name, ratio in ratios.items():
        print(f"{stage}: {ratio:.2f} times {name}")
    return ratios


def memory(batch: int, budget: int) -> float:
    """Peak of one contrastive update over what was held before, in MiB."""
    import numpy as np

    ours("contrastive", "float32", batch=2)()  # what is held from the first call on
    update = ours("contrastive", "float32", batch=batch, budget=budget)
    return _growth(lambda: np.array(update()[0]))[0]


def _memory_elsewhere(batch: int, budget: int) -> float:
    command = [sys.executable, "-m", "benchmarks.training", "memory", str(batch), str(budget)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()

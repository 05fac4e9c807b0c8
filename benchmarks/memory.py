"""Peak memory, each in a process of its own: `python -m benchmarks.memory`.

    contender WORKLOAD SHAPE DTYPE QUICK COMPARISON CONTENDER    one contender of a comparison
    flat COUNT                                                   our `encode` of COUNT short texts

Prints mebibytes over what the process held before the call. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import peers, workloads
from .comparisons import comparisons, sizes_of
from .models import LAYOUTS, ROOT, SHAPES
from .peers import Setting

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5): written to clear_refs, VmHWM starts again from VmRSS


def of_contender(
    workload: str, shape: str, dtype: str, *, quick: bool, comparison: int, contender: int
) -> float:
    """Peak of one contender's call, in MiB; runs in a new process."""
    return _ask("contender", workload, shape, dtype, int(quick), comparison, contender)


def of_many(count: int) -> float:
    """Peak of our `encode` of `count` short texts but for its result, in MiB; a new process."""
    return _ask("flat", count)


def _ask(*arguments: object) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def _contender(arguments: list[str]) -> float:
    workload, shape, dtype = arguments[:3]
    quick, comparison, contender = map(int, arguments[3:])
    sizes = sizes_of(shape, quick=bool(quick))
    chosen = comparisons(workload, SHAPES[shape], dtype, sizes)[comparison]
    peers.be_silent()
    loaded = chosen.contenders[contender](chosen.setting)
    texts = chosen.texts()
    loaded.encode(workloads.queries(2))
    return _growth(lambda: loaded.encode(texts))[0]


def _flat(count: int) -> float:
    encoder = peers.load_encoder(Setting(SHAPES["tiny"], LAYOUTS["gritlm"], "float32"))
    texts = [f"{text} {index}" for index, text in zip(range(count), _repeated(), strict=False)]
    encoder.encode(texts[:100])
    grown, vectors = _growth(lambda: encoder.encode(texts))
    return grown - vectors.nbytes / 2**20


def _repeated() -> Any:
    found = workloads.queries(1000)
    while True:
        yield from found


def _growth(call: Callable[[], Any]) -> tuple[float, np.ndarray]:
    """MiB by which the peak during a call exceeds what was held before it, and its result."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    before = _kibibytes("VmRSS")
    result = call()
    return (_kibibytes("VmHWM") - before) / 1024, result


def _kibibytes(name: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    print(_flat(int(rest[0])) if kind == "flat" else _contender(rest))

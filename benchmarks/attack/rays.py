"""Ray's workers and drivers ended at any moment, and flipped bits of the parts that they wrote."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import flips
from .stores import Done, Store

_TESTS = Path(__file__).parents[2] / "tests"
_ROWS, _BLOCKS = 96, 12


def attack(
    folder: Path, times: int, bits: int, seed: int = 0
) -> Iterator[tuple[str, Counter[str]]]:
    """Kill so many workers and drivers, then flip bits of finished parts; what became of both.

    Args:
        folder: An empty folder.
        times: How many kills, workers and drivers in turn.
        bits: How often bits are flipped.
        seed: Seed of the moments and bits.
    """
    sys.path.insert(0, str(_TESTS))
    from helpers.distributed import read_parts, run, write_tables  # type: ignore[import-not-found]

    ids = write_tables(folder / "data", (_ROWS,))
    found, chosen = Counter[str](), random.Random(seed)
    with _cluster() as address:
        run(folder / "data", folder / "whole")
        wanted = read_parts(folder / "whole")
        number = 0
        while found["kills"] < times:
            number += 1
            output = folder / str(number)
            kept: dict[Path, int] = {}
            for _ in range(3):
                _killed(address, folder / "data", output, chosen, found)
                now = {path: path.stat().st_ino for path in output.glob("part-*")}
                if any(now.get(path) != node for path, node in kept.items()):
                    found["WRONG parts written twice"] += 1
                kept = now
            result = run(folder / "data", output)
            again = any(path.stat().st_ino != node for path, node in kept.items())
            same = read_parts(output).equals(wanted) and result.rows == len(ids)
            found["outputs that went on" if same and not again else "WRONG rows"] += 1
    yield "kills, Ray", found
    store = Store(lambda place, done: _copy(folder / "whole", place, done), _wrong)
    (folder / "bits").mkdir()
    yield "bits, Ray", flips.attack(store, folder / "bits", bits, seed)


def _copy(whole: Path, place: Path, done: Done) -> None:
    place.mkdir()
    for path in whole.glob("part-*"):
        (place / path.name).write_bytes(path.read_bytes())


def _wrong(place: Path) -> str:
    """What differs of parts that a run which goes on takes as finished."""
    from helpers.distributed import read_parts

    from llm_embeddings.distributed.folder import Folder
    from llm_embeddings.distributed.worker import read_report

    rows = sum(read_report(Folder(place), number).rows for number in range(_BLOCKS))
    wanted = read_parts(place.parents[1] / "whole")
    return "" if rows == _ROWS and read_parts(place).equals(wanted) else "rows"


def _killed(
    address: str, data: Path, output: Path, chosen: random.Random, found: Counter[str]
) -> None:
    """Let a driver work, and end it or one of its workers at some moment."""
    command = [sys.executable, "-m", "helpers.distributed", address, str(data), str(output)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])}
    before = len([*output.glob("part-*")])
    with subprocess.Popen(command, env=environment, stdout=-3, stderr=-3) as driver:
        target = min(before + chosen.randrange(1, 4), _BLOCKS)
        while len([*output.glob("part-*")]) < target and driver.poll() is None:
            time.sleep(0.001)
        time.sleep(chosen.uniform(0, 0.05))
        if found["kills"] % 2 and driver.poll() is None:
            found["kills"] += _kill_a_worker()
            time.sleep(chosen.uniform(0, 1))
        if driver.poll() is None:
            driver.kill()
            found["kills"] += 1


def _kill_a_worker() -> bool:
    import psutil

    for process in psutil.Process().children(recursive=True):
        if "MapWorker" in " ".join([process.name(), *process.cmdline()[:1]]):
            process.send_signal(signal.SIGKILL)
            return True
    return False


@contextmanager
def _cluster() -> Iterator[str]:
    import ray

    os.environ |= {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="ray") as temporary:
        context: Any = ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=temporary,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])}},
        )
        try:
            yield context.address_info["gcs_address"]
        finally:
            ray.shutdown()

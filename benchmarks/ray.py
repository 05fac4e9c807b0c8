"""`python -m benchmarks.ray`: embed_dataset against plain processes, and killed many times.

Throughput: two actors with a thread each against two plain processes with a thread each, on the
same documents in blocks of the same size, taking turns; loading counts on neither side. Overhead:
what a worker does to a block besides embedding it. Kills: a worker or the driver at random
moments, every other time while models load; then what the folder holds is compared with a run that
nobody disturbed.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from llm_embeddings.distributed import EmbedBatch, embed_dataset
from llm_embeddings.distributed.folder import Folder
from llm_embeddings.distributed.input.plan import find_files, make_plan
from llm_embeddings.distributed.worker import EmbedBlocks, Work, unit_to

from .measure import LIMIT, LONGEST_WAIT, busy_seconds, wait_until_quiet
from .own import Own
from .workloads import documents

_KILL_BLOCK, _KILL_ROWS = 16, 1600
_WORDS_OF_KILLS = 12


def write_rows(folder: Path, texts: list[str]) -> Path:
    """Texts as Parquet files of several row groups."""
    folder.mkdir()
    half = len(texts) // 2
    for number, part in enumerate((texts[:half], texts[half:])):
        ids = [f"{number}-{row:07d}" for row in range(len(part))]
        table = pa.table({"id": ids, "text": part})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=1000)
    return folder


def read_rows(output: Path) -> tuple[list[str], Any]:
    """Ids and vectors of an output folder."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(output.glob("part-*")))
    return table.column("id").to_pylist(), np.stack(table.column("embedding").to_numpy())


def start_cluster() -> str:
    """A cluster of two CPUs; its address."""
    import ray

    started: Any = ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return str(started.address_info["gcs_address"])


def plain(path: Path, block: int) -> None:
    """A plain process with one thread: says when the model is there, waits for a line, encodes."""
    import torch

    torch.set_num_threads(1)
    embed = EmbedBatch()
    texts = pq.read_table(path).column("text").to_pylist()
    embed.encode(texts[:64])
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    for first in range(0, len(texts), block):
        embed.encode(texts[first : first + block])
    print(len(texts) / (time.perf_counter() - started), flush=True)


def rate_of_plain(data: Path, block: int, processes: int) -> float:
    """Rows per second of plain processes that encode a file each at the same time, summed."""
    paths = [data / f"{number}.parquet" for number in range(processes)]
    command = [sys.executable, "-m", "benchmarks.ray", f"--block={block}", "--plain"]
    begun = [
        subprocess.Popen([*command, str(path)], stdin=-1, stdout=-1, text=True) for path in paths
    ]
    for process in begun:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in begun:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in begun)


def rate_of_actors(data: Path, output: Path, block: int) -> float:
    """Rows per second of two actors while both are at work.

    The first sixth of the parts is left out, since one actor may have loaded before the other, and
    the last two, since one may have had nothing left.
    """
    embed_dataset(data, output=output, rows_per_block=block, concurrency=2, show_progress=False)
    written = sorted((p.stat().st_mtime, p) for p in output.glob("part-*.parquet"))
    counted = written[len(written) // 6 : -2]
    rows = sum(pq.read_metadata(path).num_rows for _, path in counted[1:])
    return float(rows / (counted[-1][0] - counted[0][0]))


def watched(run: Callable[[], float]) -> tuple[float, float]:
    """A rate, and the share of the machine that others took meanwhile."""
    wait_until_quiet(LONGEST_WAIT)
    busy, start = busy_seconds(), time.perf_counter()
    with Own() as own:
        rate = run()
    taken = (time.perf_counter() - start) * (os.cpu_count() or 1)
    return rate, max(busy_seconds() - busy - own.seconds, 0.0) / taken


def throughput(folder: Path, count: int, block: int, repeats: int) -> None:
    """Take turns until each has `repeats` clean samples, or thrice as many were taken."""
    data = write_rows(folder / "throughput", documents(count))
    embed = EmbedBatch()
    tokens = sum(map(len, embed.encoder.tokenize(documents(count)))) / count
    del embed
    start_cluster()
    contenders: dict[str, Callable[[Path], float]] = {
        "one process": lambda output: rate_of_plain(data, block, 1),
        "two processes": lambda output: rate_of_plain(data, block, 2),
        "two actors": lambda output: rate_of_actors(data, output, block),
    }
    clean: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats * 3):
        for name, run in contenders.items():
            if len(clean[name]) == repeats:
                continue
            rate, others = watched(partial(run, folder / f"out-{turn}"))
            if others <= LIMIT:
                clean[name].append(rate)
            print(f"{name}: {rate:.1f} rows/s; others took {others:.0%} of the machine", flush=True)
    print(f"clean samples: { {name: len(rates) for name, rates in clean.items()} }")
    if not all(clean.values()):
        print("the machine was never ours: this says nothing")
        return
    one, two, actors = (statistics.median(rates) for rates in clean.values())
    print(f"{tokens:.0f} tokens a row; one process computes {one * tokens:,.0f} tokens/s")
    print(
        f"two actors: {actors / two:.3f} of two processes, {actors / 2 / one:.3f} of one per core"
    )
    print(f"{(2 / actors - 2 / two) * 1e6:,.0f} microseconds of a core per row more than a process")


def overhead(folder: Path, count: int, block: int) -> None:
    """What a worker does besides embedding, with vectors of zeros."""
    data = write_rows(folder / "overhead", documents(count))
    names = find_files(data)
    plan = make_plan(
        names,
        text_column="text",
        columns=None,
        embedding_column="embedding",
        rows_per_block=block,
        skip=False,
    )
    facts = EmbedBatch().facts
    work = Work(str(folder / "zeros"), plan.schema, "text", None, "embedding", False, facts)
    worker = EmbedBlocks(work, {}, lambda number: 1)
    worker._embed.encode = lambda texts: np.zeros(  # type: ignore[method-assign]
        (len(texts), facts.dimension), np.float32
    )
    units = plan.units((), 1)
    started, cpu = time.perf_counter(), time.process_time()
    for unit in units:
        list(worker({"unit": [unit_to(unit)]}))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"a worker without its model: {wall / count * 1e6:.0f} microseconds per row "
        f"({cpu / count * 1e6:.0f} of CPU), in blocks of {block:,} rows of {facts.dimension} "
        "dimensions: reading, counting tokens, writing, syncing"
    )


def drive(address: str, data: Path, output: Path) -> None:
    """One driver."""
    embed_dataset(
        data,
        output=output,
        rows_per_block=_KILL_BLOCK,
        dtype="float32",
        address=address or None,
        show_progress=False,
    )


def parts_there(output: Path) -> int:
    """Finished parts."""
    return len(Folder(output).parts())


def kill_worker() -> bool:
    """Kill a random actor of this process's cluster; False if there is none."""
    children = psutil.Process().children(recursive=True)
    workers = [process for process in children if "MapWorker" in process.name()]
    if workers:
        random.choice(workers).send_signal(signal.SIGKILL)
    return bool(workers)


def kill_once(address: str, data: Path, output: Path, what: str, wanted: int) -> str:
    """Start a driver, kill it or a worker once so many parts are there; says what happened.

    A worker's death is left to the driver, which is killed later by another call.
    """
    command = [sys.executable, "-m", "benchmarks.ray", "--drive", address, str(data), str(output)]
    driver = subprocess.Popen(command, stdout=-3, stderr=-3)
    while parts_there(output) < wanted:
        if driver.poll() is not None:
            raise RuntimeError(f"the driver ended with {driver.returncode}")
        time.sleep(0.002)
    if not wanted:
        time.sleep(random.uniform(1, 12))  # while Ray connects and models load
    there = parts_there(output)
    if what == "worker":
        while not kill_worker():
            assert driver.poll() is None, "the driver ended before a worker could be killed"
            time.sleep(0.01)
        driver.wait()
        assert driver.returncode == 0, "the driver did not survive a worker's death"
    else:
        driver.kill()
        driver.wait()
    return f"{what} killed at {there} parts"


def kills(folder: Path, count: int) -> None:
    """Kill `count` times, in rounds of a fresh folder each: a driver, then a worker."""
    texts = documents(_KILL_ROWS)
    texts = [f"{row} {' '.join(text.split()[:_WORDS_OF_KILLS])}" for row, text in enumerate(texts)]
    data = write_rows(folder / "kills", texts)
    address, blocks = start_cluster(), -(-_KILL_ROWS // _KILL_BLOCK)
    drive("", data, folder / "whole")
    ids, vectors = read_rows(folder / "whole")
    assert len(set(ids)) == len(ids) == _KILL_ROWS
    worst = 0.0
    for turn in range(0, count, 2):
        output = folder / f"killed-{turn}"
        first, second = sorted(random.sample(range(blocks * 9 // 10), 2))
        told = [kill_once(address, data, output, "driver", 0 if turn % 4 else first)]
        before = {path: path.stat().st_ino for path in output.glob("part-*")}
        if turn + 1 < count:
            wanted = max(second, len(before))
            told.append(kill_once(address, data, output, "worker", wanted))
        drive("", data, output)
        assert {path: path.stat().st_ino for path in before} == before, "a block was made again"
        found, near = read_rows(output)
        assert found == ids, "rows are missing, twice or out of order"
        worst = max(worst, float(np.abs(near - vectors).max()))
        print(f"{'; '.join(told)}; {len(found):,} rows, each once", flush=True)
    print(f"{count} kills: all rows once, vectors within {worst:.1e} of an undisturbed run")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="how often to kill; nothing else runs")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--block", type=int, default=128, help="rows per block")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain:
        plain(given.plain, given.block)
    elif given.drive:
        address, data, output = given.drive
        drive(address, Path(data), Path(output))
    else:
        with tempfile.TemporaryDirectory() as folder:
            if given.kills:
                kills(Path(folder), given.kills)
                return
            overhead(Path(folder), 8192, 8192)
            throughput(Path(folder), given.rows, given.block, given.repeats)


if __name__ == "__main__":
    main()

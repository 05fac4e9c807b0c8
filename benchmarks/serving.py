"""The server under load, against `encode` on the same texts.

`python -m benchmarks.serving`: 64 clients for a minute, each with one request after the other, of a
query, 8 or 32 documents. The clients have the last core for themselves; the server has all others,
and so has `encode`, which takes all texts in one call before and after. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .measure import busy_seconds, process_seconds
from .models import ROOT
from .workloads import documents, queries

_SIZES = {1: 600, 8: 150, 32: 50}  # texts in a request: how many such requests there are
_NAME = "benchmark"
_EVERY = 5.0  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        texts: In the request.
        seconds: From the first byte sent to the last one read.
        status: Of HTTP.
        tokens: That the server counted.
    """

    texts: int
    seconds: float
    status: int
    tokens: int


def batches() -> list[list[str]]:
    """The texts of all requests, mixed; no text twice."""
    count = sum(size * number for size, number in _SIZES.items() if size > 1)
    singles, rest = iter(queries(_SIZES[1])), iter(documents(count))
    found = [
        list(itertools.islice(singles if size == 1 else rest, size))
        for size, number in _SIZES.items()
        for _ in range(number)
    ]
    random.Random(4).shuffle(found)
    return found


# -- the contenders, each in a process of its own --------------------------------------------------


def load(options: argparse.Namespace) -> Any:
    """The encoder."""
    from transformers.utils import logging

    from llm_embeddings import Encoder

    logging.disable_progress_bar()
    return Encoder.from_pretrained(options.model, dtype=options.dtype)


def run_encode(options: argparse.Namespace) -> None:
    """Print tokens per second, and per second of CPU time, of one call with all texts."""
    encoder = load(options)
    texts = [text for batch in batches() for text in batch]
    tokens = sum(map(len, encoder.tokenize(texts)))
    encoder.encode(texts[:200])
    cpu, start = time.process_time(), time.perf_counter()
    encoder.encode(texts)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"speed": tokens / seconds, "per_cpu": tokens / cpu}))


def run_server(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    from llm_embeddings.serving import serve

    serve(partial(load, options), port=options.port, name=_NAME)


def run_clients(options: argparse.Namespace) -> None:
    """Send requests for some time; print all answers."""
    bodies = []
    for batch in batches():
        fields = {"model": _NAME, "input": batch, "encoding_format": options.encoding}
        body = json.dumps(fields).encode()
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nHost: benchmark\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        bodies.append((len(batch), head.encode() + body))
    start = time.perf_counter()
    answers = asyncio.run(_clients(options, itertools.cycle(bodies)))
    seconds = time.perf_counter() - start
    rows = [(one.texts, one.seconds, one.status, one.tokens) for one in answers]
    print(json.dumps({"seconds": seconds, "answers": rows}))


async def _clients(
    options: argparse.Namespace, bodies: Iterator[tuple[int, bytes]]
) -> list[Answer]:
    answers: list[Answer] = []
    deadline = time.perf_counter() + options.seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", options.port)
        while time.perf_counter() < deadline:
            texts, body = next(bodies)
            begun = time.perf_counter()
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None
            rest = await reader.readexactly(int(length[1]))
            seconds = time.perf_counter() - begun
            tokens = re.search(rb'"total_tokens":(\d+)', rest[-60:])
            answers.append(Answer(texts, seconds, int(head[9:12]), int(tokens[1]) if tokens else 0))
            wait = re.search(rb"(?i)retry-after: (\d+)", head)
            if wait is not None:
                await asyncio.sleep(int(wait[1]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(options.clients)))
    return answers


# -- the run ---------------------------------------------------------------------------------------


def child(cores: set[int], part: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """A part of this file in a process on some cores."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving", "--part", part, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if part == "server" else None,
        text=True,
        preexec_fn=partial(os.sched_setaffinity, 0, cores),  # before torch counts the cores
    )


def result_of(process: subprocess.Popen[str]) -> Any:
    """What a part printed."""
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"a part of the benchmark failed with code {process.returncode}")
    return json.loads(output.splitlines()[-1])


def wait_until_ready(port: int, server: subprocess.Popen[str]) -> None:
    """Return when the server takes requests."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz")
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    raise SystemExit("the server has ended")


def under_load(
    server: subprocess.Popen[str], clients: subprocess.Popen[str]
) -> tuple[Any, list[float], float, float]:
    """What the clients saw; the server's MiB from time to time; its CPU seconds; others' share."""
    memory: list[float] = []
    cpu, busy, start = process_seconds(server.pid), busy_seconds(), time.perf_counter()
    while clients.poll() is None:
        memory.append(_resident(server.pid))
        try:
            clients.wait(_EVERY)
        except subprocess.TimeoutExpired:
            theirs = process_seconds(clients.pid)
    cpu, busy = process_seconds(server.pid) - cpu, busy_seconds() - busy
    others = (busy - cpu - theirs) / ((time.perf_counter() - start) * (os.cpu_count() or 1))
    return result_of(clients), [*memory, _resident(server.pid)], cpu, others


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def report(
    found: Any, encodes: list[Any], memory: list[float], cpu: float, others: float, cores: int
) -> None:
    """Print what is to be known."""
    answers = [Answer(*row) for row in found["answers"]]
    tokens = sum(one.tokens for one in answers)
    speed = statistics.mean(one["speed"] for one in encodes)
    per_cpu = statistics.mean(one["per_cpu"] for one in encodes)
    print("| texts | requests | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|")
    for texts in (*_SIZES, None):
        seconds = [a.seconds for a in answers if a.status == 200 and texts in (a.texts, None)]
        cuts = statistics.quantiles(seconds, n=100)
        values = " | ".join(f"{1000 * cuts[place]:.0f}" for place in (49, 94, 98))
        print(f"| {texts or 'all'} | {len(seconds)} | {values} |")
    print(f"\nstatus: {dict(Counter(one.status for one in answers))}")
    print(f"server: {tokens / found['seconds']:,.0f} tokens/s on {cores} core(s)")
    print(f"encode: {', '.join(format(one['speed'], ',.0f') for one in encodes)} tokens/s")
    print(f"ratio: {tokens / found['seconds'] / speed:.3f} by the clock")
    print(f"ratio: {tokens / cpu / per_cpu:.3f} by CPU time")
    print(f"memory MiB: {memory[1]:.0f} after {_EVERY:g} s, {memory[-1]:.0f} at the end")
    print(f"memory MiB, each {_EVERY:g} s: {', '.join(f'{value:.0f}' for value in memory)}")
    print(f"others took {100 * max(others, 0):.0f} % of the machine meanwhile")


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=["server", "clients", "encode"], help=argparse.SUPPRESS)
    parser.add_argument("--model", help="default: the bundled one")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--encoding", choices=["base64", "float"], default="base64")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    parts = {"server": run_server, "clients": run_clients, "encode": run_encode}
    if options.part is not None:
        parts[options.part](options)
        return
    *servers, last = sorted(os.sched_getaffinity(0))
    own, arguments = set(servers), sys.argv[1:]
    encodes = [result_of(child(own, "encode", arguments))]
    server = child(own, "server", arguments)
    try:
        wait_until_ready(options.port, server)
        seen = under_load(server, child({last}, "clients", arguments))
    finally:
        server.terminate()
        server.wait()
    encodes.append(result_of(child(own, "encode", arguments)))
    report(seen[0], encodes, *seen[1:], cores=len(own))


if __name__ == "__main__":
    main()

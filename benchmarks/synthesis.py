"""`python -m benchmarks.synthesis`: a run of synthesize against an endpoint that fails as they do.

The endpoint is a LangChain chat model with a latency, which times out, is overloaded, limits the
rate, and refuses, cuts off or garbles replies (tests/helpers/synthesis.py). Half of the run is
made, the process killed, and the rest made by another: what the journal then holds is checked, and
the time compared with that of an endpoint that is never waited for in vain.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from llm_embeddings.synthesis.calls.asking import Manners
from llm_embeddings.synthesis.calls.generators import ChatGenerator
from llm_embeddings.synthesis.calls.journal import EXAMPLE, Journal
from llm_embeddings.synthesis.filters.chain import Filters, apply_filters
from llm_embeddings.synthesis.filters.report import rejected_by
from llm_embeddings.synthesis.placeholders import Sampler
from llm_embeddings.synthesis.rows import rows_of
from llm_embeddings.synthesis.run import Plan, Summary, generate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.synthesis import LASTING, FlakyChat  # type: ignore[import-not-found]

_TIMEOUT = 2.0


def run(directory: Path, given: argparse.Namespace) -> tuple[Summary, FlakyChat, float]:
    """One part of the run; the process kills itself where it is told to."""
    chat = FlakyChat(latency=given.latency)
    # One language: the classifier has no quarrel with the endpoint's English.
    sampler = Sampler(0, groups={"short-long": 1, "long-short": 1}, languages={"en": 1.0})
    plan = Plan(examples=given.examples, sampler=sampler)
    manners = Manners(concurrency=given.concurrency, timeout=_TIMEOUT, backoff=0.1)

    def watch(journal: Journal) -> None:
        if given.kill_after and journal.count(EXAMPLE) >= given.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    started = time.perf_counter()
    generator = ChatGenerator(chat, name="fake:flaky")
    summary = generate(directory, plan, generator, manners=manners, watch=watch)
    return summary, chat, time.perf_counter() - started


def main() -> None:
    """Kill, go on, check, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-after", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.directory:
        run(given.directory, given)
        return
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        options = ["examples", "latency", "concurrency"]
        command = [sys.executable, "-m", "benchmarks.synthesis", "--directory", str(directory)]
        command += [f"--{name}={getattr(given, name)}" for name in options]
        started = time.perf_counter()
        killed = subprocess.run([*command, f"--kill-after={given.examples // 2}"])
        assert killed.returncode == -signal.SIGKILL, killed
        print(f"killed after {time.perf_counter() - started:.1f} s")
        busy = time.process_time()
        summary, chat, seconds = run(directory, given)
        busy = time.process_time() - busy
        _check(directory, summary, chat)
        _report(summary, chat, seconds, given)
        per_call = 1000 * busy / chat.prompts.total()
        print(f"CPU of ours, LangChain and the endpoint: {per_call:.1f} ms per call")
        started = time.perf_counter()
        found = apply_filters(rows_of(directory), Filters())
        print(f"filters: {rejected_by(found)}, kept {len(found.kept):,}", end="")
        print(f" ({time.perf_counter() - started:.1f} s)")
        assert summary.made == len(found.kept) + len(found.rejected)


def _check(directory: Path, summary: Summary, chat: FlakyChat) -> None:
    numbers = [row.number for row in rows_of(directory)]
    lines = (directory / "journal.jsonl").read_text(encoding="utf-8").count('"kind": "example"')
    assert len(set(numbers)) == len(numbers) == summary.made
    assert lines == summary.planned == summary.made + sum(summary.failed.values())
    assert not summary.untried
    assert set(summary.failed) <= set(LASTING)
    print(f"{summary.planned:,} planned = {summary.made:,} made + {dict(summary.failed)}")
    fates = Counter(chat.fate(prompt) or "well" for prompt in chat.prompts)
    print(f"what the endpoint did in the second part: {dict(fates)}")


def _report(summary: Summary, chat: FlakyChat, seconds: float, given: argparse.Namespace) -> None:
    calls = chat.prompts.total()
    late = sum(chat.fate(prompt) == "timeout" for prompt in chat.prompts)
    least = (calls * given.latency + late * _TIMEOUT) / given.concurrency
    print(
        f"second part: {calls:,} calls in {seconds:.1f} s, {calls / seconds:.0f}/s; the endpoint "
        f"alone takes {least:.1f} s ({least / seconds:.0%})"
    )


if __name__ == "__main__":
    main()

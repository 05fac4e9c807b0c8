"""Two states of this package on the same workloads in one run: is a change as fast as before?

`python -m benchmarks.states --against PATH` takes the checkout at PATH for the earlier state. Each
state runs in a process of its own, which loads once and waits; the two are asked in turn, so that
what else the machine does falls on both. Figures are seconds, medians of `--repeats` rounds, and
the ratio earlier / present, round by round: above 1 the present state is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import workloads
from .models import INSTRUCTION, LAYOUTS, SHAPES, checkpoint

ROOT = Path(__file__).parents[1]
_PLACES = ("src", "integrations/langchain/src")
_WORKLOADS = {
    "W1 512 queries": ("e5-mistral", "queries"),
    "W2 256 documents, causal": ("e5-mistral", "documents"),
    "W2 256 documents, both ways": ("gritlm", "documents"),
    "W4 64 coroutines through LangChain": ("e5-mistral", "coroutines"),
    "W5 32 single queries": ("e5-mistral", "single"),
}
# Public names only: it must run on either state.
_CHILD = """
import asyncio, json, resource, sys, time
from llm_embeddings import Encoder, get_recipe
from langchain_llm_embeddings import LLMEmbeddings

model, name, instruction, dtype, path = sys.argv[1:]
recipe = get_recipe(name).replace(instruction=instruction)
begun = time.perf_counter()
encoder = Encoder.from_pretrained(model, recipe=recipe, dtype=dtype)
loaded = time.perf_counter() - begun
embeddings = LLMEmbeddings(encoder=encoder)
texts = json.load(open(path))

async def coroutines(queries):
    await asyncio.gather(*map(embeddings.aembed_query, queries))

def single(queries):
    for query in queries:
        encoder.encode_query(query)

runs = {
    "queries": encoder.encode_query,
    "documents": encoder.encode_document,
    "coroutines": lambda queries: asyncio.run(coroutines(queries)),
    "single": single,
}
print(json.dumps(loaded), flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    runs[line.strip()](texts[line.strip()])
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([seconds, peak]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class State:
    """A process with one state of the package.

    Attributes:
        process: Takes the name of a workload a line and answers with seconds and peak KiB.
        loaded: Seconds of `from_pretrained`.
    """

    process: subprocess.Popen[str]
    loaded: float

    def run(self, workload: str) -> tuple[float, int]:
        """Seconds of a workload, and the peak of the process's memory so far in KiB."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{workload}\n")
        self.process.stdin.flush()
        seconds, peak = json.loads(self.process.stdout.readline())
        return float(seconds), int(peak)


@contextmanager
def _opened(checkout: Path, layout: str, shape: str, dtype: str, texts: Path) -> Iterator[State]:
    recipe = LAYOUTS[layout].recipe_name
    model = checkpoint(SHAPES[shape], LAYOUTS[layout])
    path = os.pathsep.join(str(checkout / place) for place in _PLACES)
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(model), recipe, INSTRUCTION, dtype, str(texts)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
    )
    try:
        assert process.stdout is not None
        yield State(process, json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, required=True, help="checkout of the earlier state")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    texts = ROOT / ".benchmarks" / "states.json"
    texts.parent.mkdir(exist_ok=True)
    queries = workloads.queries(512)
    made = {"queries": queries, "documents": workloads.documents(256)}
    made |= {"coroutines": queries[:64], "single": queries[:32]}
    texts.write_text(json.dumps(made), encoding="utf-8")
    options = given.shape, given.dtype, texts
    for layout in dict.fromkeys(layout for layout, _ in _WORKLOADS.values()):
        with (
            _opened(given.against, layout, *options) as earlier,
            _opened(ROOT, layout, *options) as present,
        ):
            print(f"{layout}: load {earlier.loaded:.2f} s, {present.loaded:.2f} s", flush=True)
            for name, (where, workload) in _WORKLOADS.items():
                if where == layout:
                    _compare(name, workload, earlier, present, given.repeats)


def _compare(name: str, workload: str, earlier: State, present: State, repeats: int) -> None:
    for state in (earlier, present):
        state.run(workload)  # warm
    rounds = [(earlier.run(workload), present.run(workload)) for _ in range(repeats)]
    before, now = ([side[i][0] for side in rounds] for i in (0, 1))
    ratios = sorted(a / b for a, b in zip(before, now, strict=True))
    peaks = rounds[-1][0][1] // 1024, rounds[-1][1][1] // 1024
    print(
        f"  {name}: {statistics.median(before):.3f} s, {statistics.median(now):.3f} s, ratio "
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}); peak so far "
        f"{peaks[0]}, {peaks[1]} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()

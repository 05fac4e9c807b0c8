"""`python -m benchmarks.run`: vectors first, then times, on one machine in one run."""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial

from . import measure, memory, peers, report
from .comparisons import WORKLOADS, Comparison, comparisons, sizes_of
from .contest import LOWEST_COSINE, Patience, attempt, compare
from .models import SHAPES
from .overhead import per_call
from .report import Row, Run
from .work import GemmPeak

EXTRAS = ("overhead", "flat")  # of ours alone, on a tiny model
# Model, dtype, workloads: what is run when nothing is chosen.
_ALL = ("W1", "W2", "W3", "W4", "W5", "defaults", "both", "int8", "W2-many", *EXTRAS)
DEFAULT_PLAN = (
    ("small", "bfloat16", _ALL),
    ("small", "float32", ("W1", "W2")),
    ("medium", "bfloat16", ("W1", "W2")),
)
_FLAT_COUNTS = (1_000, 10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Options:
    """Of the command line.

    Attributes:
        plan: Model, dtype and workloads, in order.
        repeats: Clean samples wanted of each contender.
        quick: Few texts, and no waiting for a quiet machine.
        memory: Whether peak memory is measured.
        part: What is run, for the names of the results; "" = everything.
    """

    plan: tuple[tuple[str, str, tuple[str, ...]], ...]
    repeats: int
    quick: bool
    memory: bool
    part: str


@dataclass(frozen=True, slots=True)
class Step:
    """One comparison of a plan: the `number`th of a workload."""

    shape: str
    dtype: str
    workload: str
    number: int
    comparison: Comparison

    def __str__(self) -> str:
        setting = self.comparison.setting
        dtype = setting.dtype or "default"
        return f"{self.comparison.name} | {self.shape} {setting.layout.name} {dtype}"


def steps(options: Options) -> Iterator[Step]:
    """All comparisons of the plan."""
    for shape, dtype, names in options.plan:
        sizes = sizes_of(shape, quick=options.quick)
        for name in names:
            if name in WORKLOADS:
                for number, found in enumerate(comparisons(name, SHAPES[shape], dtype, sizes)):
                    yield Step(shape, dtype, name, number, found)


def run_plan(options: Options) -> Run:
    """Run all; what fails is named in the result and does not stop the rest."""
    run = Run.start(options.repeats, options.part)
    peaks: dict[str, GemmPeak] = {}
    for step in steps(options):
        dtype = step.comparison.setting.dtype or step.dtype
        key = f"{step.shape} {dtype}"
        peak = peaks.setdefault(key, GemmPeak(SHAPES[step.shape], dtype))
        attempt(str(step), run, partial(run_step, step, options, peak))
        run.peaks[key] = peak.value
        report.write(run)
        gc.collect()
    names = {name for _, _, names in options.plan for name in names}
    extras = {"overhead": _overhead, "flat": _flat}
    for name in EXTRAS:
        if name in names:
            attempt(name, run, partial(extras[name], run))
    return run


def _overhead(run: Run) -> list[Row]:
    run.overhead_ms = per_call(run.repeats)
    return []


def _flat(run: Run) -> list[Row]:
    run.flat_mib = {count: memory.of_many(count) for count in _FLAT_COUNTS}
    return []


def run_step(step: Step, options: Options, peak: GemmPeak) -> list[Row]:
    """Vectors, times and, where it is of interest, peak memory of each contender."""
    patience = Patience(options.repeats, 0.0 if options.quick else measure.LONGEST_WAIT)
    rows = compare(step.comparison, peak, patience)
    if not (options.memory and step.comparison.memory):
        return rows
    for contender, row in enumerate(rows):
        row.peak_mib = memory.of_contender(
            step.workload,
            step.shape,
            step.dtype,
            quick=options.quick,
            comparison=step.number,
            contender=contender,
        )
    return rows


def parse() -> Options:
    """The command line."""
    names = (*WORKLOADS, *EXTRAS)
    parser = argparse.ArgumentParser(description=__doc__)
    for option, known in (("workloads", names), ("models", SHAPES), ("dtype", LOWEST_COSINE)):
        parser.add_argument(
            f"--{option}", type=_some_of(known), default=[], help=f"some of {','.join(known)}"
        )
    parser.add_argument("--repeats", type=int, default=3, help="clean samples per contender")
    parser.add_argument("--quick", action="store_true", help="few texts: tries the harness out")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    given = parser.parse_args()
    chosen = [*given.models, *given.dtype, *given.workloads]
    workloads = tuple(given.workloads or DEFAULT_PLAN[0][2])
    product = itertools.product(given.models or ["small"], given.dtype or ["bfloat16"], [workloads])
    return Options(
        plan=tuple(product) if chosen else DEFAULT_PLAN,
        repeats=given.repeats,
        quick=given.quick,
        memory=not given.no_memory,
        part="-".join([*chosen, *(["quick"] if given.quick else [])]),
    )


def _some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    def split(value: str) -> list[str]:
        names = value.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown)}; known: {', '.join(known)}"
            )
        return names

    return split


def main() -> int:
    """Run, write the report; 1 if a comparison failed."""
    options = parse()
    peers.be_silent()
    run = run_plan(options)
    return report.publish(run)


if __name__ == "__main__":
    sys.exit(main())

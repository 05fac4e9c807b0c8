"""The results as JSON, as a Markdown table and as a plot."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .measure import Timing
from .models import ROOT
from .peers import require

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = (
    "llm-embeddings",
    "torch",
    "transformers",
    "sentence-transformers",
    "langchain-huggingface",
    "llama-index-embeddings-huggingface",
)
_HEADER = (
    "| workload | model | contender | tokens/s | its time / ours | must, aim "
    "| FLOP rate / GEMM peak | computed / real tokens | peak MiB | lowest cosine | clean |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|\n"
)


@dataclass(slots=True)
class Row:
    """One contender of one comparison.

    Attributes:
        comparison: Its name.
        shape: Of the model.
        layout: Its family.
        dtype: Of the weights; "default" = each contender's own.
        contender: Who.
        texts: How many.
        tokens: Real ones, those of a reused prompt included.
        timing: All samples.
        ratio: Its seconds over ours.
        clean: Clean samples behind the ratio, on the side that has fewer.
        must: The ratio that is required, if any.
        aim: The ratio that is hoped for.
        flops_per_second: Of the work without padding and without anything skipped.
        computed: Tokens that went through the first layer over real ones; None = not counted.
        cosine: Lowest with our vectors.
        peak_mib: Memory that the call added at its peak; None = not measured.
    """

    comparison: str
    shape: str
    layout: str
    dtype: str
    contender: str
    texts: int
    tokens: int
    timing: Timing
    ratio: float
    clean: int
    must: float | None
    aim: float | None
    flops_per_second: float
    computed: float | None
    cosine: float
    peak_mib: float | None = None


@dataclass(slots=True)
class Run:
    """Everything one run found out.

    Attributes:
        date: When, in UTC.
        machine: What the numbers depend on.
        repeats: Clean samples wanted.
        part: What of all comparisons was run; "" = all.
        rows: All contenders of all comparisons.
        peaks: FLOP/s of the fastest matrix product, by model and dtype.
        failures: Comparisons that were not timed, and why.
        overhead_ms: What the worker adds to a call.
        flat_mib: Peak memory without the result, by number of texts.
        notes: Anything else, a line each.
    """

    date: str
    machine: dict[str, Any]
    repeats: int
    part: str
    rows: list[Row] = field(default_factory=list)
    peaks: dict[str, float | None] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    overhead_ms: float | None = None
    flat_mib: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, repeats: int, part: str) -> Run:
        """An empty run on this machine, now."""
        return cls(datetime.now(UTC).strftime("%Y-%m-%d"), machine(), repeats, part)

    @property
    def name(self) -> str:
        """Of its files."""
        slug = re.sub(r"[^a-z0-9]+", "-", str(self.machine["processor"]).lower()).strip("-")
        return "-".join(filter(None, (self.date, slug, self.part)))


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"model name\s*: (.+)", info)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "processor": model.group(1) if model else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capabilities": sorted(name for name, has in _capabilities().items() if has is True),
        "commit": commit.stdout.strip() or "unknown",
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _capabilities() -> dict[str, Any]:
    import torch

    return dict(torch.cpu.get_capabilities())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def line(row: Row) -> str:
    """A row for the terminal."""
    seconds = row.timing.seconds
    return (
        f"    {row.contender:36} {seconds:9.3f} s {row.tokens / seconds:9.0f} tokens/s  "
        f"ratio {row.ratio:5.2f}  clean {row.clean}"
    )


def publish(run: Run) -> int:
    """Write table, samples and plot, name what failed; an exit status."""
    path = write(run)
    plot(run, path.with_suffix(".png"))
    print(f"written: {path}")
    print(*run.failures, sep="\n", file=sys.stderr)
    return 1 if run.failures else 0


def write(run: Run) -> Path:
    """Write the JSON and the Markdown; return the latter's path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{run.name}.md"
    path.with_suffix(".json").write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    path.write_text(markdown(run), encoding="utf-8")
    return path


def markdown(run: Run) -> str:
    """Tables of a run."""
    host = run.machine
    libraries = ", ".join(f"{name} {found}" for name, found in host["libraries"].items() if found)
    text = (
        f"{run.date}, {host['processor']}, {host['cores']} cores, {host['threads']} threads, "
        f"commit {host['commit']}; {libraries}. Medians of up to {run.repeats} clean samples.\n\n"
    )
    text += _HEADER + "".join(_table_row(run, row) for row in run.rows) + "\n"
    for name, peak in run.peaks.items():
        shown = "no clean sample" if peak is None else f"{peak / 1e9:.0f} GFLOP/s"
        text += f"- GEMM peak, {name}: {shown}\n"
    if run.overhead_ms is not None:
        text += f"- What the worker adds to a call (goal: under 0.3 ms): {run.overhead_ms:.2f} ms\n"
    for count, mib in run.flat_mib.items():
        text += f"- Peak memory of {count:,} texts, without the result: {mib:.0f} MiB\n"
    for note in run.notes:
        text += f"- {note}\n"
    for failure in run.failures:
        text += f"- Failed: {failure}\n"
    return text


def _table_row(run: Run, row: Row) -> str:
    peak = run.peaks.get(f"{row.shape} {row.dtype}")
    cells = [
        row.comparison,
        f"{row.shape} {row.layout} {row.dtype}",
        row.contender,
        f"{row.tokens / row.timing.seconds:,.0f}",
        f"{row.ratio:.2f}" + ("" if row.clean else " (contended)"),
        _goal(row),
        f"{row.flops_per_second / peak:.0%}" if peak else "",
        "" if row.computed is None else f"{row.computed:.2f}",
        "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
        f"{row.cosine:.6f}",
        f"{len(row.timing.clean)} of {len(row.timing.samples)}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _goal(row: Row) -> str:
    if row.must is None:
        return ""
    met = "contended" if not row.clean else "met" if row.ratio >= row.must else "missed"
    return f"{row.must}, {row.aim}: {met}"


def plot(run: Run, path: Path) -> None:
    """Bars of every peer's time over ours, with a mark where the goal is."""
    pyplot = require("matplotlib.pyplot")
    rows = [row for row in run.rows if row.ratio != 1][::-1]
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(10, 1.2 + 0.28 * len(rows)), layout="constrained")
    places = range(len(rows))
    axes.barh(
        places,
        [row.ratio for row in rows],
        color=["0.75" if not row.clean else "C0" for row in rows],
    )
    for place, row in zip(places, rows, strict=True):
        axes.text(row.ratio, place, f" {row.ratio:.2f}", va="center", fontsize=8)
        if row.must is not None:
            axes.plot([row.must, row.must], [place - 0.4, place + 0.4], color="black")
    labels = [
        f"{row.comparison}, {row.shape} {row.layout} {row.dtype}: {row.contender}" for row in rows
    ]
    axes.set_yticks(places, labels, fontsize=8)
    axes.margins(x=0.08)
    axes.axvline(1, color="0.5", linewidth=0.8)
    axes.set_xlabel("its time / ours (black: the least that is required; grey: contended)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

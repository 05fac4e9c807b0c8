"""The report of a run: what was made and filtered, in numbers, with samples to read."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from ..rows import SyntheticRow
from ..run import Summary
from .chain import Filtered

_KEPT, _REJECTED, _SHOWN = 12, 3, 500


def write_report(directory: Path, summary: Summary, filtered: Filtered, *, seed: int = 0) -> None:
    """Write report.json, the counts, and report.md, the counts with samples.

    Args:
        directory: The run's directory.
        summary: What the run has made.
        filtered: What the filters made of its rows.
        seed: Seed that chooses the samples.
    """
    numbers = {
        "run": asdict(summary),
        "filters": rejected_by(filtered),
        "kept": dict(Counter(row.group for row in filtered.kept)),
    }
    text = json.dumps(numbers, indent=2, ensure_ascii=False) + "\n"
    (directory / "report.json").write_text(text, encoding="utf-8")
    page = "\n".join([*_counts(summary, filtered), *_samples(filtered, random.Random(seed))])
    (directory / "report.md").write_text(page + "\n", encoding="utf-8")


def rejected_by(filtered: Filtered) -> dict[str, int]:
    """How many rows each filter rejected, of those that passed the filters before it."""
    counts = Counter(rejected.filter for rejected in filtered.rejected)
    return {name: counts[name] for name in filtered.filters}


def _counts(summary: Summary, filtered: Filtered) -> list[str]:
    """The lines of the table of counts, in Markdown."""
    failed = [f"| failed: {reason} | {count:,} |" for reason, count in summary.failed.items()]
    refused = [f"| filter: {name} | {count:,} |" for name, count in rejected_by(filtered).items()]
    groups = Counter(row.group for row in filtered.kept)
    kept = ", ".join(f"{group} {count:,}" for group, count in groups.items()) or "none"
    stopped = [f"Stopped before its end: {summary.stopped}.", ""] if summary.stopped else []
    return [
        "# What was made",
        "",
        *stopped,
        "| examples | |",
        "|---|---|",
        f"| planned | {summary.planned:,} |",
        f"| not tried yet | {summary.untried:,} |",
        *failed,
        f"| made | {summary.made:,} |",
        *refused,
        f"| **kept** | **{len(filtered.kept):,}** |",
        "",
        f"Kept by group: {kept}. Tokens: {summary.tokens_in:,} in, {summary.tokens_out:,} out; "
        f"cost {summary.cost:,.2f} by the prices given.",
        "",
    ]


def _samples(filtered: Filtered, rng: random.Random) -> list[str]:
    """The lines of the samples: of rows kept, and of rows rejected by each filter."""
    lines = ["# Kept: samples", ""]
    for row in rng.sample(filtered.kept, min(_KEPT, len(filtered.kept))):
        lines += _sample(row)
    for name in filtered.filters:
        refused = [rejected for rejected in filtered.rejected if rejected.filter == name]
        if not refused:
            continue
        lines += [f"# Refused by the filter {name}: samples", ""]
        for rejected in rng.sample(refused, min(_REJECTED, len(refused))):
            lines += _sample(rejected.row, rejected.reason)
    return lines


def _sample(row: SyntheticRow, reason: str = "") -> list[str]:
    """A row in Markdown; its texts are indented, so that nothing in them is markup."""
    texts = {
        "instruction": row.instruction,
        "query": row.query,
        "positive": row.positive,
        "negative": row.negative,
    }
    lines = [f"## {row.number}, {row.group}" + (f": {reason}" if reason else ""), ""]
    for name, text in texts.items():
        if text:
            cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
            lines += [f"{name}:", "", *(f"    {line}" for line in cut.splitlines()), ""]
    return lines

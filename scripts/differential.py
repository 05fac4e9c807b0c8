"""Random checkpoints against the stock libraries: `python -m scripts.differential FIRST LAST`.

`--only WORD` leaves out plans in whose description the word does not stand. Prints each checkpoint
whose vectors differ, and how many were refused for which reason. Ends with 1 if any differs.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import re
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Compare the checkpoints of a range of seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--only", default="", help="a word of the description")
    parser.add_argument("--verbose", action="store_true", help="print every checkpoint")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    checkpoints: Any = importlib.import_module("helpers.random_checkpoints")
    differential: Any = importlib.import_module("helpers.differential")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for seed in range(options.first, options.last):
        plan = checkpoints.plan(seed)
        if options.only not in str(plan):
            continue
        with tempfile.TemporaryDirectory() as work:
            again = Path(work) / "loaded-again" if seed % 5 == 0 else None
            try:
                path = checkpoints.write(plan, Path(work))
            except Exception as error:
                outcome = differential.Outcome("not made", f"{type(error).__name__}: {error}")
            else:
                outcome = differential.compare(plan, path, save_to=again)
        groups[outcome.verdict, _kind(outcome.reason)].append(seed)
        if outcome.verdict == "WRONG" or options.verbose:
            print(f"{outcome.verdict}: {plan}: {outcome.reason}", flush=True)
    return _report(groups)


def _kind(reason: str) -> str:
    """A reason without what differs from checkpoint to checkpoint."""
    return re.sub(r"\d[\d.e+-]*", "N", reason)[:150]


def _report(groups: dict[tuple[str, str], list[int]]) -> int:
    counts: Counter[str] = Counter()
    for (verdict, reason), seeds in sorted(groups.items(), key=lambda item: -len(item[1])):
        counts[verdict] += len(seeds)
        if reason:
            print(f"{len(seeds):5} {verdict}: {reason} (seeds {', '.join(map(str, seeds[:4]))})")
    judged = counts["equal"] + counts["refused"] + counts["WRONG"]
    print(dict(counts), f"equal: {counts['equal'] / max(judged, 1):.1%} of {judged}")
    return int(counts["WRONG"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())

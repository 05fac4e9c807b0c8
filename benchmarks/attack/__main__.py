"""Attack what is stored and what is loaded, and count: `python -m benchmarks.attack`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

from . import checkpoints, flips


def main() -> int:
    """Command line; 1 if anything was silently wrong, hung or read outside its folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=200, help="in each kind of store")
    parser.add_argument("--checkpoints", type=int, default=340)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, kind in flips.KINDS.items():
            folder = Path(temporary, name)
            folder.mkdir()
            found[f"bits, {name}"] = flips.attack(kind, folder, options.flips, options.seed)
        folder = Path(temporary, "checkpoints")
        folder.mkdir()
        found["checkpoints"] = checkpoints.attack(folder, options.checkpoints, options.seed)
    for name, counts in found.items():
        words = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        print(f"{name}: {words}")
    return int(any(what.startswith("WRONG") for counts in found.values() for what in counts))


if __name__ == "__main__":
    sys.exit(main())

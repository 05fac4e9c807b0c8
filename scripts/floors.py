"""The lowest versions that the distributions of this repository declare, as constraints for pip.

Usage:
    python scripts/floors.py > floors.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Extras that the tests of `make test-lowest` import.
EXTRAS = ("cache", "eval", "parquet", "train")
# Its builds for CPUs are not on every index: it stays at the version of constraints.txt.
PINNED = ("torch",)


def requirements() -> list[str]:
    """What the distributions need, and what those extras add."""
    found = []
    for path in [ROOT / "pyproject.toml", *sorted(ROOT.glob("integrations/*/pyproject.toml"))]:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        found += project["dependencies"]
        for extra, needed in project.get("optional-dependencies", {}).items():
            found += needed if extra in EXTRAS else []
    return found


def floors() -> dict[str, str]:
    """The highest lower bound of each package by name."""
    found: dict[str, str] = {}
    for requirement in requirements():
        bound = re.match(r"([\w-]+)(?:\[.*\])?.*>=([\d.]+)", requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} has no lower bound")
        name, version = bound.groups()
        known = found.get(name, "0")
        found[name] = max(known, version, key=lambda text: [int(part) for part in text.split(".")])
    return {name: version for name, version in found.items() if "llm-embeddings" not in name}


def main() -> None:
    """Print a line for each package."""
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
        if "==" in line
    )
    for name, version in sorted(floors().items()):
        print(f"{name}=={pins[name] if name in PINNED else version}")


if __name__ == "__main__":
    main()

"""The lines of a hit as they stand in its file: which one answers, and those around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .decoding import Unreadable, decode
from .excerpts import best_line
from .hits import Found
from .html import declared_encoding
from .outline import split_lines
from .readers import UNITS


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look in a file.

    Attributes:
        unit: What `number` counts: "line", "page", ...
        number: The best line of a passage, or the page, slide, ... on which it begins.
        around: Lines of the file from `first` on, the best among them; empty if it has no lines.
        first: Number of the first of them.
    """

    unit: str
    number: int
    around: tuple[str, ...] = ()
    first: int = 1

    def after(self, path: str) -> str:
        """Path and place, as terminals and editors take them."""
        return (
            f"{path}:{self.number}" if self.unit == "line" else f"{path} {self.unit} {self.number}"
        )


def place_of(hit: Found, words: re.Pattern[str] | None, *, context: int = 0) -> Place:
    """The place of a hit in its first file.

    Args:
        hit: The hit.
        words: What to look for in its lines; None = its first line is the best.
        context: Lines to show before and after the best one.
    """
    unit = UNITS.get(hit.kind, "line")
    first, last = hit.chunk.first, hit.chunk.last
    if unit != "line":
        return Place(unit, first)
    try:
        data = Path(hit.paths[0]).read_bytes()
        declared = declared_encoding(data) if hit.kind == "html" else None
        lines = split_lines(decode(data, declared)[0])
    except (OSError, Unreadable):  # gone since it was read
        return Place(unit, first)
    number = first + best_line(lines[first - 1 : last], words)
    start = max(1, number - context)
    return Place(unit, number, tuple(lines[start - 1 : number + context]), start)

"""What `search` shows of its hits: for people, as JSON, and in an editor."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .console import output

if TYPE_CHECKING:
    from rich.console import Console

    from ..searching.hits import Found
    from ..searching.lines import Place

_LINES = 3
# How editors are told a line; others that are named in $VISUAL or $EDITOR get the path alone.
_PLUS = frozenset(
    {"emacs", "emacsclient", "joe", "kak", "less", "micro", "nano", "nvim", "vi", "vim"}
)
_COLON = frozenset({"hx", "helix", "subl", "zed"})
_GOTO = frozenset({"code", "codium", "cursor"})


def as_json(hits: Sequence[Found], names: dict[str, str], query: str) -> str:
    """One object per line."""
    from ..searching.excerpts import pattern
    from ..searching.lines import place_of

    lines = []
    for rank, hit in enumerate(hits, 1):
        first, *others = (names[path] for path in hit.paths)
        place = place_of(hit, pattern(query))
        fields = {
            "rank": rank,
            "score": round(hit.score, 4),
            "cosine": None if hit.cosine is None else round(hit.cosine, 4),
            "bm25": None if hit.words is None else round(hit.words, 4),
            "path": first,
            place.unit: hit.chunk.first,
            f"last_{place.unit}": hit.chunk.last,
            f"best_{place.unit}": place.number,
            "heading": hit.chunk.heading,
            "text": hit.chunk.text,
            "same_in": others,
        }
        lines.append(json.dumps(fields) + "\n")
    return "".join(lines)


def as_text(hits: Sequence[Found], names: dict[str, str], query: str, context: int | None) -> str:
    """For a terminal; `context` is how many lines to show around the best, instead of excerpts."""
    from rich.text import Text

    from ..searching.excerpts import excerpt, pattern, printable
    from ..searching.lines import place_of

    console = output()
    width = max(20, min(console.width, 100) - 4)
    words = pattern(query)
    with console.capture() as written:
        for rank, hit in enumerate(hits, 1):
            place = place_of(hit, words, context=context or 0)
            first, *others = (printable(names[path]) for path in hit.paths)
            where = (place.after(first), "bold cyan")
            title = Text.assemble((f"{rank}. ", "bold"), (f"{hit.score:.3f} ", "green"), where)
            console.print(title, soft_wrap=True)  # whole, so that a terminal makes it a link
            if hit.chunk.heading:
                heading = textwrap.shorten(printable(hit.chunk.heading), width, placeholder=" ...")
                console.print(Text(f"   {heading}", "magenta"))
            if context is not None and place.around:
                _context(console, place, words)
            else:
                for line in textwrap.wrap(excerpt(hit.chunk.text, words, _LINES * width), width):
                    console.print(_marked(f"   {line}", words))
            if others:
                console.print(Text(f"   the same in {', '.join(others)}", "dim"))
    return written.get()


def _context(console: Console, place: Place, words: re.Pattern[str] | None) -> None:
    """Lines of the file with their numbers, the best one marked."""
    from ..searching.excerpts import shown_line

    for number, line in enumerate(place.around, place.first):
        mark = ">" if number == place.number else " "
        console.print(_marked(f" {mark} {number:>4}  {shown_line(line)}", words), soft_wrap=True)


def _marked(line: str, words: re.Pattern[str] | None) -> object:
    from rich.text import Text

    text = Text(line)
    if words:
        text.highlight_regex(words, "bold yellow")
    return text


def open_hit(hit: Found, query: str) -> None:
    """Show the place of a hit in the user's editor, else the file with what the system opens it.

    Raises:
        ValueError: the editor cannot be run.
    """
    from ..searching.excerpts import pattern
    from ..searching.lines import place_of

    place = place_of(hit, pattern(query))
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")
    if place.unit != "line" or not editor:
        typer.launch(hit.paths[0])
        return
    try:
        subprocess.run([*editor, *_arguments(editor[0], hit.paths[0], place.number)], check=False)
    except OSError as error:
        raise ValueError(f"{editor[0]} cannot be run ({error.strerror}): set $EDITOR") from error


def _arguments(editor: str, path: str, line: int) -> list[str]:
    """What opens a file at a line."""
    name = Path(editor).stem
    if name in _PLUS:
        return [f"+{line}", path]
    if name in _GOTO:
        return ["--goto", f"{path}:{line}"]
    return [f"{path}:{line}" if name in _COLON else path]


def write(text: str) -> None:
    """Write to standard output what its encoding has."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))

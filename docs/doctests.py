"""Griffe extension: examples with `>>>` become code, under whatever title they stand.

mkdocstrings does so under "Examples:" only; under any other title Markdown takes the prompts for
quotations.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_PROMPTED = re.compile(r"(?:^ *(?:>>>|\.\.\.)(?: .*)?$\n?)+", re.M)


class Doctests(griffe.Extension):
    """Fences the examples of every docstring."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = _PROMPTED.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    """A run of prompted lines as a fenced block of the same indentation, bare of prompts."""
    indent = " " * (len(match[0]) - len(match[0].lstrip()))
    lines = [line.strip()[4:].split("  # doctest:")[0] for line in match[0].splitlines()]
    return "".join(f"{indent}{line}\n" for line in ["```python", *lines, "```"])

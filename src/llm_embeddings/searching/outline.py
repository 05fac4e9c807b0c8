"""The lines of a file in sections under headings."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_NEWLINE = re.compile(r"\r\n|\r|\n")
_LONGEST_HEAD = 200  # characters of a table's first row that stand above each of its passages


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text.

    Attributes:
        number: Number of the line in the file, from 1, or of its page, slide, row, ... (see
            `readers.UNITS`). Several may share one.
        text: The line.
    """

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under one heading.

    Attributes:
        heading: The headings above the lines, outermost first, joined by " > "; may be empty.
        number: Line or page of the heading, or of the first line if there is none.
        lines: The text below the heading, without it.
    """

    heading: str
    number: int
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class FileContent:
    """The text of one file.

    Attributes:
        sections: Its sections.
        note: What the user should know about how it was read; may be "".
    """

    sections: list[Section]
    note: str = ""


def split_lines(text: str) -> list[str]:
    """The lines of a text as editors count them; `str.splitlines` ends lines at more characters."""
    return _NEWLINE.split(text)


def notes(*parts: str) -> str:
    """Several notes as one."""
    return "; ".join(filter(None, parts))


def some(numbers: Sequence[int | str], most: int = 5) -> str:
    """The first of some numbers or names, for a note."""
    return ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")


@dataclass(slots=True)
class Outline:
    """Puts lines into sections, as lines and headings are added in the order of a file.

    Attributes:
        sections: The sections so far.
    """

    sections: list[Section] = field(default_factory=list)
    _path: list[tuple[int, str]] = field(default_factory=list)

    def heading(self, level: int, title: str, number: int) -> None:
        """Start a section. The title of a page has level 0, above level 1."""
        if not title:
            return
        # A heading right below its parent: the parent's own section is empty, and is dropped.
        if self.sections and self._path and level > self._path[-1][0]:
            if not self.sections[-1].lines:
                self.sections.pop()
        self._path = [(above, name) for above, name in self._path if above < level]
        names = [name for _, name in self._path]
        if title not in names:
            names.append(title)
        self._path.append((level, title))
        self.sections.append(Section(" > ".join(names), number, []))

    def line(self, number: int, text: str) -> None:
        """Add a line to the last section; of blank lines in a row only the first is kept."""
        if not text.strip() and not (self.sections and self._ends_with_text()):
            return
        if not self.sections:
            self.sections.append(Section("", number, []))
        self.sections[-1].lines.append(Line(number, text))

    def table(self, title: str, rows: Iterable[tuple[int, Sequence[str]]]) -> None:
        """Add a table, one line a row; its first row, the names of columns, heads every passage.

        Args:
            title: What stands above it; may be "".
            rows: Numbers of rows and their cells.
        """
        head = ""
        for number, cells in rows:
            text = " | ".join(filter(None, (" ".join(cell.split()) for cell in cells)))
            if text and not head:
                head = textwrap.shorten(text, _LONGEST_HEAD, placeholder=" ...")
                section = Section(" > ".join(filter(None, (title, head))), number, [])
                self.sections.append(section)
                if head != text:
                    section.lines.append(Line(number, text))
            elif text:
                self.sections[-1].lines.append(Line(number, text))

    def _ends_with_text(self) -> bool:
        lines = self.sections[-1].lines
        return bool(lines and lines[-1].text.strip())

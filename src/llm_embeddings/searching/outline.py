"""What a reader makes of a file: its lines, in sections under headings."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text. Of a PDF, `number` is the page; several lines may share a number."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """Lines that belong together.

    Attributes:
        heading: The headings above the lines, outermost first, joined by " > "; may be empty.
        number: Where the heading stands, or the first line.
        lines: The text below the heading, without it.
    """

    heading: str
    number: int
    lines: list[Line]


@dataclass(slots=True)
class Outline:
    """Puts lines into sections while headings come by."""

    sections: list[Section] = field(default_factory=list)
    _path: list[tuple[int, str]] = field(default_factory=list)

    def heading(self, level: int, title: str, number: int) -> None:
        """Begin a section. Level 0 stands above level 1: the title of a page."""
        if not title:
            return
        # A heading right below its parent: the parent's own section holds nothing.
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
        """Add a line to the section that is open; blank lines that follow each other are one."""
        if not text.strip() and not (self.sections and self._ends_with_text()):
            return
        if not self.sections:
            self.sections.append(Section("", number, []))
        self.sections[-1].lines.append(Line(number, text))

    def _ends_with_text(self) -> bool:
        lines = self.sections[-1].lines
        return bool(lines and lines[-1].text.strip())

"""HTML -> sections of text, each line with its number in the source."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from .outline import Outline, Section

_HIDDEN = frozenset({"script", "style", "template", "svg"})
# What stands on every page of a site.
_FRAME = frozenset({"nav", "footer"})
_FRAME_ROLES = frozenset({"navigation", "contentinfo", "search"})
# A footer within one of these is of the text.
_TEXTS = frozenset({"article", "blockquote", "main", "section"})
# They have no end.
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_HEADINGS = {"title": 0, "h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_BLOCKS = frozenset(
    "address article aside blockquote body br caption dd details div dl dt fieldset figcaption "
    "figure footer form head header hr html legend li main nav ol option p pre section select "
    "summary table tbody td textarea tfoot th thead tr ul".split()
)
# Blocks whose end is the end of a line, not of a paragraph: cells, list items.
_INNER = frozenset({"br", "dd", "dt", "li", "option", "td", "th", "tr"})
_DECLARED = re.compile(rb"<(?:meta|\?xml)[^>]+?(?:charset|encoding)\s*=\s*[\"']?([\w.:-]+)", re.I)


def declared_encoding(data: bytes) -> str | None:
    """The encoding that a page names near its beginning; None = it names none."""
    found = _DECLARED.search(data[:2048])
    return found[1].decode("ascii", "replace") if found else None


def read_html(text: str) -> list[Section]:
    """Sections of a page under its title and headings, without scripts, navigation and footers.

    Where nothing else is left, or the end of a navigation is missing, these are text too.
    """
    # Browsers pass over any marked section; `html.parser` fails on those it does not know.
    text = text.replace("<![", "<?[")
    for framed in (True, False):
        page = _Page(leave_out_frame=framed)
        page.feed(text)
        page.close()
        page.end_block()
        if not page.in_frame and any(part.lines for part in page.outline.sections):
            break
    return page.outline.sections


class _Page(HTMLParser):
    """Collects the text of a page, line by line, under its headings."""

    def __init__(self, *, leave_out_frame: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.outline = Outline()
        self.in_frame = False
        self._leave_out_frame = leave_out_frame
        # Open elements that are left out, those of the same name within them, and texts around.
        self._hidden: list[str] = []
        self._texts: list[str] = []
        self._heading: int | None = None
        self._words: list[str] = []
        self._first = self._number = 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN or tag in self._hidden:
            self._hidden.append(tag)
        elif self._hidden:
            return
        elif self._is_frame(tag, attrs):
            self.end_block()
            self._hidden.append(tag)
            self.in_frame = True
        elif tag in _HEADINGS:
            self.end_block()
            self._heading = _HEADINGS[tag]
        elif tag in _BLOCKS:
            if tag in _TEXTS:
                self._texts.append(tag)
            self.end_block(paragraph=tag not in _INNER)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS and not self._hidden:
            self.end_block(paragraph=tag not in _INNER)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            last = len(self._hidden) - 1 - self._hidden[::-1].index(tag)
            del self._hidden[last:]
            self.in_frame &= bool(self._hidden)
        elif not self._hidden and (tag in _HEADINGS or tag in _BLOCKS):
            if tag in self._texts:
                self._texts.remove(tag)
            self.end_block(paragraph=tag not in _INNER)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        number = self.getpos()[0]
        for offset, piece in enumerate(data.split("\n")):
            if self._heading is None and number + offset != self._number:
                self._end_line()
            if piece.strip():
                if not "".join(self._words).strip():
                    self._first = number + offset
                self._number = number + offset
                self._words.append(piece)
            elif piece or offset:
                self._words.append(" ")

    def _is_frame(self, tag: str, attrs: list[tuple[str, str | None]]) -> bool:
        """Whether an element begins that is the page's and not the text's."""
        if not self._leave_out_frame or tag in _VOID:
            return False
        if tag in _FRAME:
            return tag == "nav" or not self._texts
        return any(name == "role" and value in _FRAME_ROLES for name, value in attrs)

    def end_block(self, *, paragraph: bool = True) -> None:
        """End the line or heading that is being read."""
        if self._heading is None:
            self._end_line()
            if paragraph and self.outline.sections:
                self.outline.line(self._number, "")
        else:
            self.outline.heading(self._heading, self._take(), self._first)
            self._heading = None

    def _end_line(self) -> None:
        """Add the words read so far as a line."""
        if text := self._take():
            self.outline.line(self._first, text)

    def _take(self) -> str:
        """The words read so far, as one string; the next ones start anew."""
        text = " ".join("".join(self._words).split())
        self._words.clear()
        return text

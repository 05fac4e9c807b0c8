"""Readers, one for each format of file: bytes -> sections of text, or the reason why not."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from ..faces import require
from .decoding import Unreadable, decode
from .html import declared_encoding, read_html
from .outline import Line, Outline, Section

# Format of the files that are read when a directory is searched, by suffix; "" = no suffix.
FORMATS = {
    **dict.fromkeys(("", ".txt", ".text", ".rst", ".adoc", ".org", ".tex"), "text"),
    **dict.fromkeys((".md", ".markdown", ".mdx"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".pdf": "pdf",
}
_NEWLINE = re.compile(r"\r\n|\r|\n")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LISTED = 5  # line numbers in a note


@dataclass(frozen=True, slots=True)
class FileContent:
    """The text of one file.

    Attributes:
        sections: Its sections.
        note: What the user should know about how it was read; may be "".
    """

    sections: list[Section]
    note: str


def content_format(path: str) -> str:
    """The format of a file by its name, a key of `READERS`; plain text if it is not known."""
    return FORMATS.get(PurePath(path).suffix.lower(), "text")


def read_content(data: bytes, kind: str) -> FileContent:
    """Read the text of a file.

    Args:
        data: The whole file.
        kind: Its format, as `content_format` gives it.

    Raises:
        Unreadable: it is empty, binary or broken, or a library to read it is not installed.
    """
    if not data:
        raise Unreadable("empty")
    content = READERS[kind](data)
    if not any(line.text.strip() for part in content.sections for line in part.lines) and not any(
        part.heading for part in content.sections
    ):
        raise Unreadable("no text" + (" (scanned pages?)" if kind == "pdf" else ""))
    return content


def _split(text: str) -> list[str]:
    """The lines of a text as editors count them; `str.splitlines` ends lines at more characters."""
    return _NEWLINE.split(text)


def _text(data: bytes) -> FileContent:
    text, note = decode(data)
    outline = Outline()
    for number, line in enumerate(_split(text), 1):
        outline.line(number, line)
    return FileContent(outline.sections, note)


def _markdown(data: bytes) -> FileContent:
    text, note = decode(data)
    lines = _split(text)
    outline = Outline()
    fence = ""
    matter = lines.index("---", 1) + 1 if lines[0] == "---" and "---" in lines[1:] else 0
    for number, line in enumerate(lines, 1):
        marker = _FENCE.match(line)
        if number > matter and marker and (not fence or marker[1].startswith(fence)):
            fence = "" if fence else marker[1]
        elif number > matter and not fence:
            if found := _HEADING.match(line):
                outline.heading(len(found[1]), found[2] or "", number)
                continue
            if _underlined(lines, number):
                outline.heading(1 if "=" in lines[number] else 2, line.strip(), number)
                continue
            if number > matter + 1 and _underlined(lines, number - 1):
                continue
        outline.line(number, line)
    return FileContent(outline.sections, note)


def _underlined(lines: list[str], number: int) -> bool:
    """Whether line `number`, from 1, is a heading, underlined by = or - in the next line."""
    if number >= len(lines) or not _UNDERLINE.match(lines[number]):
        return False
    alone = number < 2 or not lines[number - 2].strip()
    return alone and bool(re.match(r" {0,3}[^\s|>*+-]", lines[number - 1]))


def _html(data: bytes) -> FileContent:
    text, note = decode(data, declared_encoding(data))
    return FileContent(read_html(text), note)


def _jsonl(data: bytes) -> FileContent:
    text, note = decode(data)
    sections, bad = [], []
    lines = [(number, line) for number, line in enumerate(_split(text), 1) if line.strip()]
    for number, line in lines:
        if (record := _record(line)) is None:
            bad.append(number)
        else:
            title, body = record
            sections.append(Section(title, number, [Line(number, part) for part in _split(body)]))
    if bad and not sections:
        raise Unreadable(f"no line is a JSON object or string with text ({len(lines)} lines)")
    if bad:
        numbers = ", ".join(map(str, bad[:_LISTED])) + (", ..." if len(bad) > _LISTED else "")
        left_out = f"{len(bad)} of {len(lines)} lines without JSON text left out: {numbers}"
        note = "; ".join(filter(None, (note, left_out)))
    return FileContent(sections, note)


def _record(line: str) -> tuple[str, str] | None:
    """Title and text of a line of JSON; the text is the field `text`, else the longest string.

    None = it is no JSON, or holds no text.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, str):
        return ("", value) if value.strip() else None
    if not isinstance(value, dict):
        return None
    strings = {key: item for key, item in value.items() if isinstance(item, str) and item.strip()}
    title = strings.get("title", "")
    body = strings.get("text") or max(strings.values(), key=len, default="")
    return ("" if title == body else title, body) if body else None


def _pdf(data: bytes) -> FileContent:
    try:
        pypdf = require("pypdf", "needs pypdf", extra="search")
    except ImportError as error:
        raise Unreadable(str(error), passing=True) from error
    try:
        pages = pypdf.PdfReader(io.BytesIO(data)).pages
        sections = [
            Section("", number, [Line(number, line) for line in _split(page.extract_text())])
            for number, page in enumerate(pages, 1)
        ]
    # A damaged file makes pypdf raise nearly anything, RecursionError and KeyError included.
    except Exception as error:
        reason = " ".join(str(error).split())[:80] or "no reason given"
        raise Unreadable(f"broken or locked PDF ({type(error).__name__}: {reason})") from error
    return FileContent(sections, "")


READERS: dict[str, Callable[[bytes], FileContent]] = {
    "text": _text,
    "markdown": _markdown,
    "html": _html,
    "jsonl": _jsonl,
    "pdf": _pdf,
}

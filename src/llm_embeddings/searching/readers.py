"""One function per kind of file: bytes -> sections, or the reason why not."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from .decoding import Unreadable, decode
from .html import declared_encoding, read_html
from .outline import Line, Outline, Section

# Files of these names are read when a directory is searched; "" are names without a suffix.
KINDS = {
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
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Document:
    """The sections of one file, and what the user should know about how it was read."""

    sections: list[Section]
    note: str


def kind_of(path: str) -> str:
    """Which reader takes a file, by its name: a key of `READERS`."""
    return KINDS.get(PurePath(path).suffix.lower(), "text")


def read(data: bytes, kind: str) -> Document:
    """Read a file of a kind.

    Raises:
        Unreadable: empty, binary, broken, or its reader is not installed.
    """
    if not data:
        raise Unreadable("empty")
    document = READERS[kind](data)
    if not any(line.text.strip() for part in document.sections for line in part.lines) and not any(
        part.heading for part in document.sections
    ):
        raise Unreadable("no text" + (" (scanned pages?)" if kind == "pdf" else ""))
    return document


def _split(text: str) -> list[str]:
    """Lines as editors count them; `str.splitlines` knows more line ends than they do."""
    return _NEWLINE.split(text)


def _text(data: bytes) -> Document:
    text, note = decode(data)
    outline = Outline()
    for number, line in enumerate(_split(text), 1):
        outline.line(number, line)
    return Document(outline.sections, note)


def _markdown(data: bytes) -> Document:
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
    return Document(outline.sections, note)


def _underlined(lines: list[str], number: int) -> bool:
    """Whether the line of this number is a heading by the rule of = or - below it."""
    if number >= len(lines) or not _UNDERLINE.match(lines[number]):
        return False
    alone = number < 2 or not lines[number - 2].strip()
    return alone and bool(re.match(r" {0,3}[^\s|>*+-]", lines[number - 1]))


def _html(data: bytes) -> Document:
    text, note = decode(data, declared_encoding(data))
    return Document(read_html(text), note)


def _jsonl(data: bytes) -> Document:
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
    return Document(sections, note)


def _record(line: str) -> tuple[str, str] | None:
    """Title and text of a JSON line: its field `text`, else its longest string."""
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


def _pdf(data: bytes) -> Document:
    try:
        import pypdf
    except ImportError as error:
        need = "needs pypdf: pip install 'llm-embeddings[search]'"
        raise Unreadable(need, passing=True) from error
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
    return Document(sections, "")


READERS: dict[str, Callable[[bytes], Document]] = {
    "text": _text,
    "markdown": _markdown,
    "html": _html,
    "jsonl": _jsonl,
    "pdf": _pdf,
}

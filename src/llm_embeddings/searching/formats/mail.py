"""E-mail, notebooks, RTF -> sections."""

from __future__ import annotations

import email
import email.policy
import json
import re
from email.message import EmailMessage
from typing import Any

from ..decoding import Unreadable, decode
from ..html import read_html
from ..outline import FileContent, Outline, notes, some, split_lines

_HEADERS = ("From", "To", "Cc", "Date")
# Groups of RTF that are no text of the document.
_NO_TEXT = frozenset(
    "fonttbl colortbl stylesheet info pict object header footer headerl headerr footerl footerr "
    "themedata datastore listtable listoverridetable rsidtbl generator xmlnstbl latentstyles "
    "mmathPr fldinst".split()
)
_RTF = re.compile(
    rb"\\([a-z]+)(-?\d+)? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)"
)
_RTF_MARKS = {"par": "\n", "line": "\n", "row": "\n", "sect": "\n", "page": "\n", "tab": " "}
_RTF_MARKS |= {"cell": " | ", "emdash": "\u2014", "endash": "\u2013", "bullet": "\u2022"}
_RTF_MARKS |= {"lquote": "\u2018", "rquote": "\u2019", "ldblquote": "\u201c", "rdblquote": "\u201d"}


def read_mail(data: bytes) -> FileContent:
    """A message under its subject: who, to whom, when, and its text; attachments are named.

    Numbers are of paragraphs.

    Raises:
        Unreadable: it has no header.
    """
    message = email.message_from_bytes(data, policy=email.policy.default)
    if not isinstance(message, EmailMessage) or not message.keys():
        raise Unreadable("no e-mail: it has no header")
    outline = Outline()
    outline.heading(1, _header(message, "Subject"), 1)
    for name in _HEADERS:
        if value := _header(message, name):
            outline.line(1, f"{name}: {value}")
    outline.line(1, "")
    body = message.get_body(("plain", "html"))
    if body is not None:
        try:
            text = body.get_content()
        except (LookupError, ValueError):  # of an encoding that Python does not know
            raw = body.get_payload(decode=True)
            text = decode(raw if isinstance(raw, bytes) else b"")[0]
        if body.get_content_type() == "text/html":
            lines = [line.text for part in read_html(text) for line in part.lines]
        else:
            lines = split_lines(text)
        number = 1
        for line in lines:
            outline.line(number, line)
            number += not line.strip()
    attached = [
        part.get_filename() or part.get_content_type()
        for part in message.walk()
        if part.get_content_disposition() == "attachment"
    ]
    left = f"attachments left out: {some(attached)}" if attached else ""
    return FileContent(outline.sections, left)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, IndexError, AttributeError):  # `email` fails on some that are malformed
        return ""


def read_notebook(data: bytes) -> FileContent:
    """Cells of a Jupyter notebook: prose under its headings, code, text that code printed.

    Raises:
        Unreadable: it is no notebook.
    """
    text, note = decode(data)
    try:
        cells = json.loads(text)["cells"]
        found = [(cell["cell_type"], _joined(cell["source"]), cell) for cell in cells]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise Unreadable(f"no notebook ({type(error).__name__})") from error
    outline = Outline()
    for number, (kind, source, cell) in enumerate(found, 1):
        for line in split_lines(source):
            heading = re.match(r"(#{1,6})\s+(.+)", line) if kind == "markdown" else None
            if heading:
                outline.heading(len(heading[1]), heading[2], number)
            else:
                outline.line(number, line)
        printed = cell.get("outputs") if kind == "code" else None
        for output in printed if isinstance(printed, list) else []:
            for line in split_lines(_printed(output)):
                outline.line(number, line)
        outline.line(number, "")
    return FileContent(outline.sections, note)


def _printed(output: Any) -> str:
    """What an output shows as text; pictures and HTML are left out."""
    if not isinstance(output, dict):
        return ""
    data = output.get("data")
    shown = data.get("text/plain", "") if isinstance(data, dict) else output.get("text", "")
    return _joined(shown)


def _joined(source: Any) -> str:
    """The text of a notebook's field: a string or a list of lines."""
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def read_rtf(data: bytes) -> FileContent:
    """The text of a rich-text document; numbers are of paragraphs.

    Raises:
        Unreadable: it is none.
    """
    if not data.lstrip().startswith(b"{\\rtf"):
        raise Unreadable("no RTF: it does not begin with {\\rtf")
    outline = Outline()
    page, note = _code_page(data)
    for number, line in enumerate(_rtf_text(data, page).split("\n"), 1):
        outline.line(number, line.strip())
    return FileContent(outline.sections, notes(note))


def _code_page(data: bytes) -> tuple[str, str]:
    """The encoding that an RTF document names, and a note if Python does not know it."""
    found = re.search(rb"\\ansicpg(\d+)", data[:4096])
    page = f"cp{found[1].decode()}" if found and int(found[1]) else "cp1252"
    try:
        "".encode(page)
    except LookupError:
        return "cp1252", f"read as cp1252, not {page}"
    return page, ""


def _rtf_text(data: bytes, page: str) -> str:
    """The text between the control words, its paragraphs as lines."""
    parts: list[str] = []
    raw = bytearray()
    # Of each open group: whether its text is the document's, and characters to pass over after \\u.
    groups, shown, skipped, pending = [], True, 1, 0
    for match in _RTF.finditer(data):
        word, value, code, symbol, brace, text = match.groups()
        if brace == b"{":
            groups.append((shown, skipped))
        elif brace == b"}" and groups:
            shown, skipped = groups.pop()
        elif symbol == b"*" or (word and word.decode() in _NO_TEXT):
            shown = False
        elif code or text:
            content = bytes([int(code, 16)]) if code else text
            passed = min(pending, len(content))
            pending -= passed
            raw += content[passed:] if shown else b""
            continue
        if raw:
            parts.append(raw.decode(page, "replace"))
            raw.clear()
        if word == b"uc":
            skipped = int(value or 1)
        elif word == b"u" and value and shown:
            parts.append(chr(int(value) % 65536))
            pending = skipped
        elif shown and (word or symbol):
            plain = {b"~": " ", b"\\": "\\", b"{": "{", b"}": "}"}.get(symbol or b"", "")
            parts.append(_RTF_MARKS.get(word.decode(), "") if word else plain)
    parts.append(raw.decode(page, "replace"))
    text = "".join(parts)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

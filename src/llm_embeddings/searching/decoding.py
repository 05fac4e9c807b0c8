"""Bytes of a file -> text: by byte order mark, as UTF-8, else by a guess at the encoding."""

from __future__ import annotations

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark this one begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Control characters that text files do not have (but for tab, newlines, form feed, escape).
_CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\b\x1b"})
_SAMPLE = 65536  # bytes that a guess looks at
_ENOUGH = 32  # bytes that are not ASCII; a guess from fewer is not worth much


class Unreadable(Exception):
    """A file that cannot be searched; the message is the reason.

    Args:
        reason: Why, in a few words.
        passing: Whether it may be readable next time without having changed.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text of a file, and a note on how it was decoded, "" if there was nothing to guess.

    Args:
        data: The whole file.
        declared: The encoding that the file itself names; None = it names none.

    Raises:
        Unreadable: it is not text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _replacing(data, encoding)
    if (position := data.find(b"\0")) >= 0:
        raise Unreadable(f"binary (a NUL at byte {position})")
    sample = data[:_SAMPLE]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    if controls * 50 > len(sample):
        raise Unreadable(f"binary ({controls} control characters in {len(sample)} bytes)")
    text, note = _replacing(data, "utf-8")
    broken = text.count("\ufffd")
    if not note or sum(map(len, re.findall(r"[^\x00-\x7f]+", text))) > 2 * broken:
        return text, note
    return _guess(data, declared)


def _replacing(data: bytes, encoding: str) -> tuple[str, str]:
    """The text and a note, with U+FFFD for bytes that the encoding does not have."""
    try:
        return data.decode(encoding), ""
    except UnicodeDecodeError as error:
        text = data.decode(encoding, "replace")
        name = encoding.removesuffix("-sig").upper()
        return text, f"not all {name} (first at byte {error.start}): bad bytes replaced"


def _guess(data: bytes, declared: str | None) -> tuple[str, str]:
    """Text that is not UTF-8, and a note: read as declared, as detected, or as cp1252."""
    for encoding in (declared, _detect(data)):
        try:
            if encoding:
                return data.decode(encoding), f"read as {encoding}"
        except (LookupError, UnicodeDecodeError):
            continue
    return data.decode("cp1252", "replace"), "read as cp1252"


def _detect(data: bytes) -> str | None:
    """The encoding that charset-normalizer finds; None = there is too little to tell by.

    In Cyrillic or Japanese text most bytes are not ASCII; where few are, the script is Latin, and
    cp1252 is the better guess.
    """
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    if high < _ENOUGH or high * 5 < len(data):
        return None
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return None
    found = from_bytes(data[:_SAMPLE]).best()
    return found.encoding if found else None

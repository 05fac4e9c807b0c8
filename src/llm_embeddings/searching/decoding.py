"""Bytes of a file -> text: by byte order mark, as UTF-8, else by a guess at the encoding."""

from __future__ import annotations

import codecs
import re
from typing import Any

from ..faces import require

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark this one begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Control characters that text files do not have; tab, newlines and a terminal's they may.
_CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\a\b\x1b"})
# How the encodings of Japanese, Korean and Chinese mail begin to leave ASCII.
_SHIFTS = re.compile(rb"\x1b\$[@AB]|\x1b\$\([CD]|\x1b\([JI]|\x1b\$\)[ACG]")
_SHIFTING = ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext", "iso2022_kr")
LOCKED = "locked with a password: save it without one"
_OFFICE_LOCK = b"\xd0\xcf\x11\xe0"  # what Office puts around a document with a password
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
        Unreadable: it is not text, or its encoding cannot be told.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _replacing(data, encoding)
    if (position := data.find(b"\0")) >= 0:
        if wide := _two_bytes(data):
            return data.decode(wide), f"read as {wide}"
        raise Unreadable(f"binary (a NUL at byte {position})")
    if _SHIFTS.search(data):
        for encoding in _SHIFTING:
            try:
                return data.decode(encoding), f"read as {encoding}"
            except UnicodeDecodeError:
                continue
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


def _two_bytes(data: bytes) -> str | None:
    """UTF-16 without a mark, told by its line feeds and spaces; None = it is something else."""
    if len(data) % 2:
        return None
    for encoding, zero in (("utf-16-le", 1), ("utf-16-be", 0)):
        blanks = sum(
            data.count(bytes([0, blank]) if zero == 0 else bytes([blank, 0])) for blank in b"\n "
        )
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        odd = sum(not (character.isprintable() or character.isspace()) for character in text)
        if blanks and not odd:
            return encoding
    return None


def _guess(data: bytes, declared: str | None) -> tuple[str, str]:
    """Text that is not UTF-8, and a note: read as declared, as detected, or as cp1252.

    Raises:
        Unreadable: it is of a script that is not Latin, and nothing says which.
    """
    encodings = [declared]
    if _is_latin(data):
        encodings.append("cp1252")
    else:
        encodings.append(_detect(data))
    for encoding in encodings:
        try:
            if encoding:
                return data.decode(encoding), f"read as {encoding}"
        except (LookupError, UnicodeDecodeError):
            continue
    if _is_latin(data):
        return data.decode("cp1252", "replace"), "read as cp1252"
    raise Unreadable("its encoding cannot be told: convert it to UTF-8 (iconv)")


def reader(package: str, need: str) -> Any:
    """A package that reads a kind of file.

    Raises:
        Unreadable: it is not installed.
    """
    try:
        return require(package, need, extra="search")
    except ImportError as error:
        raise Unreadable(str(error), passing=True) from error


def check_office(data: bytes) -> None:
    """Check that a document of Office is one of its files of XML.

    Raises:
        Unreadable: it is of an old format, or something with a password is around it.
    """
    if data.startswith(_OFFICE_LOCK):
        raise Unreadable("locked with a password, or of an old format: save it anew")


def in_words(error: Exception) -> str:
    """What a reader raised of a damaged file, in short."""
    words = " ".join(str(error).split())[:80] or "no reason given"
    return f"{type(error).__name__}: {words}"


def _is_latin(data: bytes) -> bool:
    """Whether so few bytes are not ASCII that the script is Latin.

    In Cyrillic or Japanese text most bytes are not ASCII.
    """
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    return high < _ENOUGH or high * 5 < len(data)


def _detect(data: bytes) -> str | None:
    """The encoding that charset-normalizer finds; None = it finds none.

    Raises:
        Unreadable: it is not installed.
    """
    normalizer = reader("charset_normalizer", "its encoding can be told by charset-normalizer")
    found = normalizer.from_bytes(data[:_SAMPLE]).best()
    return found.encoding if found else None

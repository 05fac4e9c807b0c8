"""Excerpts of passages: the part of a text with most words of the query, fit for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words of a query that say nothing about what is looked for.
_COMMON = frozenset(
    "about and are can did does for from had has have how into its not that the their them then "
    "there these they this was were what when where which who whose why will with you your".split()
)
# Control characters, which could command a terminal, and lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text with runs of white space as one space, and U+FFFD for what disturbs a terminal."""
    return _UNPRINTABLE.sub("\ufffd", " ".join(text.split()))


def shown_line(line: str) -> str:
    """A line as it stands, with U+FFFD for what disturbs a terminal and spaces for tabs."""
    return _UNPRINTABLE.sub("\ufffd", line.expandtabs(4))


def pattern(query: str) -> re.Pattern[str] | None:
    """A pattern for words that begin with a word of the query; None = the query has no words."""
    words = {word.lower() for word in re.findall(r"\w+", query)}
    telling = {word for word in words if len(word) > 2 and word not in _COMMON} or words
    if not telling:
        return None
    stems = sorted(map(_stem, telling), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, stems))})\w*", re.IGNORECASE)


def best_line(lines: Sequence[str], words: re.Pattern[str] | None) -> int:
    """Which of some lines has most different words of the query; the first of those that do."""
    if words is None:
        return 0
    found = [len({match[0].lower() for match in words.finditer(line)}) for line in lines]
    return found.index(max(found)) if found else 0


def excerpt(text: str, words: re.Pattern[str] | None, length: int) -> str:
    """About `length` characters of a text at most, from where most different words match."""
    text = printable(text)
    if len(text) <= length:
        return text
    hits = [(match.start(), match[0].lower()) for match in words.finditer(text)] if words else []
    start = 0
    most = 0
    for position, _ in hits:
        inside = {word for at, word in hits if position <= at < position + length * 2 // 3}
        if len(inside) > most:
            most, start = len(inside), max(0, position - length // 6)
    start = min(start, len(text) - length)
    if start and (space := text.find(" ", start, start + length // 4)) >= 0:
        start = space + 1
    end = len(text)
    if end > start + length:
        space = text.rfind(" ", start + length * 3 // 4, start + length + 1)
        end = space if space >= 0 else start + length
    return ("... " if start else "") + text[start:end] + (" ..." if end < len(text) else "")


def _stem(word: str) -> str:
    """An English plural without its s, so that `prices` finds `price`."""
    return word[:-1] if len(word) > 4 and word.endswith("s") and word.isascii() else word

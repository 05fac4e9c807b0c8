"""Sections of a file -> passages of a size that embeds well, each with its first and last line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .outline import Line, Section

# UTF-8 bytes: about 250 tokens of English, and not fewer in scripts of three bytes per character.
LIMIT = 1000
OVERLAP = 150
_SENTENCE = re.compile(r".+?(?:[.!?][\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]+\s*|$)", re.S)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a file.

    Attributes:
        first: Number of its first line, or page of a PDF, from 1.
        last: Number of its last line or page.
        heading: The headings above it, joined by " > ".
        text: The passage without the headings.
    """

    first: int
    last: int
    heading: str
    text: str

    @property
    def passage(self) -> str:
        """What is embedded: headings and text, since the text alone may not say its subject."""
        return "\n".join(filter(None, (self.heading, self.text)))


def chunk(sections: list[Section]) -> list[Chunk]:
    """Passages of at most `LIMIT` bytes, cut at paragraphs, else sentences, else words.

    Where a paragraph is cut, its last sentence or line begins the next passage too, if it is at
    most `OVERLAP` bytes.
    """
    found = []
    for section in sections:
        first: int | None = section.number if section.heading else None
        for lines in _pack(_pieces(section.lines)):
            numbers = [line.number for line in lines if line.text.strip()]
            if numbers:
                text = _clean("".join(line.text for line in lines)).strip()
                start = numbers[0] if first is None else first
                found.append(Chunk(start, numbers[-1], _clean(section.heading), text))
                first = None
        if first is not None:
            found.append(Chunk(first, first, "", _clean(section.heading)))
    return found


def _clean(text: str) -> str:
    """A text without lone surrogates, which JSON may hold and a database may not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _size(text: str) -> int:
    """Length of a text in UTF-8 bytes."""
    return len(text.encode("utf-8", "replace"))


def _pieces(lines: list[Line]) -> Iterator[Line]:
    """The lines with their line feeds; one over the limit in parts: sentences, words or slices."""
    for line in lines:
        text = line.text.rstrip() + "\n"
        if _size(text) <= LIMIT:
            yield Line(line.number, text)
            continue
        for sentence in _SENTENCE.findall(text):
            for piece in [sentence] if _size(sentence) <= LIMIT else _words(sentence):
                yield Line(line.number, piece)


def _words(text: str) -> Iterator[str]:
    """A text as runs of words under the limit; a word over the limit is cut between characters."""
    run, room = "", LIMIT
    for word in re.findall(r"\s*\S+\s*", text):
        widest = LIMIT // max(1, max(_size(character) for character in set(word)))
        for start in range(0, len(word), widest):
            part = word[start : start + widest]
            if _size(part) > room:
                yield run
                run, room = "", LIMIT
            run, room = run + part, room - _size(part)
    yield run


def _pack(pieces: Iterator[Line]) -> Iterator[list[Line]]:
    """Pieces in groups that are each under the limit; the next group may repeat the last pieces."""
    current: list[Line] = []
    used = 0
    for piece in pieces:
        size = _size(piece.text)
        while current and used + size > LIMIT:
            cut = _paragraph_end(current, used)
            yield current[:cut]
            current = current[cut:] or _overlap(current, LIMIT - size)
            used = sum(_size(line.text) for line in current)
        current.append(piece)
        used += size
    yield current


def _paragraph_end(lines: list[Line], used: int) -> int:
    """How many lines to keep: up to the last blank one in the second half, else all."""
    for index in range(len(lines) - 1, 0, -1):
        used -= _size(lines[index].text)
        if used < LIMIT // 2:
            break
        if not lines[index].text.strip():
            return index
    return len(lines)


def _overlap(lines: list[Line], room: int) -> list[Line]:
    """The last pieces that fit into the overlap; not all of them, or there would be no progress."""
    kept: list[Line] = []
    room = min(room, OVERLAP)
    for line in reversed(lines[1:]):
        room -= _size(line.text)
        if room < 0 or not line.text.strip():
            break
        kept.insert(0, line)
    return kept

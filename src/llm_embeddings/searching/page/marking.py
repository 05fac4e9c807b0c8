"""Text in pieces, those that match apart, so that a template can mark them."""

from __future__ import annotations

import re


def marked(text: str, words: re.Pattern[str] | None) -> list[tuple[str, bool]]:
    """Pieces of a text in their order, and whether each is a match."""
    pieces: list[tuple[str, bool]] = []
    end = 0
    for match in words.finditer(text) if words else ():
        pieces += [(text[end : match.start()], False), (match[0], True)]
        end = match.end()
    pieces.append((text[end:], False))
    return [piece for piece in pieces if piece[0]]

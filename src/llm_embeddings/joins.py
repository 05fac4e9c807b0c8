"""How prefix, text and suffix meet where they are not one string, and where a text is cut."""

from __future__ import annotations

from typing import Protocol

from .recipe import Recipe

Ranges = list[tuple[int, int]]  # of characters, one for each token
Offsets = tuple[tuple[int, int], ...]
Parts = tuple[list[int], int, int, int, Offsets]  # ids, start, cut, text start, offsets
NO_OFFSETS: Offsets = ()


class Frame(Protocol):
    """What stands around all texts of a call, and the limit."""

    @property
    def prefix(self) -> str:
        """Before the text."""

    @property
    def prefix_ids(self) -> list[int]:
        """Token ids of the prefix, tokenised alone."""

    @property
    def suffix(self) -> str:
        """After the text."""

    @property
    def bos(self) -> list[int]:
        """The id put first, or none."""

    @property
    def eos(self) -> list[int]:
        """The id put last, or none."""

    @property
    def limit(self) -> int:
        """Limit in tokens: of the row, or of the text alone where `join` is "segments"."""

    def encode(self, strings: list[str], most: int | None = None) -> list[list[int]]:
        """Ids of plain strings; with `most`, those behind the first so many need not be right."""

    def encode_with_ranges(
        self, strings: list[str], most: int | None = None
    ) -> tuple[list[list[int]], list[Ranges]]:
        """Ids and character ranges; `most` as for `encode`."""

    def encode_located(
        self, strings: list[str], most: int | None = None
    ) -> tuple[list[list[int]], list[Ranges]]:
        """Ids, and character ranges if they are wanted; `most` as for `encode`."""


def segments(frame: Frame, texts: list[str]) -> list[Parts]:
    """Prefix, text and suffix tokenised one by one; the limit is the text's alone (LLaRA)."""
    prefix = [*frame.bos, *frame.prefix_ids]
    suffix = [*frame.encode([frame.suffix])[0], *frame.eos]
    encoded, ranges = frame.encode_located(texts, frame.limit)
    return [
        (
            [*prefix, *ids[: frame.limit], *suffix],
            len(prefix),
            max(len(ids) - frame.limit, 0),
            len(prefix),
            tuple(char_ranges[: frame.limit]),
        )
        for ids, char_ranges in zip(encoded, ranges, strict=True)
    ]


def separated(frame: Frame, recipe: Recipe, texts: list[str]) -> list[Parts]:
    """LLM2Vec's way (llm2vec 0.2.3 `LLM2Vec._convert_to_str`, `encode`, `tokenize`).

    A text over `max_text_length` loses whole words; behind a suffix its trailing white space goes
    (there the reference strips the templated string); marks in it are removed. The pooled span is
    as many last tokens as the text up to its first mark, suffix included, has when tokenised alone.
    """
    mark = recipe.separator or ""
    texts = _shortened(frame, recipe.max_text_length, texts)
    closed = [(text.rstrip() if frame.suffix else text) + frame.suffix for text in texts]
    room = frame.limit - len(frame.bos) - len(frame.eos)
    encoded = frame.encode([frame.prefix + text.replace(mark, "") for text in closed], room)
    counted = frame.encode([text.split(mark)[0] for text in closed], frame.limit)
    found = []
    for ids, counted_ids in zip(encoded, counted, strict=True):
        row = [*frame.bos, *ids[:room], *frame.eos]
        pooled = min(len(counted_ids), frame.limit) if recipe.pool_span == "text" else len(row)
        found.append((row, max(len(row) - pooled, 0), max(len(ids) - room, 0), 0, NO_OFFSETS))
    return found


def cut_text(frame: Frame, text: str, room: int) -> tuple[list[int], Ranges]:
    """Cut the text so that prefix, text and suffix fit `room` tokens, suffix whole."""
    string = frame.prefix + text
    ranges = frame.encode_with_ranges([string], room)[1][0]
    keep = room - len(frame.encode([frame.suffix])[0])
    while True:
        end = max(ranges[keep - 1][1], len(frame.prefix))
        ids, cut_ranges = frame.encode_with_ranges([string[:end] + frame.suffix])
        if len(ids[0]) <= room:
            return ids[0], cut_ranges[0]
        keep -= 1


def locate(frame: Frame, text: str, ranges: Ranges) -> tuple[int, Offsets]:
    """First position of the text in a row, and the range in the text of each of its tokens."""
    begin, end = len(frame.prefix), len(frame.prefix) + len(text)
    inside = [i for i, (first, last) in enumerate(ranges) if last > begin and first < end]
    if not inside:
        return 0, ()
    offsets = [(max(ranges[i][0], begin) - begin, min(ranges[i][1], end) - begin) for i in inside]
    return len(frame.bos) + inside[0], tuple(offsets)


def _shortened(frame: Frame, wanted: int | None, texts: list[str]) -> list[str]:
    """Drop last words until a text has at most `wanted` tokens.

    The length is measured after a cut at the sequence limit, as in the reference. Where no word
    would be left (one long word: Chinese, a URL) the reference embeds the empty string; here the
    text is cut after its last token that fits.
    """
    if wanted is None:
        return texts
    found = []
    for text, ids in zip(texts, frame.encode(texts, frame.limit), strict=True):
        length = min(len(ids), frame.limit)
        while length > wanted:
            words = text.split()
            kept = int(len(words) * (wanted / length))
            if kept == 0:
                text = text[: frame.encode_with_ranges([text], wanted)[1][0][wanted - 1][1]]
                break
            text = " ".join(words[:kept])
            length = min(len(frame.encode([text], frame.limit)[0]), frame.limit)
        found.append(text)
    return found

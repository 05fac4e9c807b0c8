"""Data of the LLaRA stage: passages, each with the text whose words its embeddings must tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ...records.examples import read_texts
from ...records.lines import read_rows
from ...records.sources import Source

_COLUMNS = ("input", "output_summarize", "output_predict")
# The passages of the released toy data have about this many words
# (FlagEmbedding, research/LLARA/data/pretrain).
WORDS = 490


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage and the texts whose words its two embeddings are trained to tell.

    Attributes:
        text: The passage (column `input`).
        summary: Text told by the embedding of prompt SELF, as a rule the passage itself (column
            `output_summarize`); may be "".
        following: Text told by the embedding of prompt NEXT, the next passage (column
            `output_predict`); "" where nothing follows.
        source: Name of the file.
    """

    text: str
    summary: str
    following: str
    source: str = ""


def read_passages(source: Source, *, words: int = WORDS) -> Iterator[Passage]:
    """Passages of a file: its rows in LLaRA's format, or its documents cut into passages.

    Args:
        source: A file with the columns input, output_summarize, output_predict, or any that
            `read_texts` takes, whose texts are documents.
        words: How many words of a document make a passage.

    Raises:
        OSError: the file cannot be read.
        ValueError: a row that does not fit, or `words` below 1.
    """
    if words < 1:
        raise ValueError(f"words={words}: a passage needs at least one")
    rows = read_rows(source.path, source.rows)
    if _COLUMNS[0] not in next(rows).values:
        for document in read_texts(source):
            pieces = [*cut(document, words), ""]
            for piece, following in pairwise(pieces):
                yield Passage(piece, piece, following, source.name)
        return
    for row in read_rows(source.path, source.rows):
        values = [row.values.get(column) for column in _COLUMNS]
        for column, value in zip(_COLUMNS, values, strict=True):
            if not isinstance(value, str):
                found = repr(value)[:60] if column in row.values else "missing"
                raise ValueError(f"{row.place}: column {column!r} is {found}, not a text")
        text, summary, following = map(str, values)
        if not text.strip():
            raise ValueError(f"{row.place}: column 'input' holds an empty text: drop the row")
        yield Passage(text, summary, following, source.name)


def cut(document: str, words: int) -> list[str]:
    """Consecutive pieces of `words` words, with the white space inside them as it was."""
    found = list(re.finditer(r"\S+", document))
    return [
        document[found[start].start() : found[min(start + words, len(found)) - 1].end()]
        for start in range(0, len(found), words)
    ]

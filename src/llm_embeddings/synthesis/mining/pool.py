"""The passages that negatives are chosen from: a corpus and all positives, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...records.examples import Example
from ...records.lines import Row, read_rows
from ..filters.duplicates import normalized

_TEXTS = ("text", "passage", "contents", "document")


@dataclass(slots=True)
class Pool:
    """Different passages, numbered from 0.

    Attributes:
        texts: The passages in the order of their numbers.
    """

    texts: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        """Add a passage and return its number; case and spaces make no difference."""
        number = self._numbers.setdefault(normalized(text), len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def add_all(self, texts: Iterable[str]) -> None:
        """Add many passages."""
        for text in texts:
            self.add(text)

    def number(self, text: str) -> int:
        """The number of a passage; -1 = it is not in the pool."""
        return self._numbers.get(normalized(text), -1)

    def add_positives(self, examples: Sequence[Example]) -> list[set[int]]:
        """Add all positives; for each example, the numbers of its query's positives in any row."""
        by_query: dict[str, set[int]] = {}
        for example in examples:
            known = by_query.setdefault(normalized(example.query), set())
            known |= {self.add(text) for text in example.positives}
        return [by_query[normalized(example.query)] for example in examples]


def read_corpus(paths: Sequence[Path]) -> Iterator[str]:
    """Passages of .txt, .jsonl and .parquet files and of directories in BEIR's form.

    A title goes before its text. Empty passages, which public sets hold, are left out.

    Raises:
        OSError: a file cannot be read.
        ValueError: a row without a text.
    """
    for path in paths:
        for row in read_rows(path / "corpus.jsonl" if path.is_dir() else path):
            if passage := _passage(row):
                yield passage


def _passage(row: Row) -> str:
    """The text of a row, with its title before it; "" if the text is empty.

    Raises:
        ValueError: no column holds a text.
    """
    for column in _TEXTS:
        text = row.values.get(column)
        if isinstance(text, str):
            title = row.values.get("title")
            return f"{title} {text}".strip() if isinstance(title, str) else text.strip()
    raise ValueError(
        f"{row.place} has the columns {', '.join(row.values)}, and a passage is expected in one of "
        f"{', '.join(_TEXTS)}"
    )

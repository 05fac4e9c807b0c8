"""Texts of evaluation sets, which training data must not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...records.lines import read_rows
from .duplicates import NearDuplicates, normalized

_COLUMNS = ("text", "query", "question", "a", "b", "sentence1", "sentence2")


class Forbidden:
    """Queries and sentences of evaluation sets, to be found again in any text.

    E5's check was a comparison without case and spaces (arXiv 2401.00368, section 4.1); texts that
    are nearly equal are found too.
    """

    def __init__(self, paths: Sequence[Path], threshold: float) -> None:
        """Read evaluation sets.

        Args:
            paths: Directories in BEIR's form, of which the queries count (their documents are what
                one searches, and may well be trained on); files of sentence pairs or texts.
            threshold: As of `NearDuplicates`.

        Raises:
            OSError: a file is missing.
            ValueError: a file without texts.
        """
        self._exact: dict[str, str] = {}
        self._near = NearDuplicates(threshold)
        for path in paths:
            for place, text in _texts(path):
                self._exact.setdefault(normalized(text), place)
                self._near.add(text, place)

    def __len__(self) -> int:
        return len(self._exact)

    def find(self, text: str) -> str:
        """Where a text stands in an evaluation set; "" = nowhere."""
        return self._exact.get(normalized(text)) or self._near.find(text)


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Texts with their places."""
    file = path / "queries.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such evaluation set")
    for row in read_rows(file):
        columns = [name for name in _COLUMNS if isinstance(row.values.get(name), str)]
        if not columns:
            raise ValueError(
                f"{row.place} has the columns {', '.join(row.values)}, and a text of an evaluation "
                f"set is expected in one of {', '.join(_COLUMNS)}"
            )
        for column in columns:
            yield f"{row.place} ({column})", row.values[column]

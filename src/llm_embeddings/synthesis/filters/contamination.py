"""The filter against contamination: texts of evaluation sets must not be in training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...records.lines import read_rows
from .duplicates import NearDuplicates, normalized

_COLUMNS = ("text", "query", "question", "a", "b", "sentence1", "sentence2")


class Forbidden:
    """Queries and sentences of evaluation sets, with which texts are compared.

    E5's filter compared without case and spaces (arXiv 2401.00368, section 4.1); here nearly equal
    texts are found too.
    """

    def __init__(self, paths: Sequence[Path], threshold: float) -> None:
        """Read evaluation sets.

        Args:
            paths: Directories in BEIR's form, whose queries count (their documents may well be
                trained on); files of sentence pairs or texts.
            threshold: Jaccard similarity from which texts are nearly equal.

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
        """The place of an equal or nearly equal text in an evaluation set; "" = there is none."""
        return self._exact.get(normalized(text)) or self._near.find(text)


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """The texts of an evaluation set, each after its place: file, line and column."""
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

"""Rows as columns of Arrow: types by the first chunk, and the line of what does not fit."""

from __future__ import annotations

import json
from typing import Any

from ...records.lines import import_pyarrow
from ...tokens import without_lone_surrogates
from .read import Chunk


class Columns:
    """The columns of a parquet file that is made of rows of another format.

    Attributes:
        schema: Their names and types.
        texts: Those whose values in the first chunk are of several types, or too large for one:
            kept as text, as JSON writes them.
    """

    def __init__(self, first: Chunk) -> None:
        """Choose types by the first chunk; without rows, names that are known hold text."""
        self._arrow: Any = import_pyarrow()
        names = dict.fromkeys(name for row in first.rows for name in row) or first.columns
        found, self.texts = [], []
        for name in names:
            values = [row.get(name) for row in first.rows]
            try:
                kind = self._array(values).type if values else self._arrow.string()
            except self._misfits():
                self.texts.append(name)
                kind = self._arrow.string()
            found.append((name, kind))
        self.schema = self._arrow.schema(found)

    def batch(self, chunk: Chunk) -> Any:
        """The rows of a chunk as a `pyarrow.RecordBatch`.

        Raises:
            ValueError: a value or a column that the first chunk has no place for; its line is
                named.
        """
        known = set(self.schema.names)
        for place, row in enumerate(chunk.rows):
            if new := row.keys() - known:
                raise ValueError(_misfit(chunk, place, f"the column {min(new)!r} comes only here"))
        arrays = []
        for field in self.schema:
            values = [row.get(field.name) for row in chunk.rows]
            if field.name in self.texts:
                values = list(map(_text, values))
            try:
                arrays.append(self._array(values, field.type))
            except self._misfits() as error:
                raise self._named(chunk, field, values) from error
        return self._arrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _array(self, values: list[Any], kind: Any = None) -> Any:
        """Values as an array; half of a surrogate pair becomes U+FFFD, as in what is embedded."""
        try:
            return self._arrow.array(values, kind)
        except UnicodeEncodeError:
            return self._arrow.array(list(map(_whole, values)), kind)

    def _misfits(self) -> tuple[type[Exception], ...]:
        arrow = self._arrow
        return arrow.ArrowInvalid, arrow.ArrowTypeError, OverflowError, RecursionError

    def _named(self, chunk: Chunk, field: Any, values: list[Any]) -> ValueError:
        """The error for the first value that does not fit."""
        for place, value in enumerate(values):
            try:
                self._array([value], field.type)
            except self._misfits():
                wrong = f"column {field.name!r} is {value!r:.60}, not {field.type}"
                return ValueError(_misfit(chunk, place, wrong))
        return ValueError(_misfit(chunk, 0, f"column {field.name!r} is not {field.type}"))


def _misfit(chunk: Chunk, place: int, reason: str) -> str:
    return (
        f"{chunk.place(place)}: {reason}. The first rows decide the types of a parquet file's "
        "columns: write .jsonl, or make the column text in every row"
    )


def _text(value: Any) -> str | None:
    """A value as text: strings as they are, others as JSON writes them."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _whole(value: Any) -> Any:
    """A value without halves of surrogate pairs, in lists and objects too."""
    if isinstance(value, str):
        return without_lone_surrogates(value)
    if isinstance(value, list):
        return list(map(_whole, value))
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value

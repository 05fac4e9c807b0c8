"""Rows of a data file, one after the other: no file is ever held in memory."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..faces import require
from .sources import suffix_of

NO_WHOLE_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)
_PARQUET_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        values: By column; a line of a .txt file is the column "text".
        path: The file.
        number: Its line, or its row in a parquet file, from 1.
    """

    values: dict[str, Any]
    path: Path
    number: int

    @property
    def place(self) -> str:
        """Where it stands, for errors."""
        unit = "row" if self.path.suffix.lower() == ".parquet" else "line"
        return f"{self.path}, {unit} {self.number}"


def read_rows(path: Path, most: int | None = None) -> Iterator[Row]:
    """All rows, or the first `most`; blank lines are passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, broken, not UTF-8, or a line is not a JSON object; the message
            says where.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        rows = _parquet_rows(path)
    elif suffix.startswith(".jsonl"):
        rows = (
            Row(json_object(line, f"{path}, line {number}"), path, number)
            for number, line in _lines(path, suffix)
        )
    else:
        rows = (Row({"text": line}, path, number) for number, line in _lines(path, suffix))
    number = 0
    for row in islice(rows, most):
        number = row.number
        yield row
    if not number:
        raise ValueError(f"{path} is empty: it holds no row")


def text_stream(file: BinaryIO, encoding: str = "utf-8-sig") -> io.TextIOWrapper:
    """A file's text for `numbered_lines`; closing or forgetting it closes the file."""
    return io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="\n")


def numbered_lines(
    stream: io.TextIOWrapper, name: object, remedy: str = "convert the file (iconv)"
) -> Iterator[tuple[int, str]]:
    """Lines without their end, numbered from 1; only a line feed ends one.

    Args:
        stream: From `text_stream`.
        name: What it is called in errors.
        remedy: What to do about bytes of another encoding; "{likely}" in it is that encoding.

    Raises:
        ValueError: a byte that is none of the stream's encoding, or a file of several lines
            without any line feed.
    """
    for number, line in enumerate(stream, 1):
        if number == 1 and not line.endswith("\n") and "\r" in line.rstrip("\r"):
            raise ValueError(
                f"{name}: its lines end in carriage returns alone, as on old Macs: convert it "
                "(tr '\\r' '\\n' < FILE)"
            )
        try:
            line.encode()
        except UnicodeEncodeError as error:
            byte = ord(line[error.start]) - 0xDC00  # where surrogateescape puts it
            likely = "utf-16" if number == 1 and byte in (0xFE, 0xFF) else "latin-1"
            encoding = stream.encoding.removesuffix("-sig").upper()
            raise ValueError(
                f"{name}, line {number}: byte 0x{byte:02x} is not {encoding}: "
                f"{remedy.format(likely=likely)}"
            ) from error
        yield number, line.removesuffix("\n").removesuffix("\r")


def json_object(line: str | bytes, place: str, *, unique: bool = False) -> dict[str, Any]:
    """What stands in a line of a file of JSON lines.

    Args:
        line: The line.
        place: What it is called in errors.
        unique: Refuse an object that has a key twice, of which Python keeps the last.

    Raises:
        ValueError: it is not an object.
    """
    try:
        values = json.loads(line, object_pairs_hook=_unique if unique else None)
    except RecursionError as error:
        raise ValueError(f"{place} is not JSON that can be read: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{place} is not a JSON object but {line.strip()!r:.60}")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its keys and values, each key once."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return values


def import_pyarrow() -> Any:
    """Import pyarrow with its parquet half.

    Raises:
        ImportError: it is not installed; the message says how.
    """
    need = "parquet files need pyarrow"
    require("pyarrow.parquet", need, extra="parquet")
    return require("pyarrow", need, extra="parquet")


def open_parquet(file: Path | BinaryIO, name: object) -> Any:
    """A `pyarrow.parquet.ParquetFile`, to be used in `with`.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: it is not a parquet file; `name` is named.
    """
    pyarrow = import_pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{name} is not a parquet file: {error}") from error


def _lines(path: Path, suffix: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    number = 0
    opened = gzip.open(path) if suffix.endswith(".gz") else path.open("rb")
    with text_stream(cast(BinaryIO, opened)) as stream:
        try:
            for number, line in numbered_lines(stream, path):
                if line.strip():
                    yield number, line
        except NO_WHOLE_GZIP as error:
            raise ValueError(
                f"{path}, after line {number}: not a whole gzip file ({error}): fetch it again"
            ) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    number = 0
    with open_parquet(path, path) as file:
        for batch in file.iter_batches(_PARQUET_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, path, number)

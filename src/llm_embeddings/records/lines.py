"""Rows of a data file, one after the other: no file is ever held in memory."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from .sources import suffix_of

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


def read_rows(path: Path) -> Iterator[Row]:
    """All rows; blank lines are passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, broken, not UTF-8, or a line is not a JSON object; the message
            says where.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        rows = _parquet_rows(path)
    elif suffix.startswith(".jsonl"):
        rows = _objects(path, suffix)
    else:
        rows = (Row({"text": line}, path, number) for number, line in _lines(path, suffix))
    number = 0
    for row in rows:
        number = row.number
        yield row
    if not number:
        raise ValueError(f"{path} is empty: it holds no row")


def _lines(path: Path, suffix: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank; only a line feed ends one."""
    opened = gzip.open(path) if suffix.endswith(".gz") else path.open("rb")
    with opened as file:
        number = 0
        try:
            for number, line in enumerate(cast(BinaryIO, file), 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise ValueError(
                f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8: convert the file (iconv)"
            ) from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{path}, after line {number}: not a whole gzip file ({error}): fetch it again"
            ) from error


def _objects(path: Path, suffix: str) -> Iterator[Row]:
    for number, line in _lines(path, suffix):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}, line {number} is not a JSON object but {line!r:.60}")
        yield Row(values, path, number)


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "parquet files need pyarrow: pip install 'llm-embeddings[parquet]'"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file: {error}") from error
    number = 0
    with file:
        for batch in file.iter_batches(_PARQUET_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, path, number)

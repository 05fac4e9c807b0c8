"""Rows and vectors as bytes that can be appended, and the finished file made of them.

Each format packs a chunk by itself, so that a file begun by one process is continued by another.
"""

from __future__ import annotations

import datetime
import decimal
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from ...records.lines import import_pyarrow
from .columns import Columns
from .read import Chunk

COLUMN = "embedding"
_DIGITS = {"float32": "%.9g", "float16": "%.5g"}  # enough to read the same number back
_GROUP_BYTES = 2**26


class Sink(Protocol):
    """A format of the output."""

    def head(self, first: Chunk) -> bytes:
        """What stands before the first chunk; is given that, which also names the columns."""

    def pack(self, chunk: Chunk, vectors: NDArray[Any]) -> bytes:
        """A chunk's rows; `vectors` is `[rows, dim]`."""

    def close(self, spool: Path, rows: int) -> Path:
        """Complete the spool of head and chunks; returns the file to publish."""


def sink_of(path: Path, dtype: str, dim: int) -> Sink:
    """The sink for what a file's name ends in.

    Args:
        path: The output.
        dtype: NumPy's name of the vectors' type.
        dim: Numbers per vector.

    Raises:
        ValueError: it ends in none that is known.
        ImportError: pyarrow is needed.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return NpySink(dtype, dim)
    if suffix in (".jsonl", ".ndjson"):
        return JsonlSink(dtype)
    if suffix in (".parquet", ".pq"):
        return ParquetSink(dtype, dim)
    raise ValueError(f"{str(path)!r}: the output must end in .npy, .parquet or .jsonl")


class NpySink:
    """Vectors alone, as `numpy.save` writes them."""

    def __init__(self, dtype: str, dim: int) -> None:
        self._dtype, self._dim = np.dtype(dtype), dim

    def head(self, first: Chunk) -> bytes:
        """The header for no rows; NumPy leaves room in it for any number of them."""
        return self._header(0)

    def pack(self, chunk: Chunk, vectors: NDArray[Any]) -> bytes:
        """The vectors."""
        return vectors.astype(self._dtype, copy=False).tobytes()

    def close(self, spool: Path, rows: int) -> Path:
        """Write the number of rows into the header."""
        with spool.open("r+b") as file:
            file.write(self._header(rows))
        return spool

    def _header(self, rows: int) -> bytes:
        from numpy.lib import format as npy

        header = io.BytesIO()
        descr = npy.dtype_to_descr(self._dtype)
        npy.write_array_header_1_0(
            header, {"descr": descr, "fortran_order": False, "shape": (rows, self._dim)}
        )
        return header.getvalue()


class JsonlSink:
    """One JSON object per row: the input's columns and the vector."""

    def __init__(self, dtype: str) -> None:
        self._digits = _DIGITS.get(dtype, "%d")

    def head(self, first: Chunk) -> bytes:
        """Nothing."""
        return b""

    def pack(self, chunk: Chunk, vectors: NDArray[Any]) -> bytes:
        """Lines."""
        rows = chunk.batch.to_pylist() if chunk.batch is not None else chunk.rows
        numbers = ", ".join([self._digits] * vectors.shape[1])
        lines = []
        for place, (row, vector) in enumerate(zip(rows, vectors, strict=True)):
            try:
                lines.append(_with_vector(row, numbers % tuple(vector.tolist())))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{chunk.place(place)}: {_reason(error)}") from error
        return b"".join(lines)

    def close(self, spool: Path, rows: int) -> Path:
        """Nothing is missing."""
        return spool


class ParquetSink:
    """The input's columns and the vectors as lists of fixed length.

    The spool is one Arrow stream per chunk; parquet cannot be continued by another process.
    """

    def __init__(self, dtype: str, dim: int) -> None:
        self._arrow, self._dtype, self._dim = import_pyarrow(), dtype, dim
        self._columns: Columns | None = None

    def head(self, first: Chunk) -> bytes:
        """Nothing, but the first chunk decides the columns' types."""
        if first.batch is None:
            self._columns = Columns(first)
        schema = first.batch.schema if self._columns is None else self._columns.schema
        if COLUMN in schema.names:
            _refuse_column()
        return b""

    @property
    def texts(self) -> list[str]:
        """Columns that are kept as text, since the first rows have values of several types."""
        return [] if self._columns is None else self._columns.texts

    def pack(self, chunk: Chunk, vectors: NDArray[Any]) -> bytes:
        """An Arrow stream of one batch."""
        arrow = self._arrow
        batch = chunk.batch if self._columns is None else self._columns.batch(chunk)
        numbers = arrow.array(vectors.reshape(-1), type=arrow.from_numpy_dtype(self._dtype))
        lists = arrow.FixedSizeListArray.from_arrays(numbers, self._dim)
        batch = batch.append_column(COLUMN, lists)
        buffer = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(buffer, batch.schema) as stream:
            stream.write_batch(batch)
        data: bytes = buffer.getvalue().to_pybytes()
        return data

    def close(self, spool: Path, rows: int) -> Path:
        """The parquet file beside the spool; its row groups are of about 64 MB."""
        arrow = self._arrow
        path = spool.with_name("table.parquet")
        with arrow.OSFile(str(spool), "rb") as file, path.open("wb") as target:
            writer: Any = None
            held, size = [], 0
            while file.tell() < file.size():
                held.append(arrow.ipc.open_stream(file).read_all())
                size += held[-1].nbytes
                if size >= _GROUP_BYTES or file.tell() == file.size():
                    table = arrow.concat_tables(held).combine_chunks()
                    writer = writer or self._writer(target, table.schema)
                    writer.write_table(table)
                    held, size = [], 0
            writer.close()
        return path

    def _writer(self, target: Any, schema: Any) -> Any:
        """A writer that looks for repeated values where there may be some: not in vectors."""
        others = [name for name in schema.names if name != COLUMN]
        return self._arrow.parquet.ParquetWriter(target, schema, use_dictionary=others)


def json_line(row: Mapping[str, Any]) -> str:
    """A JSON object without its closing brace; empty rows get none of the commas."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)[:-1]
    return f"{text}, " if row else text


def _with_vector(row: Mapping[str, Any], numbers: str) -> bytes:
    if COLUMN in row:
        _refuse_column()
    line = f'{json_line(row)}"{COLUMN}": [{numbers}]}}\n'
    try:
        return line.encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can write
        escaped = json.dumps(row, allow_nan=False, default=_plain)[:-1]
        return f'{escaped}, "{COLUMN}": [{numbers}]}}\n'.encode()


def _reason(error: Exception) -> str:
    """Why a row cannot be written as JSON."""
    if isinstance(error, RecursionError):
        return "its values are nested too deeply for JSON: drop that column"
    if "JSON compliant" in str(error):
        return "NaN or an infinite number, which JSON has not: make it null, or write .parquet"
    return str(error)


def _refuse_column() -> NoReturn:
    raise ValueError(
        f"the input has a column {COLUMN!r} already: drop or rename it, or write .npy, which "
        "holds vectors alone"
    )


def _plain(value: Any) -> Any:
    """What JSON has no type for."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise ValueError(
        f"{type(value).__name__} {value!r:.40} cannot be written as JSON: use .parquet"
    )

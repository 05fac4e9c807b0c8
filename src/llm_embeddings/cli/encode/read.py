"""Texts and the rows they stand in, from a file or standard input, a chunk at a time.

What a chunk holds is decided by the input and `size` alone: whoever reads again gets the same ones.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from ...records.lines import (
    import_pyarrow,
    json_object,
    numbered_lines,
    open_parquet,
    text_stream,
)

Format = Literal["txt", "jsonl", "csv", "tsv", "parquet"]
_SUFFIXES: dict[str, Format] = {".text": "txt", ".ndjson": "jsonl", ".pq": "parquet"}
# `llm_embeddings.batching.windows` keeps a call of this size whole. A larger one runs in parts that
# share passes as time has it, and which texts share a pass shows in the last bits of their vectors.
MOST_ROWS, _CHARACTERS = 1024, 2**20
_MAX_COLUMNS_NAMED = 20
_REMEDY = "convert the file (iconv), or say how to read all of it: --encoding {likely}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows of the input.

    Attributes:
        texts: What is embedded.
        rows: All columns, by name; of a parquet file only in `batch`.
        digest: Hash of all that the output holds of these rows.
        batch: The rows of a parquet file as a `pyarrow.RecordBatch`.
        source: What to call the input.
        numbers: The rows' lines, or rows of a parquet file, from 1.
        columns: Names of all columns, where they are known without rows.
    """

    texts: list[str]
    rows: list[dict[str, Any]]
    digest: str
    batch: Any = None
    source: str = ""
    numbers: Sequence[int] = ()
    columns: Sequence[str] = ()

    def place(self, row: int) -> str:
        """Where a row of the chunk, counted from 0, stands in the input."""
        unit = "line" if self.batch is None else "row"
        return f"{self.source}, {unit} {self.numbers[row]:,}"


class Source:
    """An open input; a context manager.

    Attributes:
        name: What to call it.
        form: Its format.
        encoding: Python's name of its encoding.
        column: Which column is embedded.
        size: Rows per chunk.
    """

    def __init__(
        self, path: str, form: Format | None, column: str, encoding: str | None, size: int
    ) -> None:
        """Open a file, or standard input for "-".

        Args:
            path: The file.
            form: Its format; None = what its name ends in.
            column: Which column is embedded; a txt file has the one column "text".
            encoding: None = UTF-8, with or without a byte order mark.
            size: Rows per chunk, `MOST_ROWS` at most.

        Raises:
            OSError: the file cannot be read.
            ValueError: an unknown format or encoding.
        """
        self.name = "standard input" if path == "-" else path
        self.form = form or ("txt" if path == "-" else format_of(path))
        self.encoding = _known_encoding(encoding or "utf-8-sig")
        self.column, self.size = column, size
        self._file: BinaryIO = sys.stdin.buffer if path == "-" else Path(path).open("rb")
        self._owned = path != "-"
        self._bytes = _size_of(self._file)
        self._fraction: float | None = None
        self._stream: io.TextIOWrapper | None = None
        self._columns = ["text"] if self.form == "txt" else []

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.detach()  # it would close standard input
        if self._owned:
            self._file.close()

    @property
    def fraction(self) -> float | None:
        """How much has been read, 0 to 1; None of a pipe."""
        if self._fraction is None and self._bytes:
            return min(self._file.tell() / self._bytes, 1.0)
        return self._fraction

    def chunks(self) -> Iterator[Chunk]:
        """All chunks; at least one, which is empty if the input is.

        Raises:
            ValueError: a column that is not there, or a line that cannot be read; it is named.
        """
        if self.form == "parquet":
            yield from self._parquet_chunks()
            return
        self._stream = text_stream(self._file, self.encoding)
        lines = numbered_lines(self._stream, self.name, _REMEDY)
        if self.form in ("csv", "tsv"):
            rows = self._table(lines, "," if self.form == "csv" else "\t")
        elif self.form == "jsonl":
            rows = (
                (number, json_object(line, f"{self.name}, line {number}", unique=True))
                for number, line in lines
                if line.strip()
            )
        else:
            rows = ((number, {"text": line}) for number, line in lines)
        held: list[tuple[int, dict[str, Any]]] = []
        characters, last = 0, None
        for number, row in rows:
            characters += len(self._text(row, f"line {number}"))
            held.append((number, row))
            if len(held) == self.size or characters >= _CHARACTERS:
                last = self._chunk(held)
                yield last
                held, characters = [], 0
        if held or last is None:
            yield self._chunk(held)

    def _chunk(self, numbered: list[tuple[int, dict[str, Any]]]) -> Chunk:
        rows = [row for _, row in numbered]
        return Chunk(
            [row[self.column] for row in rows],
            rows,
            _digest(rows),
            source=self.name,
            numbers=[number for number, _ in numbered],
            columns=self._columns,
        )

    def _table(
        self, lines: Iterable[tuple[int, str]], delimiter: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, strict=True)
        try:
            names = next(reader, [])
            self._check_unique(names)
            if names:
                self._check_column(names)
                self._columns = names
            for values in reader:
                if len(values) != len(names) and values:
                    raise ValueError(
                        f"{self.name}, line {reader.line_num} has {len(values)} fields, the "
                        f"first line {len(names)}: is it quoted as CSV wants?"
                    )
                if values:
                    yield reader.line_num, dict(zip(names, values, strict=True))
        except csv.Error as error:
            raise ValueError(
                f"{self.name}, line {reader.line_num} is not CSV ({error}). JSON lines have no "
                "such limits"
            ) from error

    def _parquet_chunks(self) -> Iterator[Chunk]:
        """Parquet rows; their digest is of the texts and of the file's footer."""
        if not self._owned:
            raise ValueError("parquet cannot be read from a pipe: name the file")
        file = open_parquet(self._file, self.name)
        self._check_unique(file.schema_arrow.names)
        self._check_column(file.schema_arrow.names)
        footer, read = _footer_digest(self._file), 0
        self._fraction = 0.0
        empty = file.schema_arrow.empty_table().to_batches() or [
            import_pyarrow().RecordBatch.from_pylist([], schema=file.schema_arrow)
        ]
        for batch in file.iter_batches(self.size) if file.metadata.num_rows else empty:
            texts = batch.column(self.column).to_pylist()
            for place, text in enumerate(texts):
                self._text({self.column: text}, f"row {read + place + 1}")
            for start, stop in _cuts(texts):
                read += stop - start
                self._fraction = read / max(file.metadata.num_rows, 1)
                part, numbers = texts[start:stop], range(read - stop + start + 1, read + 1)
                digest = _digest([footer, *part])
                yield Chunk(part, [], digest, batch[start:stop], self.name, numbers)

    def _text(self, row: dict[str, Any], place: str) -> str:
        if self.column not in row:
            self._check_column(list(row), place)
        text = row[self.column]
        if not isinstance(text, str):
            raise ValueError(
                f"{self.name}, {place}: column {self.column!r} is {text!r:.60}, not a string: drop "
                "the row or fill it in"
            )
        return text

    def _check_unique(self, names: Sequence[str]) -> None:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            words = f"the column {twice[0]!r} stands twice among {', '.join(names)}: rename one"
            raise ValueError(f"{self.name}: {words}")

    def _check_column(self, names: Sequence[str], place: str = "") -> None:
        if self.column in names:
            return
        # One with spaces at its ends shows them.
        listed = [name if name == name.strip() else repr(name) for name in names]
        shown = ", ".join(listed[:_MAX_COLUMNS_NAMED]) + (
            ", ..." if len(names) > _MAX_COLUMNS_NAMED else ""
        )
        where = f"{self.name}, {place}" if place else self.name
        raise ValueError(
            f"{where} has no column {self.column!r}. It has: {shown or 'none'}. "
            "Choose one with --column"
        )


def format_of(path: str) -> Format:
    """The format a file's name ends in.

    Raises:
        ValueError: it ends in none that is known.
    """
    suffix = Path(path).suffix.lower()
    form = _SUFFIXES.get(suffix, suffix.removeprefix("."))
    for known in get_args(Format):
        if form == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(
        f"{path!r} does not end in a known format: say which it is with "
        f"--format ({', '.join(get_args(Format))})"
    )


def _known_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise ValueError(f"encoding {name!r} is not known: try utf-8, utf-16, latin-1") from error


def _size_of(file: BinaryIO) -> int | None:
    """Bytes of a regular file, None of a pipe."""
    try:
        status = os.fstat(file.fileno())
    except io.UnsupportedOperation:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _cuts(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts that end where the characters get too many."""
    start = characters = 0
    for place, text in enumerate(texts, 1):
        characters += len(text)
        if characters >= _CHARACTERS:
            yield start, place
            start, characters = place, 0
    if start < len(texts) or not texts:
        yield start, len(texts)


def _digest(values: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode() + b"\n")
    return digest.hexdigest()[:32]


def _footer_digest(file: BinaryIO) -> str:
    """Hash of the part of a parquet file that says where everything lies: other rows change it."""
    file.seek(-8, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    file.seek(-8 - length, os.SEEK_END)
    return hashlib.sha256(file.read(length)).hexdigest()

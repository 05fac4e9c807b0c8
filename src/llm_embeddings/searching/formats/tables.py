"""Rows of JSONL, CSV and spreadsheets -> sections."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..decoding import Unreadable, check_office, decode, in_words, reader
from ..outline import FileContent, Line, Outline, Section, notes, some, split_lines

# Strings that say nothing: numbers, addresses, ids, hashes, data.
_OPAQUE = re.compile(r"\s*(?:[\d.,:+-]+|\w+://\S+|data:\S+|[0-9a-fA-F-]{16,}|[\w+/=.-]{48,})\s*")
_LONGEST_FIELD = 2**20  # characters of a cell of CSV


def read_jsonl(data: bytes, columns: Sequence[str] = ()) -> FileContent:
    """A section per line: the strings of an object, also of objects within it.

    The field `title` is the heading, `text` stands first, others follow their name. Numbers,
    addresses, ids and hashes are left out.

    Args:
        data: The file.
        columns: Fields to read, as "body" or "author.name"; () = all that hold text.

    Raises:
        Unreadable: no line has text.
    """
    text, note = decode(data)
    sections: list[Section] = []
    bad: list[int] = []
    left: dict[str, None] = {}
    lines = [(number, line) for number, line in enumerate(split_lines(text), 1) if line.strip()]
    for number, line in lines:
        fields = _fields(line)
        read = [(name, value) for name, value in fields if _is_read(name, value, columns)]
        left.update((name, None) for name, value in fields if not _is_read(name, value, columns))
        if read:
            title, body = _record(read)
            parts = [Line(number, part) for part in split_lines(body)]
            sections.append(Section(title, number, parts))
        else:
            bad.append(number)
    if not sections:
        wanted = f" in {some(columns)}" if columns else ""
        reason = f"no line is a JSON object or string with text{wanted} ({len(lines)} lines)"
        raise Unreadable(reason)
    without = f"{len(bad)} of {len(lines)} lines without JSON text left out: {some(bad)}"
    names = f"fields left out: {some([*left])} (--column names those to read)"
    return FileContent(
        sections, notes(note, without if bad else "", names if left and not columns else "")
    )


def _fields(line: str) -> list[tuple[str, Any]]:
    """Names and values that are neither objects nor lists, in their order; none if it is no JSON.

    The name of a value within others is "outer.inner"; a list has no names of its own.
    """
    try:
        waiting = [("", json.loads(line))]
    except (ValueError, RecursionError):
        return []
    found = []
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            inner = [(f"{name}.{key}".strip("."), item) for key, item in value.items()]
            waiting += reversed(inner)
        elif isinstance(value, list):
            waiting += [(name, item) for item in reversed(value)]
        elif value is not None and value != "":
            found.append((name, value))
    return found


def _is_read(name: str, value: Any, columns: Sequence[str]) -> bool:
    if columns:
        return any(name == column or name.startswith(f"{column}.") for column in columns)
    return isinstance(value, str) and bool(value.strip()) and not _OPAQUE.fullmatch(value)


def _record(fields: list[tuple[str, Any]]) -> tuple[str, str]:
    """Heading and text of an object."""
    named = dict(fields)
    title = str(named.get("title", "")) if len(fields) > 1 else ""
    texts = [str(value) for name, value in fields if name in ("", "text")]
    others = [(name, value) for name, value in fields if name not in ("", "text", "title")]
    if title == "" and "title" in named:
        others = [("title", named["title"]), *others]
    if not texts and len(others) == 1:
        return title, str(others[0][1])
    return title, "\n".join([*texts, *(f"{name}: {value}" for name, value in others)])


def read_csv(data: bytes, columns: Sequence[str] = ()) -> FileContent:
    """Rows of a file with commas, semicolons or tabs, under the names of its columns.

    Raises:
        Unreadable: it is no such file.
    """
    text, note = decode(data)
    outline = Outline()
    try:
        dialect: Any = csv.Sniffer().sniff(text[:_LONGEST_FIELD], ",;\t|")
    except csv.Error:
        dialect = "excel-tab" if "\t" in text.partition("\n")[0] else "excel"
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    try:
        outline.table("", _chosen(_csv_rows(text, dialect), columns))
    except csv.Error as error:
        raise Unreadable(f"not CSV ({error})") from error
    return FileContent(outline.sections, note)


def _csv_rows(text: str, dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """Cells of each row and the line in which it begins."""
    rows = csv.reader(io.StringIO(text, newline=""), dialect)
    first = 1
    for cells in rows:
        yield first, cells
        first = rows.line_num + 1


def _chosen(
    rows: Iterator[tuple[int, list[str]]], columns: Sequence[str]
) -> Iterator[tuple[int, list[str]]]:
    """Rows with those columns alone that are wanted, if any are.

    Raises:
        Unreadable: none of them is there.
    """
    first = next(rows, None)
    if first is None:
        return
    places = [place for place, name in enumerate(first[1]) if name.strip() in columns]
    if columns and not places:
        raise Unreadable(f"no column {some(columns)}; it has {some(first[1])}")
    for number, cells in (first, *rows):
        wanted = [cells[place] for place in places if place < len(cells)]
        yield number, wanted if columns else cells


def read_xlsx(data: bytes) -> FileContent:
    """Rows of every sheet of an Excel workbook, as values were when it was saved.

    Raises:
        Unreadable: it is locked or broken, or openpyxl is not installed.
    """
    check_office(data)
    openpyxl = reader("openpyxl", "needs openpyxl")
    outline = Outline()
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        for sheet in book.worksheets:
            rows = enumerate(sheet.iter_rows(values_only=True), 1)
            outline.table(sheet.title, ((number, list(map(_cell, row))) for number, row in rows))
    # A damaged file makes it raise nearly anything.
    except Exception as error:
        raise Unreadable(f"broken or locked workbook ({in_words(error)})") from error
    return FileContent(outline.sections)


def _cell(value: object) -> str:
    return "" if value is None else str(value)

"""The input as numbered blocks of rows: the same ones however often and wherever it is read."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..folder import below, import_fs, locate
from ..tables import check_text_column, import_arrow, one_schema

if TYPE_CHECKING:
    import pyarrow as pa

LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TABLES = (".parquet", ".pq")
_ENDS = 65536
_THREADS = 32
_MOST_BLOCKS = 16


@dataclass(frozen=True, slots=True)
class Origin:
    """A file as it was given; what a changed input is noticed by.

    Attributes:
        place: Path or URI.
        size: Bytes.
        digest: Digest of its first and last 64 KiB.
    """

    place: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Table:
    """A Parquet file that can be read.

    Attributes:
        place: Path or URI.
        first: Rows of all files before it.
        groups: Rows of each of its row groups.
    """

    place: str
    first: int
    groups: tuple[int, ...]

    @property
    def end(self) -> int:
        """Rows of all files up to its end."""
        return self.first + sum(self.groups)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of the input, counted through all files.

    Attributes:
        number: Number of the block, and of the part of the output that holds it.
        start: First row.
        stop: Row behind the last.
    """

    number: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive blocks: what a worker is handed at a time.

    Attributes:
        tables: The files they lie in.
        blocks: The blocks, in the order of their rows.
    """

    tables: tuple[Table, ...]
    blocks: tuple[Block, ...]

    def where(self, row: int) -> str:
        """File and row in it, counted from 1, of a row of the input."""
        table = next(table for table in self.tables if row < table.end)
        return f"{table.place}, row {row - table.first + 1:,}"

    def span(self, block: Block) -> str:
        """The rows of a block in words."""
        first, last = self.where(block.start), self.where(block.stop - 1)
        file, _, row = last.rpartition(", row ")
        return f"{first} to {row if first.startswith(f'{file}, row ') else last}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything there is to do.

    Attributes:
        tables: Files in the order of their rows.
        unreadable: Files left out, with the reason.
        schema: Schema of the columns that are copied to the output.
        size: Rows of each block but the last.
    """

    tables: tuple[Table, ...]
    unreadable: dict[str, str]
    schema: pa.Schema
    size: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.tables[-1].end if self.tables else 0

    @property
    def count(self) -> int:
        """Number of blocks."""
        return -(-self.rows // self.size)

    def units(self, finished: Iterable[int], workers: int) -> list[Unit]:
        """What is left, in pieces: runs of unfinished blocks, small enough to go round evenly."""
        done = set(finished)
        left = self.count - len(done)
        most = max(1, min(_MOST_BLOCKS, left // (8 * workers)))
        return [self._unit(*run) for run in _runs(self.count, done, most)]

    def _unit(self, first: int, end: int) -> Unit:
        """Blocks `first` to `end`."""
        starts = range(first * self.size, end * self.size, self.size)
        blocks = tuple(
            Block(number, start, min(start + self.size, self.rows))
            for number, start in enumerate(starts, first)
        )
        begin = bisect_right(self.tables, blocks[0].start, key=lambda table: table.end)
        stop = bisect_left(self.tables, blocks[-1].stop, key=lambda table: table.first)
        return Unit(self.tables[begin:stop], blocks)


def find_files(data: str | Path | Sequence[str | Path]) -> list[str]:
    """Files behind paths and URIs; a folder stands for the files in it, sorted by name.

    Raises:
        FileNotFoundError: a path is not there, or a folder has no such files.
        ValueError: a file is of another kind.
    """
    given = [data] if isinstance(data, str | Path) else list(data)
    found: list[str] = []
    for place in given:
        found.extend(_files_at(str(place)))
    if not found:
        raise FileNotFoundError(f"{data!r}: there is nothing to read")
    if len(set(found)) < len(found):
        twice = next(place for place in found if found.count(place) > 1)
        raise ValueError(f"{twice} is given twice: its rows would be embedded twice")
    return found


def origins_of(places: Sequence[str]) -> list[Origin]:
    """What files look like now."""
    return list(_in_threads(_origin, places))


def make_plan(
    places: Sequence[str],
    *,
    text_column: str,
    columns: Sequence[str] | None,
    embedding_column: str,
    rows_per_block: int,
    skip: bool,
    known: Mapping[str, str] | None = None,
) -> Plan:
    """Read the footers of Parquet files and cut their rows into blocks.

    Args:
        places: The files, in order.
        text_column: Must be there, and text, in each.
        columns: Carried along besides; None = all.
        embedding_column: Must not be there.
        rows_per_block: Rows of each block but the last.
        skip: Leave out files that cannot be read.
        known: Those that an earlier call left out: exactly these are left out again, or rows would
            be counted anew. None = there was none.

    Raises:
        ValueError: a file cannot be read or has other columns, or there are no rows.
    """
    tables: list[Table] = []
    schemas = []
    unreadable = dict(known or {})
    wanted = [place for place in places if place not in unreadable]
    for place, (schema, groups, reason) in zip(wanted, _in_threads(_footer, wanted), strict=True):
        if schema is None:
            if not skip or known is not None:
                raise ValueError(f"{reason}. Mend or remove it, or pass on_error='skip'")
            unreadable[place] = reason
            continue
        check_text_column(schema, text_column, place)
        tables.append(Table(place, tables[-1].end if tables else 0, groups))
        schemas.append(_chosen(schema, columns, place))
    schema = one_schema(schemas, [table.place for table in tables])
    if embedding_column in schema.names:
        raise ValueError(
            f"the input has a column {embedding_column!r} already: choose another with "
            "embedding_column, or leave that one out with columns=[...]"
        )
    plan = Plan(tuple(tables), unreadable, schema, rows_per_block)
    if not plan.rows:
        raise ValueError(f"nothing to embed: {', '.join(map(str, places[:3]))} has no rows")
    return plan


def describe(origins: Sequence[Origin]) -> list[dict[str, Any]]:
    """Origins for the manifest."""
    return [asdict(origin) for origin in origins]


def _files_at(place: str) -> list[str]:
    fs = import_fs()
    system, path = locate(place)
    (info,) = system.get_file_info([path])
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"{place} does not exist")
    if info.is_file:
        if not path.endswith(LINES + TABLES):
            raise ValueError(
                f"{place} ends in none of {', '.join(TABLES + LINES)}: read it with ray.data and "
                "pass the Dataset"
            )
        return [place if "://" in place else path]
    infos = system.get_file_info(fs.FileSelector(path, recursive=True))
    names = [info.path[len(path) + 1 :] for info in infos if info.is_file]
    found = [
        below(place, name)
        for name in names
        if name.endswith(LINES + TABLES)
        and not any(part[:1] in ("", ".", "_") for part in name.split("/"))
    ]
    if not found:
        raise FileNotFoundError(f"{place} has no files in {', '.join(TABLES + LINES)}")
    return sorted(found)


def _origin(place: str) -> Origin:
    system, path = locate(place)
    with system.open_input_file(path) as file:
        size = file.size()
        ends = file.read_at(min(_ENDS, size), 0) + file.read_at(
            min(_ENDS, size), max(0, size - _ENDS)
        )
    return Origin(place, size, hashlib.sha256(ends).hexdigest()[:32])


def _footer(place: str) -> tuple[pa.Schema | None, tuple[int, ...], str]:
    """Schema and rows per group of a file, or why it cannot be read."""
    arrow = import_arrow()
    system, path = locate(place)
    try:
        with system.open_input_file(path) as stream:
            file = arrow.parquet.ParquetFile(stream)
            groups = range(file.metadata.num_row_groups)
            rows = tuple(file.metadata.row_group(group).num_rows for group in groups)
            return file.schema_arrow, rows, ""
    except (arrow.ArrowException, OSError) as error:
        return None, (), f"{place} cannot be read as Parquet: {error}"


def _chosen(schema: pa.Schema, columns: Sequence[str] | None, place: str) -> pa.Schema:
    """The columns that are wanted, in the order they are named."""
    if columns is None:
        return schema
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise ValueError(f"{place} has no column {missing[0]!r}; it has: {', '.join(schema.names)}")
    return import_arrow().schema([schema.field(name) for name in columns])


def _runs(count: int, done: set[int], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of numbers below `count` that are not done, of `most` at most."""
    first = 0
    for number in range(count + 1):
        if number == count or number in done or number - first == most:
            if number > first:
                yield first, number
            first = number + 1 if number in done else number


def _in_threads(work: Any, places: Sequence[str]) -> Iterator[Any]:
    """Small reads of many files, which wait more than they work."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(work, places)

"""Rows of blocks out of Parquet files: in one pass, or by pieces around what is corrupt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from ..folder import locate
from ..tables import as_schema, import_arrow
from .plan import Block, Table, Unit

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Rows:
    """What could be read of a block.

    Attributes:
        block: The block.
        table: Its rows.
        numbers: Number of each of these rows in the input.
        notes: What could not be read, and why.
    """

    block: Block
    table: pa.Table
    numbers: Sequence[int]
    notes: tuple[str, ...] = ()


def read_rows(
    unit: Unit, blocks: Sequence[Block], schema: pa.Schema, *, skip: bool
) -> Iterator[Rows]:
    """The rows of some blocks of a unit, in order.

    Args:
        unit: Says which files.
        blocks: Blocks of it.
        schema: Columns and types that are wanted.
        skip: Give what can be read where a row group is corrupt.

    Raises:
        ValueError: a row group is corrupt.
    """
    arrow = import_arrow()
    left = list(blocks)
    while left:
        try:
            for table in _in_one_pass(unit, tuple(left), schema):
                block = left.pop(0)
                yield Rows(block, table, range(block.start, block.stop))
        except (OSError, arrow.ArrowException) as error:
            if not skip:
                raise ValueError(
                    f"{unit.span(left[0])} cannot be read: {error}. Mend the file, or pass "
                    "on_error='skip'"
                ) from error
            yield _by_pieces(unit, left.pop(0), schema)


def _in_one_pass(unit: Unit, blocks: Sequence[Block], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of blocks; a row group is decoded once."""
    arrow = import_arrow()
    rest, at = schema.empty_table(), blocks[0].start
    batches = _batches(unit, blocks[0].start, blocks[-1].stop, schema)
    for block in blocks:
        while at + len(rest) < block.stop:
            first, batch = next(batches)
            if first + len(batch) <= block.start:
                continue
            if not len(rest):
                at = first
            rest = arrow.concat_tables([rest, batch])
        yield rest.slice(block.start - at, block.stop - block.start)
        at, rest = block.stop, rest.slice(block.stop - at)


def _batches(
    unit: Unit, start: int, stop: int, schema: pa.Schema
) -> Iterator[tuple[int, pa.Table]]:
    """Batches that hold rows `start` to `stop`, each with the number of its first row."""
    arrow = import_arrow()
    for table in unit.tables:
        held = [g for g, first, end in _groups(table) if first < stop and end > start]
        if not held:
            continue
        at = next(first for g, first, _ in _groups(table) if g == held[0])
        with _opened(table) as file:
            names = [name for name in file.schema_arrow.names if name in schema.names]
            for batch in file.iter_batches(
                _BATCH, row_groups=held, columns=names, use_threads=False
            ):
                yield at, as_schema(arrow.Table.from_batches([batch]), schema)
                at += len(batch)
    raise OSError("a file has fewer rows than its footer says")


def _by_pieces(unit: Unit, block: Block, schema: pa.Schema) -> Rows:
    """A block without the rows of row groups that are corrupt."""
    arrow = import_arrow()
    found, notes = [schema.empty_table()], []
    numbers: list[int] = []
    for table in unit.tables:
        for group, first, end in _groups(table):
            start, stop = max(first, block.start), min(end, block.stop)
            if start >= stop:
                continue
            try:
                with _opened(table) as file:
                    names = [name for name in file.schema_arrow.names if name in schema.names]
                    rows = file.read_row_group(group, columns=names, use_threads=False)
                found.append(as_schema(rows.slice(start - first, stop - start), schema))
                numbers.extend(range(start, stop))
            except (OSError, arrow.ArrowException) as error:
                lost = Block(block.number, start, stop)
                notes.append(f"{unit.span(lost)} cannot be read: {error}")
    return Rows(block, arrow.concat_tables(found), numbers, tuple(notes))


def _groups(table: Table) -> list[tuple[int, int, int]]:
    """Number, first row and row behind the last of each row group."""
    ends = accumulate(table.groups, initial=table.first)
    return [(group, *span) for group, span in enumerate(pairwise(ends))]


def _opened(table: Table) -> Any:
    """A Parquet file, to be used in `with`."""
    system, path = locate(table.place)
    file = system.open_input_file(path)
    return import_arrow().parquet.ParquetFile(file, page_checksum_verification=True)

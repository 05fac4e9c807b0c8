"""What is not Parquet in its final order becomes that first, under the output's `_input`."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ...records.lines import json_object
from ..cluster import cause_of, import_ray
from ..folder import STAGED, Folder, below, locate
from ..tables import check_text_column, import_arrow
from .plan import LINES

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 2**26
_GROUP = 65536
_SORTED = "sorted-"
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Staged:
    """Files in the order of their rows.

    Attributes:
        places: Parquet files.
        skipped: Rows left out so far.
        notes: Why.
    """

    places: list[str]
    skipped: int
    notes: list[str]


def stage_lines(
    places: Sequence[str],
    folder: Folder,
    text_column: str,
    columns: Sequence[str] | None,
    *,
    skip: bool,
) -> Staged:
    """JSON lines as Parquet, a task per file; Parquet stays where it is. Finished files stay done.

    Raises:
        ValueError: a line that is not an object with a text; file and line are named.
    """
    ray = import_ray()
    task = ray.remote(_convert)
    begun = {
        number: task.remote(place, folder.place, number, text_column, columns, skip)
        for number, place in enumerate(places)
        if place.endswith(LINES)
    }
    waiting = list(begun.values())
    while waiting:
        done, waiting = ray.wait(waiting)
        try:
            cause_of(done[0])
        except BaseException:
            for reference in waiting:
                ray.cancel(reference)
            raise
    found = Staged([], 0, [])
    skipped = 0
    for number, place in enumerate(places):
        if number not in begun:
            found.places.append(place)
            continue
        values = cause_of(begun[number])
        skipped += values["skipped"]
        found.notes.extend(values["notes"])
        names = [f"{STAGED}/{number:05d}-{part:05d}.parquet" for part in range(values["parts"])]
        found.places.extend(below(folder.place, name) for name in names)
    return Staged(found.places, skipped, found.notes)


def stage_sorted(
    dataset: Any,
    folder: Folder,
    id_column: str,
    text_column: str,
    columns: Sequence[str] | None,
) -> list[str]:
    """A Ray Dataset as Parquet files in the order of its ids.

    Raises:
        ValueError: a column is missing, an id is null or there twice.
    """
    checked = dataset.map_batches(
        _checked_ids,
        fn_kwargs={"id_column": id_column, "text_column": text_column, "columns": columns},
        batch_format="pyarrow",
    )
    ray = import_ray()
    for earlier in folder.names(STAGED):
        if earlier.startswith(_SORTED):  # cut short: which of its files are whole nobody knows
            folder.remove(f"{STAGED}/{earlier}")
    name = f"{STAGED}/{_SORTED}{uuid.uuid4().hex}"
    context, usual = checked.context, checked.context.raise_original_map_exception
    context.raise_original_map_exception = True
    try:
        checked.sort(id_column).write_parquet(
            folder.path_of(name),
            filesystem=folder.filesystem,
            row_group_size=_GROUP,
            write_page_checksum=True,
        )
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, IdError):
            raise ValueError(str(error.cause)) from None
        raise
    finally:
        context.raise_original_map_exception = usual
    places = [below(folder.place, f"{name}/{file}") for file in folder.names(name)]
    task = ray.remote(_ends)
    ends = [cause_of(reference) for reference in [task.remote(p, id_column) for p in places]]
    found = sorted((*end, place) for place, end in zip(places, ends, strict=True) if end)
    for (_, last, _), (first, _, place) in pairwise(found):
        _check_order(id_column, last, first, place)
    return [place for _, _, place in found]


class IdError(ValueError):
    """Ids that cannot order rows."""


def _checked_ids(
    table: pa.Table, *, id_column: str, text_column: str, columns: Sequence[str] | None
) -> pa.Table:
    """The columns of a batch that are wanted, if its ids and texts can be used."""
    arrow, names = import_arrow(), table.column_names
    wanted = names if columns is None else [*dict.fromkeys([*columns, id_column, text_column])]
    for name in (id_column, *wanted):
        if name not in names and name != text_column:
            raise IdError(f"the data set has no column {name!r}; it has: {', '.join(names)}")
    kind = table.schema.field(id_column).type
    if arrow.types.is_nested(kind) or (arrow.types.is_null(kind) and len(table)):
        raise IdError(f"column {id_column!r} is of type {kind}, which has no order")
    if table.column(id_column).null_count:
        raise IdError(f"column {id_column!r} has rows without an id: fill them in or drop them")
    try:
        check_text_column(table.schema, text_column, "the data set")
    except ValueError as error:
        raise IdError(str(error)) from error
    return table.select(wanted)


def _ends(place: str, id_column: str) -> tuple[Any, Any] | None:
    """First and last id of a file; None if it is empty.

    Raises:
        ValueError: an id is there twice, or the ids are not in order.
    """
    arrow = import_arrow()
    import pyarrow.compute as compute

    system, path = locate(place)
    with system.open_input_file(path) as stream:
        ids = arrow.parquet.ParquetFile(stream).read([id_column]).column(0).combine_chunks()
    if not len(ids):
        return None
    wrong = compute.index(compute.less(ids[:-1], ids[1:]), False).as_py()
    if wrong >= 0:
        _check_order(id_column, ids[wrong].as_py(), ids[wrong + 1].as_py(), place)
    return ids[0].as_py(), ids[-1].as_py()


def _check_order(id_column: str, before: Any, after: Any, place: str) -> None:
    if before == after:
        raise ValueError(f"{id_column} = {after!r} is there twice: ids must be of one row each")
    if not before < after:
        raise ValueError(f"{place}: Ray sorted {id_column} = {after!r} behind {before!r}")


def _convert(
    place: str,
    output: str,
    number: int,
    text_column: str,
    columns: Sequence[str] | None,
    skip: bool,
) -> dict[str, Any]:
    """One file of JSON lines as Parquet files; what it came to is written last."""
    arrow = import_arrow()
    folder = Folder(output)
    done = folder.get_json(f"{STAGED}/{number:05d}.json")
    if done is not None:
        return done
    found: dict[str, Any] = {"parts": 0, "skipped": 0, "notes": []}
    for lines, rows in _chunks(place, text_column, columns, found, skip):
        try:
            table = _table(rows)
        except (arrow.ArrowException, UnicodeEncodeError) as error:
            raise ValueError(
                f"{place}, lines {lines[0]:,} to {lines[1]:,} do not make columns: {error}. "
                "Name the columns that you want with columns=[...]"
            ) from error
        sink = arrow.BufferOutputStream()
        arrow.parquet.write_table(table, sink, row_group_size=_GROUP, write_page_checksum=True)
        folder.put(f"{STAGED}/{number:05d}-{found['parts']:05d}.parquet", sink.getvalue())
        found["parts"] += 1
    folder.put_json(f"{STAGED}/{number:05d}.json", found)
    return found


def _chunks(
    place: str, text_column: str, columns: Sequence[str] | None, found: dict[str, Any], skip: bool
) -> Iterator[tuple[tuple[int, int], list[dict[str, Any]]]]:
    """Rows of a file of JSON lines, some 64 MB at a time, with their first and last line."""
    rows: list[dict[str, Any]] = []
    first, size, number = 1, 0, 0
    for number, line in _lines(place, found, skip):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, f"{place}, line {number:,}", text_column, columns))
        except ValueError as error:
            if not skip:
                raise ValueError(f"{error}. Mend it, or pass on_error='skip'") from error
            found["skipped"] += 1
            found["notes"] = [*found["notes"], str(error)][:_MOST_NAMED]
            continue
        size += len(line)
        if size >= _CHUNK:
            yield (first, number), rows
            rows, first, size = [], number + 1, 0
    if rows:
        yield (first, number), rows


def _lines(place: str, found: dict[str, Any], skip: bool) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file, as far as it can be read."""
    system, path = locate(place)
    number = 0
    try:
        with system.open_input_stream(path, compression="detect") as stream:
            for number, line in enumerate(io.BufferedReader(stream), 1):
                yield number, line
    except (OSError, import_arrow().ArrowException) as error:
        reason = f"{place} cannot be read behind line {number:,}: {error}"
        if not skip:
            raise ValueError(f"{reason}. Mend or remove it, or pass on_error='skip'") from error
        found["notes"].append(reason)


def _row(
    line: bytes, place: str, text_column: str, columns: Sequence[str] | None
) -> dict[str, Any]:
    """The columns of a line that are wanted.

    Raises:
        ValueError: it is not an object with a text; `place` is named.
    """
    row = json_object(line, place)
    if text_column not in row:
        raise ValueError(f"{place} has no {text_column!r}; it has: {', '.join(row)}")
    if not isinstance(row[text_column], str):
        raise ValueError(f"{place} has no text in {text_column!r}: it is {row[text_column]!r:.60}")
    if columns is None:
        return row
    return {name: row.get(name) for name in dict.fromkeys([*columns, text_column])}


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as a table with all columns that any of them has."""
    names = dict.fromkeys(name for row in rows for name in row)
    return import_arrow().table({name: [row.get(name) for row in rows] for name in names})
